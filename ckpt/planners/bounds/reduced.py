"""A graph as the linear bound sees it: the values that it decides about, and moments to look at.

Every step relaxes, so that what is a bound here is one for the graph:

- A view that costs nothing is the value that it is a view of: a read of either reads the buffer.
  One that costs something is an item of 0 bytes that is live only while its owner's buffer is.
- The smallest buffers, together a two-thousandth of the budget, stay live once computed.
- A value with one reader whose only dep it is, and which is no larger, joins it, unless a Backward
  reads it: to hold the reader instead is never worse.
- A call is never live; its results, which hold as many bytes, are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ckpt.graph import Graph
from ckpt.planners.base.cost import Cost
from ckpt.planners.base.reads import closure
from ckpt.planners.bounds.simple import most_saved

TINY = 2_000
"""The part of the budget that the smallest buffers may hold, together, uncounted."""


SURROUNDINGS = 6
"""Items are alike if whatever is within so many steps of them is."""


@dataclass(frozen=True, eq=False)
class Moment:
    """A Backward at which bytes are counted. Arrays of bool, one entry an item."""

    order: int
    """Which step of the backward it is."""
    live: Any
    """Certainly: it reads them, or they are outputs, or own such a buffer."""
    room: int
    """Bytes for what else is live."""
    computed: Any
    """Once at least, when it runs."""
    useful: Any
    """A later Backward, or it, may take them; an output."""
    again: Any
    """Might be computed behind it."""


class Reduced:
    """Items in the order of the program, as arrays; ``deps`` are pairs (reader, read)."""

    def __init__(self, graph: Graph, budget: int, cost: Cost) -> None:
        self.graph = graph
        self.budget = budget
        self._represent(cost)
        self._join(self._tiny(budget // TINY), cost)
        kept = [i for i in sorted(self._costs) if i in self._last or i in self._outputs]
        self.place = {i: k for k, i in enumerate(kept)}
        self.nodes = kept
        self.costs = [self._costs[i] for i in kept]
        self.nbytes = np.array([self._nbytes(i) for i in kept], dtype=np.int64)
        self.needs = np.array([self._needs[i] for i in kept], dtype=np.int64)
        self.captured = np.array([graph[i].captured for i in kept], dtype=bool)
        self.call = np.array([graph[i].call for i in kept], dtype=bool)
        self.first = np.array([self._first.get(i, len(graph.steps)) for i in kept], dtype=int)
        self.last = np.array([self._last.get(i, -1) for i in kept], dtype=int)
        self.outputs = self._mask(self._outputs)
        place = self.place
        pairs = [(place[j], place[d]) for j in kept for d in sorted(self._deps[j]) if d in place]
        self.deps = np.array(pairs, dtype=int).reshape(-1, 2)
        pairs = [(place[v], place[o]) for v, o in self._owner.items() if v in place and o in place]
        self.views = np.array(pairs, dtype=int).reshape(-1, 2)
        self.reads = [
            np.array([self.place[i] for i in sorted(row)], dtype=int) for row in self._reads
        ]

    def __len__(self) -> int:
        return len(self.nodes)

    # -- reducing ----------------------------------------------------------------------------------

    def _represent(self, cost: Cost) -> None:
        """Views that cost nothing are what they are a view of; inputs are nothing."""
        graph, found = self.graph, dict[int, int | None]()
        for i in graph.computed:
            node = graph[i]
            base = node.alias_of
            found[i] = i
            if base is not None and not cost.nodes[i] and not node.captured:
                found[i] = None if graph[base].resident else found[base]
                if found[i] is None and any(found.get(d) is not None for d in node.deps):
                    found[i] = i
        self._item = found
        items = [i for i in graph.computed if found[i] == i]
        self._deps = {i: self._items(graph[i].deps) for i in items}
        self._reads = [self._items(step.reads) for step in graph.steps]
        self._outputs = self._items(graph.outputs)
        self._owner = {
            i: graph.owners[i]
            for i in items
            if graph.owners[i] != i and not graph[graph.owners[i]].resident
        }
        # Exactly: before anything is left out.
        self._first: dict[int, int] = {}
        for q, step in enumerate(graph.steps):
            reads = (*step.reads, *graph.outputs) if q == 0 else step.reads
            wanted = [i for i in reads if not graph[i].resident]
            for i in closure(graph, wanted, self._first):
                self._first[i] = q

    def _items(self, values: Any) -> set[int]:
        found = {self._item.get(i) for i in values}
        return {i for i in found if i is not None}

    def _nbytes(self, i: int) -> int:
        node = self.graph[i]
        return 0 if self.graph.owners[i] != i or node.call else node.nbytes

    def _tiny(self, limit: int) -> set[int]:
        owners = {*self._owner, *self._owner.values()}
        found: set[int] = set()
        for i in sorted(self._deps, key=lambda i: (self._nbytes(i), i)):
            if i in owners or i in self._outputs or self.graph[i].call:
                continue
            limit -= self._nbytes(i)
            if limit < 0:
                break
            found.add(i)
        return found

    def _join(self, tiny: set[int], cost: Cost) -> None:
        """Leave out the tiny ones; let values with one reader join it."""
        graph, deps = self.graph, self._deps
        for i in tiny:
            del deps[i]
        for rows in (deps, dict(enumerate(self._reads))):
            for row in rows.values():
                row -= tiny
        self._costs = {i: cost.nodes[i] for i in deps}
        self._needs = {i: needs(graph, i) for i in deps}
        readers: dict[int, set[int]] = {i: set() for i in deps}
        for j, row in deps.items():
            for d in row:
                readers[d].add(j)
        fixed = set().union(self._outputs, self._owner, self._owner.values(), *self._reads)
        fixed |= {i for i in deps if graph[i].captured}
        for i in sorted(deps):
            if i in fixed or len(readers[i]) != 1:
                continue
            (j,) = readers[i]
            larger = self._nbytes(j) > self._nbytes(i) and not graph[i].call
            if deps[j] != {i} or larger or graph[j].call or graph[j].captured or j in self._owner:
                continue
            self._costs[j] += self._costs.pop(i)
            self._needs[j] = max(self._needs[j], self._needs.pop(i))
            deps[j] = deps.pop(i)
            for d in deps[j]:
                readers[d].remove(i)
                readers[d].add(j)
        self._last: dict[int, int] = {}
        for q in range(len(graph.steps) - 1, -1, -1):
            stack = list(self._reads[q])
            while stack:
                i = stack.pop()
                if i not in self._last:
                    self._last[i] = q
                    stack += deps[i]

    def _mask(self, items: Any) -> Any:
        found = np.zeros(len(self.nodes), dtype=bool)
        found[[self.place[i] for i in items if i in self.place]] = True
        return found

    def alike(self, moments: list[Moment]) -> Any:
        """A number for each item, the same for those of equal surroundings that the moments see
        alike: what equal layers share, but for the first and last of them."""
        found = hashed(np.stack([self.nbytes, self.needs, np.array(self.costs) % 2**62]))
        readers, read = self.deps[:, 0], self.deps[:, 1]
        for _ in range(SURROUNDINGS):
            above, below = np.zeros_like(found), np.zeros_like(found)
            np.add.at(above, readers, hashed(found[None, read]))
            np.add.at(below, read, hashed(found[None, readers]))
            found = hashed(np.stack([found, above, below]))
        ends = [moment.order for moment in moments]
        seen = [found]
        for start, stop in zip([-1, *ends], [*ends, len(self.reads) - 1], strict=True):
            wanted = np.zeros(len(self), dtype=bool)
            for q in range(start + 1, stop + 1):
                wanted[self.reads[q]] = True
            seen.append(wanted)
        for moment in moments:
            seen += [moment.live, moment.computed, moment.useful, moment.again]
        _, numbers = np.unique(hashed(np.stack(seen).astype(np.uint64)), return_inverse=True)
        return numbers.reshape(-1)

    # -- moments -----------------------------------------------------------------------------------

    @cached_property
    def rooms(self) -> list[int]:
        """For each step of the backward, the bytes that it leaves for what it doesn't read."""
        graph, owners = self.graph, self.graph.owners
        found = []
        for step in graph.steps:
            live = {owners[i] for i in (*step.reads, *graph.outputs)}
            nbytes = sum(graph[o].nbytes for o in live if not graph[o].resident)
            found.append(self.budget - nbytes - step.during + most_saved(step))
        return found

    def moment(self, q: int) -> Moment:
        """That at which step ``q`` of the backward runs."""
        graph = self.graph
        values = (*graph.steps[q].reads, *graph.outputs)
        owners = {graph.owners[i] for i in values if not graph[graph.owners[i]].resident}
        live = self._mask(self._items((*values, *owners)))
        return Moment(
            order=q,
            live=live,
            room=self.rooms[q],
            computed=self.first <= q,
            useful=((self.last >= q) | live) & ~self.call,
            again=(self.last > q) & ~self.outputs,
        )


def hashed(rows: Any) -> Any:
    """A hash of 64 bits for each column."""
    found = np.zeros(rows.shape[1], dtype=np.uint64)
    for row in rows:
        found = (found ^ row.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(29)
    return found


def needs(graph: Graph, i: int) -> int:
    """The bytes that computing node ``i`` takes by itself: deps, result, workspace."""
    node = graph[i]
    held = {graph.owners[d] for d in node.deps}
    beside = graph.making[i] if node.call else node.workspace
    if not node.call:
        held.add(graph.owners[i])
    nbytes = sum(graph[o].nbytes for o in held if not graph[o].resident)
    return nbytes + beside - most_saved(node)
