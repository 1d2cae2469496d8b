"""What it proves that counts are whole: branch and bound over a pair program.

In a schedule a value is live at a moment or isn't, and is computed between two moments or isn't. So
any sum of such columns is whole: where the program's point says 64.4, each schedule has at most 64
or at least 65, and what both halves prove is proven. Halves are halved in turn, the one that proves
least first (Land & Doig 1960). The sums, in this order: how many Computes of one kind there are, of
values that cost the same; how many between two moments; then single values. A long chain of equal
layers is settled by the first, where single values would take one after the other (branching on
general sums: Owen & Mehrotra 2001).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import floor
from typing import Any, NamedTuple

import numpy as np

from ckpt.planners.bounds.boxes import BoxProgram, Solved
from ckpt.planners.bounds.pairs import Pairs

NEAR = 1 / 50
"""Values are of one kind whose costs differ by no more than this share."""

LEAST = 1 / 4000
"""Values that cost less, as a share of the forward, aren't told apart."""

MOST = 128
"""Halves that are made: so many more prove little."""

WHOLE = 1e-3
"""A solver's sum is whole if it is so near a whole number."""


class _Sum(NamedTuple):
    weight: float
    """What one more of it costs."""
    columns: Any


class _Branch(NamedTuple):
    """The schedules that are left in one place of the tree."""

    bound: int
    number: int
    """In the order in which leaves were made: of equal bounds the older goes first."""
    program: BoxProgram
    point: Any


class Tree:
    """The halves of a pair program, whose ``root`` is solved.

    ``solve`` returns None where it may work no more, and ``may_gain`` says of a bound whether more
    is worth the work.
    """

    def __init__(
        self, pairs: Pairs, root: Solved,
        solve: Callable[[BoxProgram], Solved | None], may_gain: Callable[[int], bool],
    ) -> None:  # fmt: skip
        self.pairs = pairs
        self.solve = solve
        self.may_gain = may_gain
        self.levels = _levels(pairs)
        self.made = 0
        self.stopped = False
        self.leaves = [_Branch(pairs.recompute(root.duals), 0, pairs.program, root.point)]

    def run(self) -> int | None:
        """What recomputing costs at least; None if no half is left: there is no schedule."""
        while self.leaves and self.made < MOST and self.may_gain(self.leaves[0].bound):
            leaf = self.leaves[0]
            chosen = self._fractional(leaf.point)
            if chosen is None:
                break
            columns, below = chosen
            halves = [
                self._half(leaf, leaf.program.with_row(columns, sign, least))
                for sign, least in ((-1, -below), (1, below + 1))
            ]
            if self.stopped:
                break
            heappop(self.leaves)
            for half in halves:
                if half is not None:
                    heappush(self.leaves, half)
        return self.leaves[0].bound if self.leaves else None

    def _half(self, leaf: _Branch, program: BoxProgram) -> _Branch | None:
        """None if it is empty."""
        solved = None if self.stopped else self.solve(program)
        if solved is None:
            self.stopped = True
            return None
        if program.bound(solved.duals, priced=False) > 0:
            return None
        self.made += 1
        bound = max(leaf.bound, self.pairs.recompute(solved.duals, program))
        return _Branch(bound, self.made, program, solved.point)

    def _fractional(self, point: Any) -> tuple[Any, int] | None:
        """Of the first level with sums that aren't whole, that which weighs most, rounded down."""
        if point is None:
            return None
        for level in self.levels:
            best, found = 0.0, None
            for weight, columns in level:
                value = float(point[columns].sum())
                over = value - floor(value)
                if min(over, 1 - over) > WHOLE and weight * min(over, 1 - over) > best:
                    best, found = weight * min(over, 1 - over), (columns, floor(value))
            if found is not None:
                return found
        return None


def _levels(pairs: Pairs) -> list[list[_Sum]]:
    """Computes of a kind in all; those between two moments; single columns."""
    everything: list[_Sum] = []
    between: list[_Sum] = []
    single: list[_Sum] = []
    labels = pairs.program.labels

    def there(columns: Any, items: Any) -> Any:
        """Of these items those that have a column, each once where equal layers are one."""
        found = columns[items][columns[items] >= 0]
        return found if labels is None else np.unique(labels[found])

    for weight, items in _kinds(pairs.reduced.costs):
        blocks = [there(columns, items) for columns in pairs.made]
        everything.append(_Sum(weight, np.concatenate(blocks)))
        between += [_Sum(weight, block) for block in blocks]
        blocks += [there(columns, items) for columns in pairs.live[1:]]
        single += [_Sum(weight, np.array([column])) for block in blocks for column in block]
    return [everything, between, single]


def _kinds(costs: list[int]) -> list[tuple[float, Any]]:
    """Cost and items of each kind, the cheapest first."""
    least = LEAST * sum(costs)
    order = [i for i in sorted(range(len(costs)), key=lambda i: costs[i]) if costs[i] > least]
    kinds: list[list[int]] = []
    for i in order:
        if kinds and costs[i] <= costs[kinds[-1][0]] * (1 + NEAR):
            kinds[-1].append(i)
        else:
            kinds.append([i])
    return [(float(costs[kind[0]]), np.array(kind)) for kind in kinds]
