"""A graph of many equal blocks as one of few: what takes long is done for that.

Some blocks in the middle are left out. What reads into them reads the like of it, so many blocks
before; what lies behind all blocks and reads something of each, reads something of those that are
left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ckpt.graph import BackwardRow, Graph, Overwrites
from ckpt.machine import simulate
from ckpt.planners.base.cost import Cost
from ckpt.planners.base.emit import compute_all, free_early
from ckpt.repeats import Repeats, waiting
from ckpt.schedule import Schedule

MULTIPLE = 24
"""So many blocks, or twice as many and so on, are left out."""

FEWEST = 32
"""So many are left at least."""


class Shortened:
    """``whole`` without ``left_out`` of its equal blocks, at least MULTIPLE + FEWEST."""

    def __init__(self, whole: Graph, repeats: Repeats) -> None:
        self.whole = whole
        self.left_out = (repeats.count - FEWEST) // MULTIPLE * MULTIPLE
        self.repeats = replace(
            repeats, count=repeats.count - self.left_out, alike=repeats.alike - self.left_out
        )
        """Those of the short graph."""
        self._start = repeats.start
        middle = self.repeats.count // 2
        nodes = repeats.nodes(middle).start, repeats.nodes(middle + self.left_out).start
        steps = repeats.backwards(middle + self.left_out - 1), repeats.backwards(middle - 1)
        self._nodes = range(*nodes)
        self._steps = range(steps[0].start, steps[1].start)
        self._kept_nodes = [i for i in range(len(whole)) if i not in self._nodes]
        self._kept_steps = [q for q in range(len(whole.steps)) if q not in self._steps]
        self.graph = self._shortened()

    def cost(self, cost: Cost) -> Cost:
        """What of the whole graph's is the short one's."""
        nodes = (cost.nodes[i] for i in self._kept_nodes)
        steps = (cost.steps[q] for q in self._kept_steps)
        return Cost(cost.unit, tuple(nodes), tuple(steps))

    def budget(self, budget: int) -> int:
        """Its part of the whole graph's: each block as much, beside what storing all takes beside
        the blocks."""
        stored, short = _stored(self.whole), _stored(self.graph)
        count = self.repeats.count
        beside = short - (stored - short) * count // self.left_out
        return beside + (budget - beside) * count // (count + self.left_out)

    def _shortened(self) -> Graph:
        whole = self.whole
        nodes = []
        for i in self._kept_nodes:
            node = whole[i]
            deps = self._values(node.deps)
            alias = None if node.alias_of is None else self._value(node.alias_of)
            over = self._over(node.overwrites, deps)
            nodes.append(replace(node, deps=deps, alias_of=alias, overwrites=over))
        rows = tuple(self._rows())
        counted = whole.counts_gradients
        before = waiting(whole.rows, len(whole.steps), counted)
        now = waiting(rows, len(self._kept_steps), counted)
        steps = []
        for k, q in enumerate(self._kept_steps):
            step = whole.steps[q]
            reads = self._values(step.reads)
            at = None if step.at is None else self._value(step.at)
            over = self._over(step.overwrites, reads)
            during = step.during - before[q] + now[k]
            steps.append(replace(step, reads=reads, at=at, overwrites=over, during=during))
        outputs = self._values(whole.outputs)
        return Graph(tuple(nodes), tuple(steps), rows, outputs, whole.gradients, whole.name)

    def _value(self, i: int) -> int:
        """What stands for a node: its like, if it is left out."""
        return i - len(self._nodes) if i >= self._nodes.start else i

    def _values(self, nodes: Iterable[int]) -> tuple[int, ...]:
        pairs = ((i, self._value(i)) for i in nodes)
        start = self._start
        return tuple(dict.fromkeys(v for i, v in pairs if i < start or v >= start))

    def _over(self, pairs: Overwrites, values: Sequence[int]) -> Overwrites:
        return tuple((v, saved) for i, saved in pairs if (v := self._value(i)) in values)

    def _rows(self) -> Iterator[BackwardRow]:
        gone = self._steps
        for row in self.whole.rows:
            if row.first in gone or (row.kind == "seed" and row.last in gone):
                continue
            first, last = (q - len(gone) if q >= gone.stop else q for q in (row.first, row.last))
            whose = None if row.whose is None else self._value(row.whose)
            yield replace(row, first=first, last=last, whose=whose)


def _stored(graph: Graph) -> int:
    """The peak where nothing is recomputed."""
    return simulate(graph, Schedule(free_early(graph, compute_all(graph)))).peak
