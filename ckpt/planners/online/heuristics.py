"""What an eviction would cost to undo: the heuristics of dynamic tensor rematerialization.

Each keeps, as buffers are evicted and come back, the numerator of its score. Buffers are numbered;
``parents`` and ``children`` are the buffers that a buffer's ops read, and those that read it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from graphlib import CycleError, TopologicalSorter

import numpy as np


class Heuristic:
    """A score to evict by, least first: numerator / (bytes if by_size) / (staleness if by_age)."""

    by_size = True
    by_age = True
    sums: np.ndarray[tuple[int], np.dtype[np.int64]] | None = None
    """The numerators of all live buffers, where they are kept up to date; else `changed` tells."""

    def __init__(self, cost: Sequence[int], parents: Sequence[Sequence[int]]) -> None:
        self.cost = cost
        self.parents = parents
        self.children: list[list[int]] = [[] for _ in cost]
        for buffer, row in enumerate(parents):
            for parent in row:
                self.children[parent].append(buffer)
        self.is_evicted = bytearray(len(cost))
        self.changed: set[int] = set(range(len(cost)))
        """Buffers whose numerator may have changed since the caller last emptied this set."""

    def numerator(self, buffer: int) -> float:
        return self.cost[buffer]

    def evict(self, buffer: int) -> None:
        """The buffer was evicted, and may be wanted again."""

    def restore(self, buffer: int) -> None:
        """The buffer is live, or will never be wanted again."""


class Local(Heuristic):
    """What the buffer's own ops cost."""


class Least(Heuristic):
    """Age alone: the least recently used."""

    by_size = False

    def numerator(self, buffer: int) -> float:
        return 1.0


class Largest(Heuristic):
    """Size alone."""

    by_age = False

    def numerator(self, buffer: int) -> float:
        return 1.0


class Neighbourhood(Heuristic):
    """Its own ops, those of evicted ancestors, and of descendants reached through evicted ones."""

    downward = True

    def numerator(self, buffer: int) -> float:
        total = self.cost[buffer]
        directions = [self.parents, self.children] if self.downward else [self.parents]
        for neighbours in directions:
            total += sum(self.cost[b] for b in self._reach(buffer, neighbours)[0])
        return total

    def evict(self, buffer: int) -> None:
        self.is_evicted[buffer] = 1
        self._spread(buffer)

    def restore(self, buffer: int) -> None:
        if self.is_evicted[buffer]:
            self.is_evicted[buffer] = 0
            self._spread(buffer)
        self.changed.add(buffer)

    def _spread(self, buffer: int) -> None:
        """Whoever sees ``buffer`` through evicted ones sees something new."""
        self.changed.update(self._reach(buffer, self.children)[1])
        if self.downward:
            self.changed.update(self._reach(buffer, self.parents)[1])

    def _reach(self, start: int, neighbours: Sequence[Sequence[int]]) -> tuple[set[int], set[int]]:
        """Evicted buffers reached from ``start`` through evicted ones, and others beside them."""
        inside: set[int] = set()
        beside: set[int] = set()
        queue = [start]
        while queue:
            for b in neighbours[queue.pop()]:
                if not self.is_evicted[b]:
                    beside.add(b)
                elif b not in inside:
                    inside.add(b)
                    queue.append(b)
        return inside, beside


class Ancestors(Neighbourhood):
    """MSPS: what must be recomputed to have the buffer back, per byte.

    The evicted ancestors of a buffer are a set of bits, kept until one of them comes or goes - but
    walked each time where buffers need each other (a view of one that reads the other).
    """

    by_age = False
    downward = False

    def __init__(self, cost: Sequence[int], parents: Sequence[Sequence[int]]) -> None:
        super().__init__(cost, parents)
        self.above: dict[int, int] = {}
        self.walked = sum(cost) >= 1 << 63 or _is_cyclic(parents)
        self.costs = np.array([] if self.walked else cost, np.int64)
        self.nbytes = (len(cost) + 7) // 8

    def numerator(self, buffer: int) -> float:
        if self.walked:
            return super().numerator(buffer)
        bits = np.frombuffer(self._above(buffer).to_bytes(self.nbytes, "little"), np.uint8)
        evicted = np.unpackbits(bits, count=len(self.costs), bitorder="little").view(bool)
        return self.cost[buffer] + int(self.costs[evicted].sum())

    def _above(self, buffer: int) -> int:
        """The buffers that must be made before it can be, as bits."""
        stack = [buffer]
        while stack:
            b = stack[-1]
            gone = [p for p in self.parents[b] if self.is_evicted[p]]
            unknown = [p for p in gone if p not in self.above]
            if unknown:
                stack += unknown
                continue
            found = 0
            for p in gone:
                found |= self.above[p] | 1 << p
            self.above[b] = found
            stack.pop()
        return self.above[buffer]

    def _spread(self, buffer: int) -> None:
        inside, beside = self._reach(buffer, self.children)
        for b in (*inside, *beside, buffer):
            self.above.pop(b, None)
        self.changed.update(beside)


def _is_cyclic(parents: Sequence[Sequence[int]]) -> bool:
    try:
        TopologicalSorter(dict(enumerate(parents))).prepare()
    except CycleError:
        return True
    return False


class Components(Heuristic):
    """The neighbourhood as undirected components in a union-find (the paper's equivalence classes).

    A buffer that comes back takes its cost out of its component, which stays whole. ``sums`` follow
    each change by what it adds, since one may concern hundreds of buffers around a component.
    """

    def __init__(self, cost: Sequence[int], parents: Sequence[Sequence[int]]) -> None:
        super().__init__(cost, parents)
        self.element = [-1] * len(cost)  # the buffer's element in the union-find, while evicted
        self.up: list[int] = []
        self.total: list[int] = []
        self.rim: list[set[int]] = []  # buffers beside the component whose numerator counts it
        self.sums = np.array(cost, np.int64)

    def numerator(self, buffer: int) -> float:
        return self.cost[buffer] + sum(self.total[root] for root in self._roots(buffer))

    def evict(self, buffer: int) -> None:
        self.is_evicted[buffer] = 1
        root = self.element[buffer] = len(self.up)
        self.up.append(root)
        self.total.append(self.cost[buffer])
        self.rim.append({b for b in self._around(buffer) if not self.is_evicted[b]})
        self._add(self.rim[root], self.cost[buffer])
        for b in self._around(buffer):
            if self.is_evicted[b]:
                root = self._union(root, self._root(self.element[b]))
        self.rim[root].discard(buffer)

    def restore(self, buffer: int) -> None:
        assert self.sums is not None
        if self.is_evicted[buffer]:
            self.is_evicted[buffer] = 0
            root = self._root(self.element[buffer])
            self.total[root] -= self.cost[buffer]
            self._add(self.rim[root], -self.cost[buffer])
            for b in self._around(buffer):
                if b in self.rim[root] and root not in self._roots(b):
                    self.rim[root].discard(b)
                    self.sums[b] -= self.total[root]
        roots = self._roots(buffer)
        self.sums[buffer] = self.cost[buffer] + sum(self.total[root] for root in roots)
        for root in roots:
            self.rim[root].add(buffer)

    def _add(self, buffers: Collection[int], amount: int) -> None:
        assert self.sums is not None
        if buffers and amount:
            self.sums[np.fromiter(buffers, np.int64, len(buffers))] += amount

    def _roots(self, buffer: int) -> set[int]:
        """The components beside it."""
        return {self._root(self.element[b]) for b in self._around(buffer) if self.is_evicted[b]}

    def _around(self, buffer: int) -> Iterable[int]:
        return (*self.parents[buffer], *self.children[buffer])

    def _root(self, element: int) -> int:
        while self.up[element] != element:
            self.up[element] = self.up[self.up[element]]
            element = self.up[element]
        return element

    def _union(self, a: int, b: int) -> int:
        if a == b:
            return a
        if len(self.rim[a]) < len(self.rim[b]):
            a, b = b, a
        shared = self.rim[a] & self.rim[b]
        self._add(self.rim[a], self.total[b])
        self._add(shared, -self.total[b])
        self._add(self.rim[b] - shared, self.total[a])
        self.up[b] = a
        self.total[a] += self.total[b]
        self.rim[a] |= self.rim[b]
        self.rim[b] = set()
        return a


HEURISTICS: dict[str, type[Heuristic]] = {
    "dtr": Neighbourhood,
    "dtr_eq": Components,
    "dtr_local": Local,
    "lru": Least,
    "size": Largest,
    "msps": Ancestors,
}
