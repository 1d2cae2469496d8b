"""What an eager step holds at most, watched Backward by Backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ckpt.tape.core import tree
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.value import Value
from ckpt.tape.eager.grad import gradients
from ckpt.witness import Tracemalloc


def eager_peak(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
) -> tuple[Any, int]:
    """The loss and gradients (a list) of an eager step, and its peak in bytes, gradients aside.

    What the caller's own variables hold is real too, and is in this peak.
    """
    numbers = (argnums,) if isinstance(argnums, int) else argnums
    given = list(args)
    for k in numbers:
        given[k] = tree.rebuild(given[k], Value)
    wanted = [leaf for k in numbers for leaf in tree.leaves(given[k])]
    with Tracemalloc() as witness:
        meter = _EagerMeter(witness)
        result = function(*given)
        meter.note(0)
        loss = result[0] if has_aux else result
        del result
        found = gradients(loss, wanted, observer=meter)
    return (loss.data, found), meter.peak


class _EagerMeter:
    """Sees the peak of each Backward, less the gradients that rest by then."""

    def __init__(self, witness: Tracemalloc) -> None:
        self.witness = witness
        self.peak = 0
        self.gradients = 0
        self.waiting: list[TapeNode] = []

    def note(self, gradient_nbytes: int) -> None:
        self.gradients += gradient_nbytes
        self.peak = max(self.peak, self.witness.peak() - self.gradients)
        self.witness.reset()

    def before(self, kind: int, node: TapeNode) -> None:
        self.waiting = [
            dep
            for dep in node.inputs or ()
            if type(dep) is TapeNode and dep.op is None and dep.requires_grad
            and dep.cotangent is None
        ]  # fmt: skip

    def after(self, kind: int, node: TapeNode) -> None:
        reached = [dep.cotangent.nbytes for dep in self.waiting if dep.cotangent is not None]
        self.waiting = []
        self.note(sum(reached))
