"""The one loop that performs every Compute, Free and Backward.

Eager backward, a checkpointed segment and a planner's schedule differ only in who chooses the
instructions. The memory model of `ckpt.simulate` is kept here, on real arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np

from ckpt.errors import BackwardTwiceError
from ckpt.tape.core.apply import compute, random_state
from ckpt.tape.core.node import Parts, TapeNode, lost

COMPUTE, FREE, BACKWARD = range(3)
ndarray = np.ndarray


class Observer(Protocol):
    """Sees each instruction before and after it is performed."""

    def before(self, kind: int, node: TapeNode) -> None: ...
    def after(self, kind: int, node: TapeNode) -> None: ...


def interpret(
    instructions: Iterable[tuple[int, TapeNode]],
    *,
    reached: Callable[[TapeNode], None] | None = None,
    observer: Observer | None = None,
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
    params = node.params
    if op.random:
        params = _replaying(node)
    node.value = compute(op, arrays, params)


def _value(source: Any) -> Any:
    if type(source) is not TapeNode:
        return source
    if source.value is None:
        raise lost(source)
    return source.value


def _replaying(node: TapeNode) -> dict[str, Any]:
    """A random op's parameters: its generator, or where it drew before, one in the same state."""
    params = node.params or {}
    if node.extra is None:
        node.extra = random_state(params)
        return params
    return {**params, "rng": replayed(params, node.extra)}


def replayed(params: dict[str, Any], state: Any) -> np.random.Generator:
    """A generator like the op's, in an earlier state."""
    bits = type(params["rng"].bit_generator)()
    bits.state = state
    return np.random.Generator(bits)


def _spent() -> BackwardTwiceError:
    return BackwardTwiceError(
        "the values that this backward needs were freed by an earlier one; "
        "call the first one with retain_graph=True, or run the forward again"
    )


def _backward(node: TapeNode, reached: Callable[[TapeNode], None] | None) -> None:
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
        current = dep.cotangent
        if current is None and reached is not None:
            reached(dep)
        if rule.into is not None:
            if current is None:
                dep.cotangent = current = zeros_like(dep)
            elif not dep.own:
                dep.cotangent = current = copy(current)
            dep.own = True
            rule.into(current, g, node)
            continue
        new = rule.call(g, node)
        if new.shape != dep.shape or new.dtype != dep.dtype:
            new = fit(new, dep.shape, dep.dtype)
        if new is g:
            own = False
        elif type(new) is ndarray and new.base is not None:
            new, own = adopt(new, g) if dep.shape else (new[()], True)
        else:
            own = True
        if current is None:
            if not own and dep.op is None:
                new, own = copy(new), True  # a gradient owns its array
            dep.cotangent = new
            dep.own = own
        elif dep.own:
            current += new
            dep.cotangent = current  # a NumPy scalar is added out of place
        elif own:
            new += current
            dep.cotangent = new
            dep.own = True
        else:
            dep.cotangent = current + new
            dep.own = True
        del new, current


def fit(cotangent: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Sum a cotangent over the axes along which its operand was broadcast, and cast it."""
    extra = cotangent.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        extra + k
        for k, length in enumerate(shape)
        if length == 1 and cotangent.shape[extra + k] != 1
    )
    if axes:
        cotangent = np.sum(cotangent, axis=axes)
    if cotangent.shape != shape:
        cotangent = np.reshape(cotangent, shape)
    if cotangent.dtype != dtype:
        if dtype.kind != "c" and cotangent.dtype.kind == "c":
            cotangent = np.real(cotangent)
        cotangent = np.astype(cotangent, dtype)
    return cotangent


def adopt(new: Any, g: Any) -> tuple[Any, bool]:
    """A rule's result that is a view: of the incoming cotangent, or of an array all its own?"""
    base = owner(new)
    if base is owner(g) or base.nbytes < new.nbytes:
        return new, False
    if base.nbytes > new.nbytes:
        return copy(new), True  # not to hold the rest of it
    return new, True


def owner(array: Any) -> Any:
    """The object that holds an array's memory."""
    while type(array) is ndarray and array.base is not None:
        array = array.base
    return array


def copy(array: Any) -> Any:
    """A copy with the layout NumPy gives to results."""
    return array.copy(order="K") if type(array) is ndarray else array


def zeros_like(node: TapeNode) -> Any:
    """Where parts of the node's cotangent are added in."""
    if type(node.dtype) is tuple:  # of an op with several results
        return Parts(np.zeros(s, d) for s, d in zip(node.shape, node.dtype, strict=True))
    return np.zeros(node.shape, node.dtype)
