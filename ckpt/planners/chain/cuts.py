"""Where `chain` cuts a graph, and which of its stages are made runs of: what tables can bear."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ckpt.errors import UsageError
from ckpt.graph import Graph
from ckpt.planners.base import clock
from ckpt.planners.base.cost import Cost
from ckpt.planners.base.stages import Positions, Stages, cut_at, within_calls
from ckpt.planners.chain.interior import Interior, interiors
from ckpt.planners.chain.kinds import table_work
from ckpt.planners.chain.runs import labels_of, run_work, spans_of

SLOTS_WORK = 250_000_000
"""Additions (a quarter of a second) that a table may take for more slots than 500."""

MOST_WORK = 3_000_000_000
"""Additions that a table may take (about 3 s); a longer chain is cut into fewer stages."""

CUTS = 3
"""How many ways to cut the graph are tried."""

FINEST = 64
"""A graph of up to so many nodes is also cut before every node."""

MOST_NODES = 100
"""Of a stage, for options to be worth looking for at other widths."""


@dataclass(frozen=True)
class Divided:
    """A graph cut into stages, and which of these are equal."""

    stages: Stages
    kinds: list[Interior]
    """The stages that are not equal to one before."""
    sequence: list[int]
    """For each stage its number among ``kinds``."""
    numbering: list[tuple[int, ...]]
    """For each stage the positions in the graph of its kind's values."""
    spans: list[tuple[int, int]] | None
    """The runs that the stages are made to; None where a table of the stages does."""

    def work(self, slots: int | None) -> int:
        """Additions that the tables take, at so many slots (None: 500)."""
        labels = self.sequence
        inside = 0
        if self.spans is not None:
            labels = labels_of(self.sequence, self.spans)
            inside = run_work({tuple(self.sequence[a:b]) for a, b in self.spans})
        return table_work(labels) * (slots or 500) + inside


def divided(stages: Stages, cost: Cost, slots: int | None) -> Divided:
    """Runs are made unless ``slots`` are asked for, or the stages' own table has enough of them."""
    inside, numbering = interiors(stages, cost)
    kinds: dict[Interior, int] = {}
    sequence = [kinds.setdefault(interior, len(kinds)) for interior in inside]
    spans = None
    if slots is None and table_work(sequence) * 40 * len(sequence) > SLOTS_WORK:
        spans = spans_of(sequence)
    if spans is not None and len(spans) == len(sequence):
        spans = None
    return Divided(stages, list(kinds), sequence, numbering, spans)


class Cutter:
    """The ways in which a graph is cut, each remembered: what the clock stopped is gone on with."""

    def __init__(self, graph: Graph, cost: Cost, slots: int | None) -> None:
        self.graph = graph
        self.cost = cost
        self.slots = slots
        self._made: dict[tuple[int | None, int | None], Divided | UsageError] = {}

    @cached_property
    def positions(self) -> Positions:
        return Positions(self.graph)

    def divided(self, max_stages: int | None = None, widest: int | None = None) -> Divided:
        """As `find_stages` cuts it, or UsageError."""
        clock.check()
        key = max_stages, widest
        if key not in self._made:
            try:
                stages = self.positions.stages(max_stages, widest)
                self._made[key] = divided(stages, self.cost, self.slots)
            except UsageError as error:
                self._made[key] = error
        found = self._made[key]
        if isinstance(found, UsageError):
            raise found
        return found


def cuts_of(cutter: Cutter, max_stages: int | None, widest: int | None) -> list[Divided]:
    """Ways to cut the graph for which tables can be made: as `find_stages` would, at other widths
    of what may cross, and everywhere if it is small."""
    graph, slots = cutter.graph, cutter.slots
    first = cutter.divided(max_stages, widest)
    while first.work(slots) > MOST_WORK:
        first = cutter.divided(len(first.stages) * 3 // 4, widest)
    found = {first.stages.cuts: first}
    if max_stages is not None or widest is not None:
        return [first]
    room = MOST_WORK - first.work(slots)
    inside = within_calls(graph)
    everywhere = [i for i in graph.computed[1:] if i not in inside]
    widths = sorted({cutter.positions.nbytes[i] for i in everywhere})
    for width in widths[:: 1 + len(widths) // 8]:
        if len(found) == CUTS:
            break
        try:
            another = cutter.divided(widest=width)
        except UsageError:
            continue  # so little crosses only where nothing is worth telling apart
        largest = max(len(stage.nodes) for stage in another.stages.stages)
        if another.stages.cuts not in found and largest <= MOST_NODES:
            room -= another.work(slots)
            if room < 0:
                break
            found[another.stages.cuts] = another
    if len(graph.computed) <= FINEST:
        stages = cut_at(graph, everywhere)
        found[stages.cuts] = divided(stages, cutter.cost, slots)
    return list(found.values())
