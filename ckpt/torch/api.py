"""What a user of PyTorch calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_flatten

from ckpt.studies.frontier import Frontier
from ckpt.studies.frontier import frontier as frontier_of
from ckpt.studies.plan import load_plan
from ckpt.torch.capture.modules import behind, modules_among
from ckpt.torch.report import TorchProfile, profile_of
from ckpt.torch.run.program import TorchProgram
from ckpt.torch.step import Settings, StepModule


def plan(
    loss_fn: Callable[..., Any],
    *args: Any,
    kwargs: dict[str, Any] | None = None,
    budget: int | str | None = None,
    planner: str = "auto",
    whole: bool = False,
    cost: str = "roofline",
    accumulate: bool = False,
    name: str = "",
    options: dict[str, Any] | None = None,
) -> StepModule:
    """Plan one training step of ``loss_fn(*args, **kwargs)`` within ``budget``.

    ``loss_fn`` is any callable of tensors - a module, a method, a closure over modules - that
    returns a loss: a scalar tensor, or a dict, tuple or `ModelOutput` with one or several. It is
    captured once, on fake tensors; nothing of its Python runs again.

    ``budget`` bounds the bytes allocated from entering the step to the end of backward beyond those
    live at entry: a number, ``"4GiB"``, ``"50%"`` of what storing everything needs; ``whole`` adds
    parameters, buffers and inputs. ``accumulate`` plans for gradients that exist. ``cost`` is what
    recomputation is weighed by: a ``"roofline"`` of FLOPs and bytes moved, ``"flops"``,
    ``"bytes"``, or ``"seconds"`` measured per op. ``options`` go to the planner.

    Raises BudgetError where no schedule fits; UnsupportedError, AbstractError and TapeError, naming
    op and line, for what can't be captured.
    """
    settings = Settings(budget, planner, whole, cost, accumulate, name, options)
    return StepModule(loss_fn, args, kwargs or {}, settings)


def load(
    path: Any, loss_fn: Callable[..., Any], *args: Any, kwargs: dict[str, Any] | None = None
) -> StepModule:
    """The step that was planned and saved as ``path``, of the same function on the same shapes.

    UsageError for another function or other shapes.
    """
    found = load_plan(path)
    accumulate = found.graph.gradients == "added"
    settings = Settings(found.schedule.budget, accumulate=accumulate, name=found.graph.name)
    return StepModule(loss_fn, args, kwargs or {}, settings, found)


def trace(
    loss_fn: Callable[..., Any],
    *args: Any,
    kwargs: dict[str, Any] | None = None,
    accumulate: bool = False,
    name: str = "",
) -> TorchProgram:
    """The step as a `ckpt.Program`, for `ckpt.plan`, `ckpt.frontier`, `ckpt.execute`, ….

    ``args`` and parameters may be fake or meta tensors: then nothing can be run, and workspace of
    kernels isn't known.
    """
    return TorchProgram(loss_fn, args, kwargs, accumulate=accumulate, name=name)


def profile(
    loss_fn: Callable[..., Any],
    *args: Any,
    kwargs: dict[str, Any] | None = None,
    measure: bool | None = None,
    name: str = "",
) -> TorchProfile:
    """What the plain step saves for backward, by module and line, and what peaks can be had."""
    return profile_of(TorchProgram(loss_fn, args, kwargs, name=name), args, measure)


def frontier(
    loss_fn: Callable[..., Any],
    *args: Any,
    kwargs: dict[str, Any] | None = None,
    planners: Iterable[str] | None = ("auto",),
    budgets: Iterable[int | str] | None = None,
    points: int = 6,
    measure: bool | None = None,
) -> Frontier:
    """Peak memory against recompute, over budgets; see `ckpt.frontier`."""
    program = TorchProgram(loss_fn, args, kwargs)
    return frontier_of(
        program, *args, planners=planners, budgets=budgets, points=points,
        measure=program.real if measure is None else measure,
    )  # fmt: skip


def shapes_alone() -> AbstractContextManager[Any]:
    """Within it, torch makes fake tensors: a model of any size can be built and planned."""
    mode: AbstractContextManager[Any] = FakeTensorMode(allow_non_fake_inputs=True)
    return mode


def can_run(loss_fn: Callable[..., Any], *args: Any) -> bool:
    """Are the tensors behind the function and among its arguments more than shapes?"""
    modules = modules_among(behind(loss_fn)).values()
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    tensors += [t for t in tree_flatten(args)[0] if isinstance(t, torch.Tensor)]
    return not any(t.is_meta or isinstance(t, FakeTensor) for t in tensors)
