"""A memory/compute profiler for gradient checkpointing, in Python on NumPy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# The waist is standard library only, and quick; all else is imported when it is first asked for.
from ckpt.errors import (
    AbstractError,
    BackwardTwiceError,
    BudgetError,
    CkptError,
    GraphError,
    MissingExtraError,
    MutationError,
    NonFiniteError,
    ScheduleError,
    StepMemoryError,
    TapeError,
    UnitError,
    UnsupportedError,
    UsageError,
    VerificationError,
)
from ckpt.graph import BackwardRow, BackwardStep, Graph, Node
from ckpt.machine import simulate
from ckpt.program import Execution, Observer, Program, execute
from ckpt.schedule import Backward, Compute, Free, Instruction, Schedule
from ckpt.timeline import Buffer, Timeline
from ckpt.witness import Witness

if TYPE_CHECKING:
    import ckpt.nn as nn
    from ckpt.planners import Planner, make_schedule, planner
    from ckpt.planners.base.cost import Cost
    from ckpt.planners.bounds.certificate import Certificate
    from ckpt.studies.frontier import Frontier, frontier
    from ckpt.studies.plan import Plan, Step, Verification, load_plan, plan
    from ckpt.studies.profile import Profile, profile
    from ckpt.studies.sweep import sweep
    from ckpt.tape.core.abstract import spec
    from ckpt.tape.core.context import check_finite, scope
    from ckpt.tape.core.op import op
    from ckpt.tape.core.value import Value
    from ckpt.tape.eager.checkpoint import checkpoint, checkpoint_sequential, name
    from ckpt.tape.eager.grad import grad, stop_gradient, value_and_grad
    from ckpt.tape.eager.gradcheck import gradcheck
    from ckpt.tape.execution.program import trace

_HOMES = {
    "Certificate": "ckpt.planners.bounds.certificate",
    "Cost": "ckpt.planners.base.cost",
    "Frontier": "ckpt.studies.frontier",
    "Plan": "ckpt.studies.plan",
    "Planner": "ckpt.planners",
    "Profile": "ckpt.studies.profile",
    "Step": "ckpt.studies.plan",
    "Value": "ckpt.tape.core.value",
    "Verification": "ckpt.studies.plan",
    "check_finite": "ckpt.tape.core.context",
    "checkpoint": "ckpt.tape.eager.checkpoint",
    "checkpoint_sequential": "ckpt.tape.eager.checkpoint",
    "frontier": "ckpt.studies.frontier",
    "grad": "ckpt.tape.eager.grad",
    "gradcheck": "ckpt.tape.eager.gradcheck",
    "load_plan": "ckpt.studies.plan",
    "make_schedule": "ckpt.planners",
    "name": "ckpt.tape.eager.checkpoint",
    "nn": "ckpt.nn",
    "op": "ckpt.tape.core.op",
    "plan": "ckpt.studies.plan",
    "planner": "ckpt.planners",
    "profile": "ckpt.studies.profile",
    "scope": "ckpt.tape.core.context",
    "spec": "ckpt.tape.core.abstract",
    "stop_gradient": "ckpt.tape.eager.grad",
    "sweep": "ckpt.studies.sweep",
    "trace": "ckpt.tape.execution.program",
    "value_and_grad": "ckpt.tape.eager.grad",
}
"""Public name -> the module it is imported from, when it is first asked for."""

__version__ = "0.1.0"

__all__ = [
    "AbstractError",
    "Backward",
    "BackwardRow",
    "BackwardStep",
    "BackwardTwiceError",
    "BudgetError",
    "Buffer",
    "Certificate",
    "CkptError",
    "Compute",
    "Cost",
    "Execution",
    "Free",
    "Frontier",
    "Graph",
    "GraphError",
    "Instruction",
    "MissingExtraError",
    "MutationError",
    "Node",
    "NonFiniteError",
    "Observer",
    "Plan",
    "Planner",
    "Profile",
    "Program",
    "Schedule",
    "ScheduleError",
    "Step",
    "StepMemoryError",
    "TapeError",
    "Timeline",
    "UnitError",
    "UnsupportedError",
    "UsageError",
    "Value",
    "Verification",
    "VerificationError",
    "Witness",
    "check_finite",
    "checkpoint",
    "checkpoint_sequential",
    "execute",
    "frontier",
    "grad",
    "gradcheck",
    "load_plan",
    "make_schedule",
    "name",
    "nn",
    "op",
    "plan",
    "planner",
    "profile",
    "scope",
    "simulate",
    "spec",
    "stop_gradient",
    "sweep",
    "trace",
    "value_and_grad",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ckpt' has no attribute {name!r}")
    module = import_module(_HOMES[name])
    found = globals()[name] = module if name == "nn" else getattr(module, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
