"""What an eviction would cost to undo: the heuristics of dynamic tensor rematerialization.

Each keeps, as buffers are evicted and come back, the numerator of its score. Buffers are numbered;
``parents`` and ``children`` are the buffers that a buffer's ops read, and those that read it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from graphlib import CycleError, TopologicalSorter

import numpy as np

Sums = np.ndarray[tuple[int], np.dtype[np.int64]]


class Heuristic:
    """A score to evict by, least first: numerator / (bytes if by_size) / (staleness if by_age)."""

    by_size = True
    by_age = True

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

    def numerators(self) -> Sums | None:
        """Those of all live buffers, where they are kept up to date; else `changed` tells."""
        return None

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
        """An evicted buffer whose bits are unknown is passed by: those that see something through
        it were told when its bits were lost, and have not been looked at since."""
        if self.walked:
            super()._spread(buffer)
            return
        self.above.pop(buffer, None)
        queue = [buffer]
        while queue:
            for b in self.children[queue.pop()]:
                was_known = self.above.pop(b, None) is not None
                if not self.is_evicted[b]:
                    self.changed.add(b)
                elif was_known:
                    queue.append(b)


def _is_cyclic(parents: Sequence[Sequence[int]]) -> bool:
    try:
        TopologicalSorter(dict(enumerate(parents))).prepare()
    except CycleError:
        return True
    return False


class Components(Heuristic):
    """The neighbourhood as undirected components in a union-find (the paper's equivalence classes).

    A buffer that comes back takes its cost out of its component, which stays whole. One change may
    concern hundreds of buffers around a component, and there are many changes for each eviction: so
    the numerators of those on its rim have seen a component as it was when they were last asked
    for, all of them the same.
    """

    def __init__(self, cost: Sequence[int], parents: Sequence[Sequence[int]]) -> None:
        super().__init__(cost, parents)
        self.around = [(*up, *down) for up, down in zip(parents, self.children, strict=True)]
        self.element = [-1] * len(cost)  # the buffer's element in the union-find, while evicted
        self.up: list[int] = []
        self.total: list[int] = []
        self.seen: list[int] = []  # of the total, what the numerators of the rim count
        self.rim: list[set[int]] = []  # buffers beside the component whose numerator counts it
        self.stale: set[int] = set()  # components whose total may differ from what is seen
        self.sums = np.array(cost, np.int64)

    def numerator(self, buffer: int) -> float:
        return self.cost[buffer] + sum(self.total[root] for root in self._roots(buffer))

    def numerators(self) -> Sums:
        for root in self.stale:
            self._add(self.rim[root], self.total[root] - self.seen[root])
            self.seen[root] = self.total[root]
        self.stale.clear()
        return self.sums

    def evict(self, buffer: int) -> None:
        is_evicted, around = self.is_evicted, self.around[buffer]
        is_evicted[buffer] = 1
        root = self.element[buffer] = len(self.up)
        self.up.append(root)
        self.total.append(self.cost[buffer])
        self.seen.append(0)
        self.rim.append({b for b in around if not is_evicted[b]})
        for b in around:
            if is_evicted[b]:
                root = self._union(root, self._root(self.element[b]))
        self.rim[root].discard(buffer)
        self.stale.add(root)

    def restore(self, buffer: int) -> None:
        if self.is_evicted[buffer]:
            self.is_evicted[buffer] = 0
            root = self._root(self.element[buffer])
            self.total[root] -= self.cost[buffer]
            self.stale.add(root)
            rim = self.rim[root]
            for b in self.around[buffer]:
                if b in rim and root not in self._roots(b):
                    rim.discard(b)
                    self.sums[b] -= self.seen[root]
        roots = self._roots(buffer)
        self.sums[buffer] = self.cost[buffer] + sum(self.seen[root] for root in roots)
        for root in roots:
            self.rim[root].add(buffer)

    def _add(self, buffers: Collection[int], amount: int) -> None:
        if buffers and amount:
            self.sums[np.fromiter(buffers, np.int64, len(buffers))] += amount

    def _roots(self, buffer: int) -> set[int]:
        """The components beside it."""
        is_evicted, element = self.is_evicted, self.element
        return {self._root(element[b]) for b in self.around[buffer] if is_evicted[b]}

    def _root(self, element: int) -> int:
        up = self.up
        while up[element] != element:
            up[element] = up[up[element]]
            element = up[element]
        return element

    def _union(self, a: int, b: int) -> int:
        """One component of two, which the rim has seen as it saw that with the longer rim."""
        if a == b:
            return a
        if len(self.rim[a]) < len(self.rim[b]):
            a, b = b, a
        rim, other = self.rim[a], self.rim[b]
        shared = rim & other
        self._add(shared, -self.seen[b])
        self._add(other - shared, self.seen[a] - self.seen[b])
        self.up[b] = a
        self.total[a] += self.total[b]
        rim |= other
        self.rim[b] = set()
        self.stale.discard(b)
        return a


HEURISTICS: dict[str, type[Heuristic]] = {
    "dtr": Neighbourhood,
    "dtr_eq": Components,
    "dtr_local": Local,
    "lru": Least,
    "size": Largest,
    "msps": Ancestors,
}
