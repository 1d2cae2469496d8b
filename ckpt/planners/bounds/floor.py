"""The least budget: below it no schedule exists."""

from __future__ import annotations

from heapq import heappop, heappush

from ckpt.graph import Graph
from ckpt.planners.base import clock
from ckpt.planners.base.reads import closure
from ckpt.planners.bounds.reduced import needs
from ckpt.planners.bounds.simple import Floor, memory_floor, most_saved
from ckpt.schedule import Backward, describe_instruction

STEPS = 48
"""So many steps of the backward are looked at, those that hold most."""


def budget_floor(graph: Graph, at_most: int | None = None) -> Floor:
    """The most that is proven: no schedule has a lower peak; the smallest one that exists may be
    higher.

    `memory_floor`, and what must happen from one step of the backward to the next: what the next
    reads is carried past the step before, beside what that one holds, or computed in between, of
    deps of which the same is true; and neither fits in less. ``at_most``: the peak of a schedule,
    where the search ends. O(steps looked at x nodes x log of the bytes).
    """
    floor = memory_floor(graph)
    last = len(graph.steps)
    spans = _Spans(graph)
    heavy = sorted(range(last - 1), key=lambda q: (-spans.held(q)[1], q))[:STEPS]
    for q in sorted(heavy):
        if clock.stopped():
            break  # what is proven so far holds
        low, high = floor.nbytes, at_most
        if spans.possible(q, low):
            continue
        if high is None:
            high = 2 * low
            while not spans.possible(q, high):
                high *= 2
        while high - low > 1:  # impossible in `low` bytes, and maybe not in `high`
            middle = (low + high) // 2
            if spans.possible(q, middle):
                high = middle
            else:
                low = middle
        after = describe_instruction(Backward(q), graph)
        floor = Floor(low + 1, f"what the next step takes after {after}")
    return floor


class _Spans:
    """What a graph needs from one step of the backward to the next."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.needs = [needs(graph, i) for i in range(len(graph))]
        self.first: dict[int, int] = {}
        """For each value, the step by which it certainly is computed."""
        for q, step in enumerate(graph.steps):
            reads = step.reads if q else (*step.reads, *graph.outputs)
            wanted = (i for i in reads if not graph[i].resident)
            self.first.update(dict.fromkeys(closure(graph, wanted, self.first), q))

    def held(self, q: int) -> tuple[set[int], int]:
        """Whose buffers surely are live while step ``q`` runs, and the bytes held then."""
        graph, step = self.graph, self.graph.steps[q]
        live = {graph.owners[i] for i in (*step.reads, *graph.outputs)}
        nbytes = sum(graph[o].nbytes for o in live if not graph[o].resident)
        return live, nbytes + step.during - most_saved(step)

    def possible(self, q: int, budget: int) -> bool:
        """Might ``budget`` bytes do from step ``q`` to the next? False is proof that they don't."""
        graph, nodes, owners = self.graph, self.graph.nodes, self.graph.owners
        there, held = self.held(q)
        room, spare = budget - held, budget - graph.between[q + 1]
        made: set[int] = set()
        open_to = list(graph.steps[q + 1].reads)
        either: list[tuple[int, int]] = []  # bytes and value: carried, or else made
        while room >= 0 and (open_to or either):
            if not open_to:
                nbytes, i = heappop(either)
                if -nbytes <= room:
                    return True
                made.add(i)
                open_to += nodes[i].deps
                continue
            i = open_to.pop()
            owner = owners[i]
            if nodes[i].resident or owner in there or i in made:
                continue
            unable = self.needs[i] > spare
            if nodes[i].call:  # never carried: its results are
                if unable:
                    return False
                made.add(i)
                open_to += nodes[i].deps
            elif unable or (nodes[i].captured and self.first[i] <= q):
                there.add(owner)
                room -= 0 if nodes[owner].resident else nodes[owner].nbytes
            else:
                heappush(either, (0 if nodes[owner].resident else -nodes[owner].nbytes, i))
        return room >= 0
