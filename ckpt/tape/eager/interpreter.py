"""The one loop that performs every Compute, Free and Backward of an eager program.

Eager backward and a checkpointed segment differ only in who chooses the instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from ckpt.errors import BackwardTwiceError
from ckpt.tape.core.apply import compute
from ckpt.tape.core.cotangents import contribute, own_cotangent
from ckpt.tape.core.generators import random_state, replayed
from ckpt.tape.core.node import TapeNode, lost

COMPUTE, FREE, BACKWARD = range(3)


class NodeObserver(Protocol):
    """Sees each instruction before and after it is performed."""

    def before(self, kind: int, node: TapeNode) -> None: ...
    def after(self, kind: int, node: TapeNode) -> None: ...


def interpret(
    instructions: Iterable[tuple[int, TapeNode]],
    *,
    reached: Callable[[TapeNode], None],
    observer: NodeObserver | None = None,
    retain: bool = True,
) -> None:
    """Perform the instructions in order.

    ``reached`` is told of each node that gets its first cotangent. Unless ``retain``, a Backward
    also lets go of the inputs it was the last to read, and of its place in the graph.
    """
    for kind, node in instructions:
        if observer is not None:
            observer.before(kind, node)
        if kind == BACKWARD:
            _backward(node, reached)
            if not retain:
                frees = node.frees
                if frees:
                    for k, source in enumerate(node.inputs or ()):
                        if frees >> k & 1:
                            source.value = None
                node.value = node.inputs = None
        elif kind == COMPUTE:
            _compute(node)
        else:
            node.value = None
        if observer is not None:
            observer.after(kind, node)


def _compute(node: TapeNode) -> None:
    op = node.op
    assert op is not None
    if node.inputs is None:
        raise _spent()
    arrays = [_value(source) for source in node.inputs]
    node.value = compute(op, arrays, replaying(node) if op.random else node.params)


def _value(source: Any) -> Any:
    if type(source) is not TapeNode:
        return source
    if source.value is None:
        raise lost(source)
    return source.value


def replaying(node: TapeNode) -> dict[str, Any]:
    """A random op's parameters: its generator, or where it drew before, one in the same state."""
    params = node.params or {}
    if node.extra is None:
        node.extra = random_state(params)
        return params
    return {**params, "rng": replayed(params, node.extra)}


def _spent() -> BackwardTwiceError:
    return BackwardTwiceError(
        "the values that this backward needs were freed by an earlier one; "
        "call the first one with retain_graph=True, or run the forward again"
    )


def _backward(node: TapeNode, reached: Callable[[TapeNode], None]) -> None:
    """Contribute to the cotangents of the node's inputs, one rule at a time."""
    inputs = node.inputs
    if inputs is None:
        raise _spent()
    g = node.cotangent
    node.cotangent = None
    op = node.op
    assert op is not None
    for k, rule in enumerate(op.rules(len(inputs))):
        dep = inputs[k]
        if rule is None or type(dep) is not TapeNode or not dep.requires_grad:
            continue
        if dep.cotangent is None:
            reached(dep)
        if rule.into is not None:
            rule.into(own_cotangent(dep), g, node)
        else:
            contribute(dep, rule.call(g, node), g)
