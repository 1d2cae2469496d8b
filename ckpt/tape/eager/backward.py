"""Eager backward: the instructions that follow from the loss alone."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any

import numpy as np

from ckpt.errors import NonFiniteError, TapeError
from ckpt.tape.core.context import CURRENT
from ckpt.tape.core.cotangents import copy
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.value import Value
from ckpt.tape.eager.interpreter import BACKWARD, interpret
from ckpt.tape.eager.region import Heap


def backward(value: Value, gradient: Any = None, *, retain_graph: bool = False) -> None:
    """Let cotangents flow from here to every leaf.

    ``gradient``: the cotangent to start from, of this Value's shape; a scalar's is 1. Without
    ``retain_graph`` the values that the backward read are freed as it goes, and a second one raises
    BackwardTwiceError.
    """
    node = value._node
    node.cotangent = seed(value, gradient)
    node.own = True
    descent = Descent()
    descent.reach(node)
    with descent:
        interpret(
            descent.instructions(),
            reached=descent.reach,
            observer=finite_observer(),
            retain=retain_graph,
        )
        for leaf in descent.leaves:
            rest(leaf)


def finite_observer() -> FiniteObserver | None:
    """What watches a backward inside of `check_finite`."""
    context = CURRENT.get()
    return FiniteObserver() if context is not None and context.finite else None


class FiniteObserver:
    """Raises NonFiniteError at the first Backward that makes a NaN or an infinity."""

    __slots__ = ("inputs",)

    def before(self, kind: int, node: TapeNode) -> None:
        self.inputs = node.inputs or ()

    def after(self, kind: int, node: TapeNode) -> None:
        for source in self.inputs if kind == BACKWARD else ():
            g = source.cotangent if type(source) is TapeNode else None
            if g is None or isinstance(g, tuple) or np.isfinite(g).all():
                continue
            assert node.op is not None
            raise NonFiniteError(
                f"the backward of {node.op.name} gave {g[~np.isfinite(g)].ravel()[0]} in the "
                f"cotangent of {source!r}, the first that isn't finite"
            )


class Descent:
    """Where a backward has come to: the nodes whose cotangent waits, and the leaves reached."""

    __slots__ = ("heap", "leaves", "token")

    def __init__(self) -> None:
        self.heap: Heap = []
        self.leaves: list[TapeNode] = []
        self.token = object()
        """Stands for this descent, without holding what it holds."""

    def reach(self, node: TapeNode) -> None:
        """Take in a node that got its first cotangent."""
        if node.op is None:
            self.leaves.append(node)
        else:
            heappush(self.heap, (-node.position, node))

    def instructions(self) -> Iterator[tuple[int, TapeNode]]:
        """A Backward for each node reached, in descending order, regions replayed on the way."""
        heap = self.heap
        while heap:
            node = heappop(heap)[1]
            if node.region is not None:
                yield from node.region.replay(node, heap, self.token)
            if node.gradient is not None:
                rest(node)
            yield BACKWARD, node

    def __enter__(self) -> Descent:
        return self

    def __exit__(self, *_: object) -> None:
        """After an error, leave no half-made cotangents behind."""
        for _position, node in self.heap:
            node.cotangent = None
        for node in self.leaves:
            node.cotangent = None


def seed(value: Value, gradient: Any) -> Any:
    """The cotangent to start from: ``gradient``, or 1 for a scalar."""
    if getattr(value._array, "abstract", False):
        raise TapeError("backward() of a traced value; trace the loss and let the plan do it")
    if not value.requires_grad:
        raise TapeError(
            "backward() of a value that depends on no leaf: wrap the parameters in ckpt.Value"
        )
    if gradient is None:
        if value.dtype.kind == "c":
            raise TapeError(
                "backward() starts from a real loss, and this value is complex: take its np.real, "
                "np.imag or np.abs, or pass the cotangent to start from"
            )
        if value.size != 1:
            raise TapeError(
                f"backward() starts from a scalar loss, and this value has shape {value.shape}: "
                "reduce it (np.sum, np.mean), or pass the cotangent to start from"
            )
        return np.ones(value.shape, value.dtype)[()]
    if np.shape(gradient) != value.shape:
        raise TapeError(
            f"the cotangent to start from has shape {np.shape(gradient)}, the value {value.shape}"
        )
    return np.array(gradient, dtype=value.dtype)[()]


def rest(node: TapeNode) -> None:
    """A cotangent comes to rest as a gradient: the array itself at a leaf, a copy elsewhere."""
    cell = node.gradient
    assert cell is not None
    cotangent = node.cotangent
    if node.op is None:
        node.cotangent = None
        if cell.value is None and node.own:
            cell.value = cotangent
            return
    if cell.value is not None:
        if type(cell.value) is np.ndarray and cell.value.flags.writeable:
            cell.value += cotangent
        else:
            cell.value = cell.value + cotangent
    else:
        cell.value = copy(cotangent)
