"""Performs the Computes and Frees by which a checkpointed region is replayed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ckpt.errors import BackwardTwiceError
from ckpt.tape.core.apply import compute
from ckpt.tape.core.changes import verify_replayed
from ckpt.tape.core.generators import replayed
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.rules import read

COMPUTE, FREE, BACKWARD = range(3)


class NodeObserver(Protocol):
    """Sees each instruction before and after it is performed."""

    def before(self, kind: int, node: TapeNode) -> None: ...
    def after(self, kind: int, node: TapeNode) -> None: ...


def replay(instructions: Iterable[tuple[int, TapeNode]], observer: NodeObserver | None) -> None:
    """Perform the instructions in order. What a node watches is verified before it is read."""
    for kind, node in instructions:
        if observer is not None:
            observer.before(kind, node)
        if kind == COMPUTE:
            if node.watched is not None:
                verify_replayed(node)
            _compute(node)
        else:
            node.value = None
        if observer is not None:
            observer.after(kind, node)


def _compute(node: TapeNode) -> None:
    op = node.op
    assert op is not None
    if node.inputs is None:
        raise spent()
    params = node.params
    if op.random:
        assert params is not None
        params = {**params, "rng": replayed(params, node.state)}
    node.value = compute(op, [read(source) for source in node.inputs], params)


def spent() -> BackwardTwiceError:
    return BackwardTwiceError(
        "the values that this backward needs were freed by an earlier one; "
        "call the first one with retain_graph=True, or run the forward again"
    )
