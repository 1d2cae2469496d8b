"""The one loop that performs every Compute, Free and Backward of an eager program.

Eager backward and a checkpointed segment differ only in who chooses the instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from ckpt.errors import BackwardTwiceError
from ckpt.tape.core.apply import compute
from ckpt.tape.core.changes import verify_read, verify_replayed
from ckpt.tape.core.cotangents import contribute, own_cotangent
from ckpt.tape.core.generators import replayed
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.rules import read, rules_of

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
    descent: object = None,
) -> None:
    """Perform the instructions in order.

    ``reached`` is told of each node that gets its first cotangent. What a node watches is verified
    before it is read, once a ``descent`` (None: each time). Unless ``retain``, a Backward
    also lets go of the inputs it was the last to read, and of its place in the graph.
    """
    for kind, node in instructions:
        if observer is not None:
            observer.before(kind, node)
        if kind == BACKWARD:
            if node.watched is not None:
                verify_read(node, descent)
            _backward(node, reached)
            if not retain:
                frees = node.frees
                if frees:
                    for k, source in enumerate(node.inputs or ()):
                        if frees >> k & 1:
                            source.value = None
                node.value = node.inputs = node.watched = None
        elif kind == COMPUTE:
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
        raise _spent()
    params = node.params
    if op.random:
        assert params is not None
        params = {**params, "rng": replayed(params, node.state)}
    node.value = compute(op, [read(source) for source in node.inputs], params)


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
    rules = op.rules.get(len(inputs)) or rules_of(op, len(inputs))
    for k, rule in enumerate(rules):
        dep = inputs[k]
        if rule is None or type(dep) is not TapeNode or not dep.requires_grad:
            continue
        if dep.cotangent is None:
            reached(dep)
        into = rule.accumulator
        if into is None:
            contribute(dep, rule.call(g, node), g)
        else:
            into.function(own_cotangent(dep), *into.arguments(g, node))
