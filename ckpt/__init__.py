"""A memory/compute profiler for gradient checkpointing, in Python on NumPy."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# The waist is standard library only, and quick; all else is imported when it is first asked for.
from ckpt.errors import CkptError
from ckpt.graph import Graph, Node
from ckpt.schedule import Backward, Compute, Free, Schedule
from ckpt.simulate import simulate
from ckpt.timeline import Timeline

if TYPE_CHECKING:
    from ckpt.planners import make_schedule
    from ckpt.studies.frontier import frontier
    from ckpt.studies.plan import load_plan, plan
    from ckpt.studies.profile import profile
    from ckpt.studies.sweep import sweep
    from ckpt.tape.core.abstract import spec
    from ckpt.tape.core.context import check_finite, scope
    from ckpt.tape.core.op import op
    from ckpt.tape.core.value import Value
    from ckpt.tape.eager.checkpoint import checkpoint, checkpoint_sequential, name
    from ckpt.tape.eager.grad import grad, stop_gradient, value_and_grad
    from ckpt.tape.eager.gradcheck import gradcheck
    from ckpt.tape.execution.run import execute
    from ckpt.tape.traced.trace import trace

_HOMES = {
    "Value": "ckpt.tape.core.value",
    "check_finite": "ckpt.tape.core.context",
    "checkpoint": "ckpt.tape.eager.checkpoint",
    "checkpoint_sequential": "ckpt.tape.eager.checkpoint",
    "execute": "ckpt.tape.execution.run",
    "frontier": "ckpt.studies.frontier",
    "grad": "ckpt.tape.eager.grad",
    "gradcheck": "ckpt.tape.eager.gradcheck",
    "load_plan": "ckpt.studies.plan",
    "make_schedule": "ckpt.planners",
    "name": "ckpt.tape.eager.checkpoint",
    "op": "ckpt.tape.core.op",
    "plan": "ckpt.studies.plan",
    "profile": "ckpt.studies.profile",
    "scope": "ckpt.tape.core.context",
    "spec": "ckpt.tape.core.abstract",
    "stop_gradient": "ckpt.tape.eager.grad",
    "sweep": "ckpt.studies.sweep",
    "trace": "ckpt.tape.traced.trace",
    "value_and_grad": "ckpt.tape.eager.grad",
}
"""Public name -> the module it is imported from, when it is first asked for."""

__version__ = "0.1.0"

__all__ = [
    "Backward",
    "CkptError",
    "Compute",
    "Free",
    "Graph",
    "Node",
    "Schedule",
    "Timeline",
    "Value",
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
    "op",
    "plan",
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
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
