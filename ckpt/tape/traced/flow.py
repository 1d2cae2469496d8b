"""A trace's backward as data: performed once on abstract cotangents, it leaves steps and rows.

The one place that knows both how the interpreter treats cotangents and what a Graph says of them.
A Backward treats one dep at a time. The first cotangent of a dep is kept as it comes: ``fresh``;
``handed`` on, the incoming one itself; a ``view`` of it (reshaped, sliced, broadcast); or
``spread`` over the dep's shape from a smaller array. The next is added in place into whichever of
the two is an array of its own; if neither is, into a new one. A ``part`` is added into a slice of
the dep's own cotangent, which starts as zeros. The cotangent of a leaf is its gradient, an array of
its own. The incoming cotangent goes when the Backward ends.

Where a schedule is performed, the last rule that reads the incoming cotangent may write over it,
and over a value that dies with the step (`takeover`). Eager backward writes over nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

import numpy as np

from ckpt.graph import BackwardRow, BackwardStep, Node, Overwrites
from ckpt.tape.core.abstract import AbstractArray, AbstractParts, fresh
from ckpt.tape.core.cotangents import copy
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import OUT, Op
from ckpt.tape.core.rules import Rule, Stand, rules_of
from ckpt.tape.ops.pointwise.buffers import buffers, update
from ckpt.tape.traced.derived import rule_kernel
from ckpt.tape.traced.kernel import Account, Kernel
from ckpt.tape.traced.takeover import Turn, takeovers

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
    account: Account
    """What it writes over."""
    over: dict[int, Account]
    """The same where the schedule lets it take over a value, by the graph's node."""


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
        self.waiting[loss] = _Cotangent(zeros(self.entries[loss].node), True, seed)
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
        assert node.op is not None and node.inputs is not None
        kernels = self._kernels(position, node, incoming)
        last = max((k for k, (_, kernel) in kernels.items() if _takes_g(kernel)), default=-1)
        edges: list[Edge | None] = [None] * len(node.inputs)
        turns: list[Turn] = []
        held = self.live
        flops = moved_nbytes = 0
        for k, (rule, kernel) in kernels.items():
            at = self.positions[node.inputs[k]]
            before = self.waiting.get(at)
            turn = Turn(rule)
            if kernel is None:
                kind: Kind = "part"
                made = _added_into(node.inputs[k], before)
                cost = node.op.into_workspace
                into = cost(made, incoming.array, node) if cost else 0
                turn.account = Account((), into, 0, None)
                flops += int(incoming.array.size)
                moved_nbytes += 3 * incoming.array.nbytes
            else:
                kind, made = _kind(kernel), kernel.array
                if (
                    kernel.overwrites and not self.nodes[at].resident
                ):  # a gradient's array is its own
                    turn.kernel = kernel
                    if k == last and _dies(incoming):
                        assert kernel.cotangent is not None
                        turn.dying = frozenset({kernel.cotangent})
                turn.account = kernel.account(turn.dying)
                flops += kernel.flops
                moved_nbytes += kernel.moved
                if before is not None:  # then they are added up
                    flops += made.size
                    moved_nbytes += 3 * made.nbytes
            edges[k] = edge = Edge(kind, _merge(kind, before), kernel, turn.account, turn.over)
            self._contribute(at, edge, made, incoming, turn)
            turns.append(turn)
        self.edges[position] = tuple(edges)
        self.order.append(position)
        if incoming.buffer is not None:
            self._let_go(incoming.buffer)
        # Not the node's own mask: a constant that an inner `grad` borrowed is one again.
        mask = sum(1 << k for k in kernels)
        reads = tuple(dict.fromkeys(self._values(node, node.op.keeps(len(edges), mask))))
        during = max((turn.high(turn.account) for turn in turns), default=held)
        self.steps.append(
            BackwardStep(
                label=node.op.name,
                reads=reads,
                flops=flops,
                moved_nbytes=moved_nbytes,
                during=during,
                scratch=max((turn.whole for turn in turns), default=during) - during,
                overwrites=self._overwrites(node, reads, turns),
                at=position,
                source=self.entries[position].source,
            )
        )

    def _kernels(
        self, position: int, node: TapeNode, incoming: _Cotangent
    ) -> dict[int, tuple[Rule, Kernel | None]]:
        """For each input that a cotangent flows to, the rule and what it does."""
        assert node.op is not None and node.inputs is not None
        found: dict[int, tuple[Rule, Kernel | None]] = {}
        for k, rule in enumerate(rules_of(node.op, len(node.inputs))):
            dep = node.inputs[k]
            if rule is None or type(dep) is not TapeNode or not dep.requires_grad:
                continue
            kernel = None
            if rule.accumulator is None:
                kernel = rule_kernel(self.entries[position].kernel, k, node, incoming.array)
            found[k] = rule, kernel
        return found

    def _contribute(self, at: int, edge: Edge, made: Any, incoming: _Cotangent, turn: Turn) -> None:
        """Add a rule's result to the cotangent of node ``at``, and note what is held meanwhile."""
        node, kernel = self.nodes[at], edge.kernel
        nbytes = made.nbytes if node.call else node.nbytes
        gone = 0
        match edge.merge:
            case "first":
                buffer = None
                if node.resident:
                    self.gradients.append((at, len(self.steps)))
                elif edge.account.lies_in is not None:
                    buffer = self._hand_over(incoming, at)
                elif edge.kind in ("handed", "view"):
                    buffer = incoming.buffer
                    assert buffer is not None
                    buffer.shares += 1
                else:
                    spread = edge.kind == "spread" and kernel
                    turn.made = spread.nbytes if spread else nbytes
                    buffer = self._make(at, turn.made)
                own = node.resident or edge.kind in ("fresh", "part")
                self.waiting[at] = _Cotangent(made, own, buffer)
                turn.stays = True
            case "into old":
                if edge.kind == "fresh" and edge.account.lies_in is None:
                    gone = turn.made = nbytes
                if edge.kind != "part":
                    turn.adding = _update(self.waiting[at].array, made)
            case "into new" | "anew":
                before = self.waiting[at]
                assert before.buffer is not None
                summed = edge.merge == "anew" and edge.kind != "part"
                array = sum_layout(before.array, made) if summed else made
                if summed:
                    turn.adding = buffers(array, before.array, made)
                elif edge.kind != "part":
                    turn.adding = _update(made, before.array)
                if edge.merge == "into new" and edge.account.lies_in is not None:
                    buffer = self._hand_over(incoming, at)
                else:
                    turn.made = nbytes if edge.merge == "into new" else 0
                    buffer = self._make(at, nbytes)
                self.waiting[at] = _Cotangent(array, True, buffer)
                gone = self._let_go(before.buffer)
                turn.stays = True
            case _:
                assert_never(edge.merge)
        turn.held = self.live + gone

    def _hand_over(self, incoming: _Cotangent, at: int) -> _Made:
        """The incoming cotangent's buffer, which is that of node ``at`` from here on."""
        buffer, incoming.buffer = incoming.buffer, None
        assert buffer is not None
        self._row(buffer)
        buffer.whose, buffer.kind, buffer.first = at, "cotangent", len(self.steps)
        return buffer

    def _overwrites(self, node: TapeNode, reads: Sequence[int], turns: list[Turn]) -> Overwrites:
        """Which of the values that the step reads it may write over."""
        values = [value for value in reads if self._may_be_taken(value)]
        if not values or not any(turn.kernel for turn in turns):
            return ()
        stand = Stand(node, self._standing)
        for turn in turns:
            turn.reads = frozenset(self._values(node, turn.rule.reads))
            if turn.kernel is not None:
                turn.arguments = turn.kernel.flat(turn.rule.arguments(None, stand))
        return takeovers(values, turns)

    def _standing(self, source: TapeNode) -> Any:
        """The graph's node for a tape node; of several results, all."""
        values = self.values(source)
        return values[0] if len(values) == 1 else values

    def _may_be_taken(self, value: int) -> bool:
        """Is the value's array nobody else's, whatever its op is?"""
        node = self.nodes[value]
        if node.resident or node.captured or node.alias_of is not None:
            return False
        return bool(_makes_its_own(self.entries[value].node.op))

    def _values(self, node: TapeNode, operands: Sequence[int]) -> list[int]:
        """The graph's nodes for some of a node's operands, or its output."""
        assert node.inputs is not None
        sources = [node if k == OUT else node.inputs[k] for k in operands]
        return [i for s in sources if type(s) is TapeNode for i in self.values(s)]

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


def zeros(node: TapeNode) -> Any:
    """What parts of the node's cotangent are added into; see `cotangents.zeros_like`."""
    if type(node.dtype) is tuple:
        shapes: tuple[Any, ...] = node.shape
        return AbstractParts(AbstractArray(s, d) for s, d in zip(shapes, node.dtype, strict=True))
    return AbstractArray(node.shape, node.dtype)


def _update(target: Any, g: Any) -> int:
    """The workspace of ``target += g``; a number is replaced."""
    return update(target, g) if target.shape else 0


def _added_into(node: TapeNode, before: _Cotangent | None) -> Any:
    """The array that a part is added into; see `cotangents.own_cotangent`."""
    if before is None:
        return zeros(node)
    return before.array if before.own else copied(before.array)


def _takes_g(kernel: Kernel | None) -> bool:
    return kernel is None or kernel.cotangent is not None


def _dies(incoming: _Cotangent) -> bool:
    """Is the incoming cotangent an array that goes with this step?"""
    return incoming.own and incoming.buffer is not None and incoming.buffer.shares == 1


def _makes_its_own(op: Op | None) -> bool:
    """Does the op, for all that we know, make its results in memory of their own?

    One of ours does, and one made of ours; a primitive of the user's may return what it likes.
    """
    return op is not None and (op.infer is None or op.is_ours)


def _kind(kernel: Kernel) -> Kind:
    """What kind of array a rule's kernel gives; g is the first argument of every rule."""
    if kernel.is_fresh:
        array = kernel.array  # an empty one may be spread, which nobody may write into
        return "spread" if kernel.nbytes < array.nbytes or not array.size else "fresh"
    return "handed" if kernel.result == kernel.root else "view"


def _merge(kind: Kind, before: _Cotangent | None) -> Merge:
    """As `cotangents.contribute` does, and `own_cotangent`."""
    if before is None:
        return "first"
    if before.own:
        return "into old"
    return "into new" if kind == "fresh" else "anew"


def copied(x: AbstractArray) -> AbstractArray:
    """The layout of a copy of ``x``, which may be broadcast or reversed."""
    return fresh(copy, x.shape, x)


def sum_layout(x: AbstractArray, y: AbstractArray) -> AbstractArray:
    """The layout of ``x + y``."""
    return fresh(np.add, x.shape, x, y)
