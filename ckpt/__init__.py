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
    from ckpt.tape.abstract import spec
    from ckpt.tape.checkpoint import checkpoint, checkpoint_sequential, name
    from ckpt.tape.context import check_finite, scope
    from ckpt.tape.execute import execute
    from ckpt.tape.grad import grad, stop_gradient, value_and_grad
    from ckpt.tape.gradcheck import gradcheck
    from ckpt.tape.op import op
    from ckpt.tape.trace import trace
    from ckpt.tape.value import Value

_HOMES = {
    "Value": "ckpt.tape.value",
    "check_finite": "ckpt.tape.context",
    "checkpoint": "ckpt.tape.checkpoint",
    "checkpoint_sequential": "ckpt.tape.checkpoint",
    "execute": "ckpt.tape.execute",
    "frontier": "ckpt.studies.frontier",
    "grad": "ckpt.tape.grad",
    "gradcheck": "ckpt.tape.gradcheck",
    "load_plan": "ckpt.studies.plan",
    "make_schedule": "ckpt.planners",
    "name": "ckpt.tape.checkpoint",
    "op": "ckpt.tape.op",
    "plan": "ckpt.studies.plan",
    "profile": "ckpt.studies.profile",
    "scope": "ckpt.tape.context",
    "spec": "ckpt.tape.abstract",
    "stop_gradient": "ckpt.tape.grad",
    "sweep": "ckpt.studies.sweep",
    "trace": "ckpt.tape.trace",
    "value_and_grad": "ckpt.tape.grad",
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
