"""Does a planned step do what the plain one does, within what was promised?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._pytree import tree_map

from ckpt.errors import VerificationError
from ckpt.studies.plan import Step
from ckpt.torch.run.program import CompiledStep, Outcome, TorchProgram
from ckpt.torch.run.runner import Runner
from ckpt.units import format_bytes

ALLOWANCE = 16
"""Bytes by which a measured peak may exceed the promise."""

Planned = tuple[TorchProgram, Runner, Step]
Plans = Callable[[tuple[Any, ...], dict[str, Any]], Planned]


@dataclass(frozen=True)
class TorchVerification:
    """What a real run of a planned step showed. Bytes."""

    promised: int
    measured: int
    plain: int | None
    """The plain step's own peak, measured; None: there was no memory for it."""
    compared: str
    """On what the bits were compared."""

    def __str__(self) -> str:
        plain = "" if self.plain is None else f"; the plain step's {format_bytes(self.plain)}"
        return (
            f"verified: predicted peak {format_bytes(self.promised)}, measured "
            f"{format_bytes(self.measured)} ({self.measured - self.promised:+d} B){plain}; loss, "
            f"gradients and buffers equal the plain step's bit for bit, {self.compared}"
        )


def hold_to_promises(
    plans: Plans, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> TorchVerification:
    """``plans`` gives the plan for some arguments."""
    program, runner, plan = plans(args, kwargs)
    try:
        if program.gpu is not None:  # what its libraries allocate for good is no part of a step
            _run(program, CompiledStep(program, runner), args, kwargs)
        planned, peak = _run(program, CompiledStep(program, runner), args, kwargs)
    except RuntimeError as error:
        if _is_short_of_memory(error):
            raise VerificationError(f"no memory for the planned step: {error}") from None
        raise
    promised = plan.timeline.peak
    if peak > promised + ALLOWANCE:
        raise VerificationError(
            f"the measured peak, {format_bytes(peak)} ({peak} bytes), exceeds the promised "
            f"{format_bytes(promised)} ({promised} bytes)"
        )
    try:
        plain, own = _run(program, program.plain, args, kwargs)
    except (RuntimeError, MemoryError) as error:
        if not _is_short_of_memory(error):
            raise
        return TorchVerification(promised, peak, None, _smaller(plans, args, kwargs))
    _compare(program, plain, planned)
    return TorchVerification(promised, peak, own, "on these arguments")


def _run(program: TorchProgram, step: Any, args: Any, kwargs: Any) -> tuple[Outcome, int]:
    with program.restored(*args, **kwargs):
        outcome, peak = program.measure(step, *args, **kwargs)
    return outcome, peak


def _smaller(plans: Plans, args: Any, kwargs: Any) -> str:
    """Compare on half a batch, a quarter, …; in words."""
    sizes = [0]
    tree_map(lambda v: sizes.append(v.shape[0]) if isinstance(v, torch.Tensor) and v.dim() else 0,
             (args, kwargs))  # fmt: skip
    whole = size = max(sizes)
    while size > 1:
        size //= 2

        def cut(value: Any, to: int = size) -> Any:
            fits = isinstance(value, torch.Tensor) and value.dim() and value.shape[0] == whole
            return value[:to] if fits else value

        few, named = tree_map(cut, args), tree_map(cut, kwargs)
        program, runner, _ = plans(few, named)
        try:
            plain, _ = _run(program, program.plain, few, named)
        except (RuntimeError, MemoryError) as error:
            if not _is_short_of_memory(error):
                raise
            continue
        planned, _ = _run(program, CompiledStep(program, runner), few, named)
        _compare(program, plain, planned)
        return f"on {size} of {whole} samples, since there is no memory for the plain step on all"
    return "not compared: there is no memory for the plain step on a single sample"


def _is_short_of_memory(error: BaseException) -> bool:
    text = str(error)
    return (
        isinstance(error, (MemoryError, torch.OutOfMemoryError))
        or "can't allocate memory" in text
        or "not enough memory" in text
    )


def _compare(program: TorchProgram, plain: Outcome, planned: Outcome) -> None:
    """VerificationError, naming the first part whose bits differ."""
    if program.digest(plain) == program.digest(planned):
        return
    targets = program.captured.targets
    named = [
        ("output", k, a, b)
        for k, (a, b) in enumerate(zip(plain.outputs, planned.outputs, strict=True))
    ]
    named += [
        (f"the gradient of {leaf.name or 'argument'}", k, a, b)
        for k, (leaf, a, b) in enumerate(
            zip(targets, plain.gradients, planned.gradients, strict=True)
        )
    ]
    named += [
        ("a buffer or generator", k, a, b)
        for k, (a, b) in enumerate(zip(plain.state, planned.state, strict=True))
    ]
    empty = Outcome([], [], [])
    for what, k, a, b in named:
        if program.digest(replace(empty, outputs=[a])) != program.digest(
            replace(empty, outputs=[b])
        ):
            off = ""
            if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.shape == b.shape:
                off = f", by at most {(a.double() - b.double()).abs().max():.3g}"
            raise VerificationError(f"{what} ({k}) differs from the plain step's{off}")
