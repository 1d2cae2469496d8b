"""Eager backward: the instructions that follow from the loss alone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import chain
from typing import Any

import numpy as np

from ckpt.errors import NonFiniteError, TapeError
from ckpt.tape.core.context import CURRENT
from ckpt.tape.core.cotangents import copy
from ckpt.tape.core.node import Gradient, TapeNode
from ckpt.tape.core.value import Value
from ckpt.tape.eager.interpreter import BACKWARD, interpret
from ckpt.tape.eager.region import Heap

TURN = threading.RLock()
"""Backwards of several threads take turns: cotangents wait on nodes, which threads may share."""


def backward(value: Value, gradient: Any = None, *, retain_graph: bool = False) -> None:
    """Let cotangents flow from here to every leaf.

    ``gradient``: the cotangent to start from, of this Value's shape; a scalar's is 1. Without
    ``retain_graph`` the values that the backward read are freed as it goes, and a second one raises
    BackwardTwiceError. An exception, Ctrl-C included, leaves every gradient as it was. Threads that
    call it at once take turns.
    """
    start = seed(value, gradient)
    with TURN, Descent() as descent:
        descent.begin(value._node, start)
        interpret(
            descent.instructions(),
            reached=descent.reach,
            observer=finite_observer(),
            retain=retain_graph,
            descent=descent.token,
        )
        descent.rest()


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


_put = Gradient.__dict__["value"].__set__


class Descent:
    """Where a backward has come to: the nodes whose cotangent waits, and the leaves reached.

    A node waits until its Backward is done, so that an exception finds every cotangent.
    """

    __slots__ = ("heap", "leaves", "retained", "token")

    def __init__(self) -> None:
        self.heap: Heap = []
        self.leaves: list[TapeNode] = []
        self.retained: list[tuple[Gradient, Any]] = []
        """Gradients of inner Values that asked for them, until they are put there."""
        self.token = object()
        """Stands for this descent, without holding what it holds."""

    def begin(self, root: TapeNode, cotangent: Any) -> None:
        """Start from a node, with an array of its own."""
        self.reach(root)
        root.cotangent, root.own = cotangent, True

    def reach(self, node: TapeNode) -> None:
        """Take in a node that gets its first cotangent."""
        if node.op is None:
            self.leaves.append(node)
        else:
            heappush(self.heap, (-node.position, node))

    def instructions(self) -> Iterator[tuple[int, TapeNode]]:
        """A Backward for each node reached, in descending order, regions replayed on the way."""
        heap = self.heap
        while heap:
            node = heap[0][1]
            if node.region is not None:
                yield from node.region.replay(heap, self.token)
            if node.gradient is not None:
                self.retained.append((node.gradient, copy(node.cotangent)))
            yield BACKWARD, node
            heappop(heap)  # what it reached lies deeper

    def rest(self) -> None:
        """Let the cotangents come to rest as gradients, all or none.

        The arrays themselves where there was no gradient; others are added in place. That is one
        call that runs no Python, which an interrupt comes before or after.
        """
        made: dict[Gradient, Any] = {}
        old: list[Any] = []
        added: list[Any] = []
        rested = [(node.gradient, node.cotangent) for node in self.leaves]
        self.forget()
        for cell, new in (*rested, *self.retained):
            assert cell is not None
            value = cell.value
            if type(value) is np.ndarray and value.flags.writeable:
                old.append(value)
                added.append(new)
                continue
            if cell in made:  # a leaf, before and after its .data was set
                value = made[cell]
            made[cell] = new if value is None else value + new
        sums = map(np.add, old, added, old)
        deque(chain(sums, map(_put, made, made.values())), maxlen=0)

    def forget(self) -> None:
        """Leave no cotangent behind."""
        for _position, node in self.heap:
            node.cotangent = None
        for node in self.leaves:
            node.cotangent = None

    def __enter__(self) -> Descent:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()


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
