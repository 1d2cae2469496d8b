"""Where `chain` cuts a graph, and which of its stages are made runs of: what tables can bear."""

from __future__ import annotations

from dataclasses import dataclass

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


def cuts_of(
    graph: Graph, cost: Cost, slots: int | None, max_stages: int | None, widest: int | None
) -> list[Divided]:
    """Ways to cut the graph for which tables can be made: as `find_stages` would, at other widths
    of what may cross, and everywhere if it is small."""
    line = Positions(graph)
    first = divided(line.stages(max_stages, widest), cost, slots)
    while first.work(slots) > MOST_WORK:
        clock.check()
        first = divided(line.stages(len(first.stages) * 3 // 4, widest), cost, slots)
    found = {first.stages.cuts: first}
    if max_stages is not None or widest is not None:
        return [first]
    room = MOST_WORK - first.work(slots)
    inside = within_calls(graph)
    everywhere = [i for i in graph.computed[1:] if i not in inside]
    widths = sorted({line.nbytes[i] for i in everywhere})
    for width in widths[:: 1 + len(widths) // 8]:
        if len(found) == CUTS:
            break
        clock.check()
        try:
            stages = line.stages(widest=width)
        except UsageError:
            continue  # so little crosses only where nothing is worth telling apart
        largest = max(len(stage.nodes) for stage in stages.stages)
        if stages.cuts not in found and largest <= MOST_NODES:
            another = divided(stages, cost, slots)
            room -= another.work(slots)
            if room < 0:
                break
            found[stages.cuts] = another
    if len(graph.computed) <= FINEST:
        stages = cut_at(graph, everywhere)
        found[stages.cuts] = divided(stages, cost, slots)
    return list(found.values())
