"""A trace's backward as data: performed once on abstract cotangents, it leaves steps and rows.

The one place that knows both how the interpreter treats cotangents and what a Graph says of them.
A Backward treats one dep at a time. The first cotangent of a dep is kept as it comes: ``fresh``;
``handed`` on, the incoming one itself; a ``view`` of it (reshaped, sliced, broadcast); or
``spread`` over the dep's shape from a smaller array. The next is added in place into whichever of
the two is an array of its own; if neither is, into a new one. A ``part`` is added into a slice of
the dep's own cotangent, which starts as zeros. The cotangent of a leaf is its gradient, an array of
its own. The incoming cotangent goes when the Backward ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

import numpy as np

from ckpt.graph import BackwardRow, BackwardStep, Node
from ckpt.tape.core.abstract import AbstractArray, AbstractParts, fresh
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.rules import rules_of
from ckpt.tape.traced.derived import rule_kernel
from ckpt.tape.traced.kernel import Kernel

Kind = Literal["fresh", "handed", "view", "spread", "part"]


Merge = Literal["first", "into old", "into new", "anew"]
"""How a contribution joins what is there: as the first one, in place, or in a new array."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One contribution of a Backward: the kind of its cotangent, and what becomes of it."""

    kind: Kind
    merge: Merge
    kernel: Kernel | None
    """What the rule does; None: of a part, which the op adds in place by itself."""


@dataclass(slots=True)
class _Made:
    """Bytes that backward made in step ``first``, and how many cotangents lie in them."""

    whose: int
    nbytes: int
    first: int
    kind: Literal["seed", "cotangent"] = "cotangent"
    shares: int = 1


@dataclass(slots=True)
class _Cotangent:
    array: Any
    own: bool
    """Is it an array that nothing else shares, safe to add into?"""
    buffer: _Made | None
    """None: of a leaf, a gradient."""


@dataclass
class Flow:
    """The backward of a trace: a step for each node that a cotangent reaches."""

    entries: Sequence[Any]
    nodes: Sequence[Node]
    """The graph's, of the same positions."""
    positions: dict[TapeNode, int]
    values: Callable[[TapeNode], tuple[int, ...]]
    """The graph's nodes that a tape node stands for: of several results, each."""
    edges: list[tuple[Edge | None, ...]] = field(default_factory=list)
    """For each node an Edge an input, None where no cotangent flows."""
    order: list[int] = field(default_factory=list)
    """For each step, its node."""
    steps: list[BackwardStep] = field(default_factory=list)
    rows: list[BackwardRow] = field(default_factory=list)

    def run(self, loss: int) -> Flow:
        """Perform the Backwards that follow from the loss, in descending position."""
        self.edges = [()] * len(self.entries)
        self.live = 0
        self.waiting: dict[int, _Cotangent] = {}
        self.gradients: list[tuple[int, int]] = []
        seed = self._make(loss, self.nodes[loss].nbytes, "seed")
        self.waiting[loss] = _Cotangent(_zeros(self.entries[loss].node), True, seed)
        for position in range(len(self.entries) - 1, -1, -1):
            node = self.entries[position].node
            incoming = self.waiting.pop(position, None) if node.op is not None else None
            self.edges[position] = (None,) * len(node.inputs)
            if incoming is not None:
                self._backward(position, node, incoming)
        end = len(self.steps)
        for leaf, first in self.gradients:
            nbytes = self.nodes[leaf].nbytes
            self.rows.append(
                BackwardRow(kind="gradient", nbytes=nbytes, first=first, last=end, whose=leaf)
            )
        return self

    def _backward(self, position: int, node: TapeNode, incoming: _Cotangent) -> None:
        assert node.op is not None and node.inputs is not None and incoming.buffer is not None
        inputs = node.inputs
        row: list[Edge | None] = [None] * len(inputs)
        flops, during = 0, self.live
        for k, rule in enumerate(rules_of(node.op, len(inputs))):
            dep = inputs[k]
            if rule is None or type(dep) is not TapeNode or not dep.requires_grad:
                continue
            at = self.positions[dep]
            before = self.waiting.get(at)
            kernel = None
            if rule.accumulator is not None:
                kind: Kind = "part"
                made = _zeros(dep) if before is None else before.array
                cost = node.op.into_workspace
                workspace = cost(made, incoming.array, node) if cost else 0
                added = int(incoming.array.size)
            else:
                kernel = rule_kernel(self.entries[position].kernel, k, node, incoming.array)
                kind, made = _kind(kernel), kernel.array
                workspace, added = kernel.workspace, kernel.flops
                if before is not None:
                    added += made.size
            row[k] = edge = Edge(kind, _merge(kind, before), kernel)
            flops += added
            workspace += self._contribute(at, edge, made, incoming)
            during = max(during, self.live + workspace)
        self.edges[position] = tuple(row)
        self.order.append(position)
        self._let_go(incoming.buffer)
        self.steps.append(
            BackwardStep(
                label=node.op.name,
                reads=self._reads(node),
                flops=flops,
                during=during,
                at=position,
                source=self.entries[position].source,
            )
        )

    def _contribute(self, at: int, edge: Edge, made: Any, incoming: _Cotangent) -> int:
        """Add a rule's result to the cotangent of node ``at``; what else is live meanwhile."""
        node = self.nodes[at]
        nbytes = made.nbytes if node.call else node.nbytes
        match edge.merge:
            case "first":
                buffer = None
                if node.resident:
                    self.gradients.append((at, len(self.steps)))
                elif edge.kind in ("handed", "view"):
                    buffer = incoming.buffer
                    assert buffer is not None
                    buffer.shares += 1
                else:
                    spread = edge.kind == "spread" and edge.kernel
                    buffer = self._make(at, spread.nbytes if spread else nbytes)
                own = node.resident or edge.kind in ("fresh", "part")
                self.waiting[at] = _Cotangent(made, own, buffer)
                return 0
            case "into old":
                return nbytes if edge.kind == "fresh" else 0
            case "into new" | "anew":
                before = self.waiting[at]
                assert before.buffer is not None
                summed = edge.merge == "anew" and edge.kind != "part"
                array = sum_layout(before.array, made) if summed else made
                self.waiting[at] = _Cotangent(array, True, self._make(at, nbytes))
                return self._let_go(before.buffer)
            case _:
                assert_never(edge.merge)

    def _reads(self, node: TapeNode) -> tuple[int, ...]:
        """The nodes whose values the rules of this one read."""
        assert node.op is not None and node.inputs is not None
        keeps = node.op.keeps(len(node.inputs), node.mask)
        sources = [node if k == -1 else node.inputs[k] for k in keeps]
        found = [i for s in sources if type(s) is TapeNode for i in self.values(s)]
        return tuple(dict.fromkeys(found))

    def _make(
        self, whose: int, nbytes: int, kind: Literal["seed", "cotangent"] = "cotangent"
    ) -> _Made:
        self.live += nbytes
        return _Made(whose, nbytes, len(self.steps), kind)

    def _let_go(self, buffer: _Made) -> int:
        """Take a share back; the bytes that go with the last."""
        buffer.shares -= 1
        if not buffer.shares:
            self.live -= buffer.nbytes
            self._row(buffer)
            return buffer.nbytes
        if buffer.kind == "seed":  # handed on: from here on it is another's cotangent
            self._row(buffer)
            buffer.kind, buffer.first = "cotangent", len(self.steps)
        return 0

    def _row(self, buffer: _Made) -> None:
        """The buffer's life up to this step, if it began in an earlier one."""
        here = len(self.steps)
        if buffer.first < here or buffer.kind == "seed":
            row = BackwardRow(
                kind=buffer.kind,
                nbytes=buffer.nbytes,
                first=buffer.first,
                last=here,
                whose=buffer.whose,
            )
            self.rows.append(row)


def _zeros(node: TapeNode) -> Any:
    """What parts of the node's cotangent are added into; see `interpreter.zeros_like`."""
    if type(node.dtype) is tuple:
        shapes: tuple[Any, ...] = node.shape
        return AbstractParts(AbstractArray(s, d) for s, d in zip(shapes, node.dtype, strict=True))
    return AbstractArray(node.shape, node.dtype)


def _kind(kernel: Kernel) -> Kind:
    """What kind of array a rule's kernel gives; g is the first argument of every rule."""
    if kernel.is_fresh:
        return "spread" if kernel.nbytes < kernel.array.nbytes else "fresh"
    return "handed" if kernel.result == kernel.root else "view"


def _merge(kind: Kind, before: _Cotangent | None) -> Merge:
    """As `cotangents.contribute` does, and `own_cotangent`."""
    if before is None:
        return "first"
    if before.own:
        return "into old"
    return "into new" if kind == "fresh" else "anew"


def sum_layout(x: AbstractArray, y: AbstractArray) -> AbstractArray:
    """The layout of ``x + y``."""
    return fresh(np.add, x.shape, x, y)
