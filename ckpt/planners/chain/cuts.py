"""Where `chain` cuts a graph, and which of its stages are made runs of: what tables can bear."""

from __future__ import annotations

from collections.abc import Sequence

from ckpt.errors import UsageError
from ckpt.graph import Graph
from ckpt.planners.base import clock
from ckpt.planners.base.cost import Cost
from ckpt.planners.base.stages import Stages, cut_at, find_stages, within_calls
from ckpt.planners.chain.interior import interiors
from ckpt.planners.chain.kinds import table_work
from ckpt.planners.chain.runs import labels_of, spans_of

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


def cuts_of(
    graph: Graph, cost: Cost, slots: int | None, max_stages: int | None, widest: int | None
) -> list[Stages]:
    """Ways to cut the graph for which tables can be made: as `find_stages` would, at other widths
    of what may cross, and everywhere if it is small."""

    def work(stages: Stages) -> int:
        inside, _ = interiors(stages, cost)
        sequence = [*map(hash, inside)]
        spans = spans_to_make(sequence, slots)
        labels = labels_of(sequence, spans) if spans else sequence
        return table_work(labels) * (slots or 500)

    stages = find_stages(graph, max_stages=max_stages, widest=widest)
    while work(stages) > MOST_WORK:
        clock.check()
        stages = find_stages(graph, max_stages=len(stages) * 3 // 4, widest=widest)
    found = {stages.cuts: stages}
    if max_stages is not None or widest is not None:
        return [stages]
    room = MOST_WORK - work(stages)
    inside = within_calls(graph)
    everywhere = cut_at(graph, [i for i in graph.computed[1:] if i not in inside])
    widths = sorted({stage.boundary_nbytes for stage in everywhere.stages[1:]})
    for width in widths[:: 1 + len(widths) // 8]:
        if len(found) == CUTS:
            break
        clock.check()
        try:
            stages = find_stages(graph, widest=width)
        except UsageError:
            continue  # so little crosses only where nothing is worth telling apart
        largest = max(len(stage.nodes) for stage in stages.stages)
        if stages.cuts not in found and largest <= MOST_NODES:
            room -= work(stages)
            if room < 0:
                break
            found[stages.cuts] = stages
    if len(graph.computed) <= FINEST:
        found[everywhere.cuts] = everywhere
    return list(found.values())


def spans_to_make(sequence: Sequence[int], slots: int | None) -> list[tuple[int, int]] | None:
    """The runs that the stages are made to; None where a table of the stages does."""
    if slots is not None or table_work(sequence) * 40 * len(sequence) <= SLOTS_WORK:
        return None
    spans = spans_of(sequence)
    return spans if len(spans) < len(sequence) else None
