"""Eager backward: the instructions that follow from the loss alone."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Iterator
from heapq import heappop, heappush
from itertools import chain
from typing import Any

import numpy as np

from ckpt.errors import NonFiniteError, TapeError
from ckpt.tape.core.changes import verify_read
from ckpt.tape.core.context import CURRENT
from ckpt.tape.core.cotangents import copy
from ckpt.tape.core.node import Gradient, TapeNode
from ckpt.tape.core.value import Value
from ckpt.tape.eager.generated import backward_of
from ckpt.tape.eager.interpreter import BACKWARD, COMPUTE, NodeObserver, replay, spent
from ckpt.tape.eager.region import Heap, Region

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
        descent.run(retain_graph, finite_observer())
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

    __slots__ = ("heap", "leaves", "remade", "resting", "retained", "token")

    def __init__(self, resting: bool = True) -> None:
        self.resting = resting
        """Will gradients come to rest, those of inner Values that asked for them too?"""
        self.heap: Heap = []
        self.leaves: list[TapeNode] = []
        self.retained: list[tuple[Gradient, Any]] = []
        """Gradients of inner Values that asked for them, until they are put there."""
        self.remade: list[TapeNode] = []
        """Nodes whose values replays made again."""
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

    def run(
        self,
        retain: bool,
        observer: NodeObserver | None = None,
        targets: Collection[TapeNode] = (),
    ) -> dict[TapeNode, Any]:
        """The Backward of each node reached, in descending order, regions replayed on the way.

        Cotangents stop at the ``targets``: what came to each is returned. What a node watches is
        verified before it is read. Unless ``retain``, a Backward also lets go of the inputs it was
        the last to read, and of its place in the graph.
        """
        heap, leaves, token = self.heap, self.leaves, self.token
        found: dict[TapeNode, Any] = {}
        while heap:
            node = heap[0][1]
            if targets and node in targets:
                found[node], node.cotangent = node.cotangent, None
                heappop(heap)
                continue
            if node.region is not None:
                self.replay(node.region, observer)
            if node.gradient is not None and self.resting:
                self.retained.append((node.gradient, copy(node.cotangent)))
            if observer is not None:
                observer.before(BACKWARD, node)
            if node.watched is not None:
                verify_read(node, token)
            inputs = node.inputs
            if inputs is None:
                raise spent()
            op = node.op
            assert op is not None
            backward = op.backwards.get(node.mask | 1 << len(inputs)) or backward_of(
                op, len(inputs), node.mask
            )
            g, node.cotangent = node.cotangent, None
            backward(node, inputs, g, heap, leaves)
            g = None
            if not retain:
                frees = node.frees
                while frees:
                    k = frees.bit_length() - 1
                    inputs[k].value = None
                    frees ^= 1 << k
                node.value = node.inputs = node.watched = inputs = None
            if observer is not None:
                observer.after(BACKWARD, node)
            heappop(heap)  # what it reached lies deeper
        return found

    def replay(self, region: Region, observer: NodeObserver | None) -> None:
        """Compute again what the Backwards of a region read, unless that was done."""

        def noted(steps: Iterator[tuple[int, TapeNode]]) -> Iterator[tuple[int, TapeNode]]:
            for kind, node in steps:
                if kind == COMPUTE:
                    self.remade.append(node)
                yield kind, node

        steps = region.replay(self.heap, self.token)
        replay(steps if self.resting else noted(steps), observer)

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
