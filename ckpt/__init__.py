"""A memory/compute profiler for gradient checkpointing, in Python on NumPy."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # type checkers take it for typing's, whose import takes longer than all else
if TYPE_CHECKING:
    from typing import Any

    import ckpt.nn as nn
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
        WorkersError,
    )
    from ckpt.graph import BackwardRow, BackwardStep, Graph, Node
    from ckpt.machine import simulate
    from ckpt.planners import Planner, make_schedule, planner
    from ckpt.planners.base.cost import Cost
    from ckpt.planners.bounds.certificate import Certificate
    from ckpt.program import Execution, Observer, Program, execute
    from ckpt.schedule import Backward, Compute, Free, Instruction, Schedule
    from ckpt.studies.frontier import Frontier, frontier
    from ckpt.studies.plan import Plan, Step, Verification, load_plan, plan
    from ckpt.studies.profile import Profile, load_profile, profile
    from ckpt.studies.sweep import sweep
    from ckpt.studies.swept import Sweep
    from ckpt.tape.core.abstract import spec
    from ckpt.tape.core.context import check_finite, scope
    from ckpt.tape.core.op import op
    from ckpt.tape.core.value import Value
    from ckpt.tape.eager.checkpoint import checkpoint, checkpoint_sequential, name
    from ckpt.tape.eager.grad import grad, stop_gradient, value_and_grad
    from ckpt.tape.eager.gradcheck import gradcheck
    from ckpt.tape.execution.program import trace
    from ckpt.tape.ops.tiles import threads
    from ckpt.timeline import Buffer, Timeline
    from ckpt.witness import Witness

# Even the waist: whoever presses Ctrl-C while Python starts must find little of ours running.
_HOMES = {
    "ckpt.errors": (
        "AbstractError BackwardTwiceError BudgetError CkptError GraphError MissingExtraError "
        "MutationError NonFiniteError ScheduleError StepMemoryError TapeError UnitError "
        "UnsupportedError UsageError VerificationError WorkersError"
    ),
    "ckpt.graph": "BackwardRow BackwardStep Graph Node",
    "ckpt.machine": "simulate",
    "ckpt.program": "Execution Observer Program execute",
    "ckpt.schedule": "Backward Compute Free Instruction Schedule",
    "ckpt.timeline": "Buffer Timeline",
    "ckpt.witness": "Witness",
    "ckpt.planners": "Planner make_schedule planner",
    "ckpt.planners.base.cost": "Cost",
    "ckpt.planners.bounds.certificate": "Certificate",
    "ckpt.studies.frontier": "Frontier frontier",
    "ckpt.studies.plan": "Plan Step Verification load_plan plan",
    "ckpt.studies.profile": "Profile load_profile profile",
    "ckpt.studies.sweep": "sweep",
    "ckpt.studies.swept": "Sweep",
    "ckpt.tape.core.abstract": "spec",
    "ckpt.tape.core.context": "check_finite scope",
    "ckpt.tape.core.op": "op",
    "ckpt.tape.core.value": "Value",
    "ckpt.tape.eager.checkpoint": "checkpoint checkpoint_sequential name",
    "ckpt.tape.eager.grad": "grad stop_gradient value_and_grad",
    "ckpt.tape.eager.gradcheck": "gradcheck",
    "ckpt.tape.execution.program": "trace",
    "ckpt.tape.ops.tiles": "threads",
}
"""Where the names are found, which are imported when they are first asked for."""

_MODULES = (
    "errors",
    "graph",
    "machine",
    "nn",
    "program",
    "schedule",
    "testing",
    "timeline",
    "units",
    "witness",
)

__version__ = "0.2.0"

__all__ = [
    "AbstractError", "Backward", "BackwardRow", "BackwardStep", "BackwardTwiceError",
    "BudgetError", "Buffer", "Certificate", "CkptError", "Compute", "Cost", "Execution", "Free",
    "Frontier", "Graph", "GraphError", "Instruction", "MissingExtraError", "MutationError", "Node",
    "NonFiniteError", "Observer", "Plan", "Planner", "Profile", "Program", "Schedule",
    "ScheduleError", "Step", "StepMemoryError", "Sweep", "TapeError", "Timeline", "UnitError",
    "UnsupportedError", "UsageError", "Value", "Verification", "VerificationError", "Witness",
    "WorkersError", "check_finite", "checkpoint", "checkpoint_sequential", "execute", "frontier",
    "grad", "gradcheck", "load_plan", "load_profile", "make_schedule", "name", "nn", "op", "plan",
    "planner", "profile", "scope", "simulate", "spec", "stop_gradient", "sweep", "threads",
    "trace", "value_and_grad",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"ckpt.{name}")
    for home, names in _HOMES.items():
        if name in names.split():
            found = globals()[name] = getattr(import_module(home), name)
            return found
    raise AttributeError(f"module 'ckpt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
