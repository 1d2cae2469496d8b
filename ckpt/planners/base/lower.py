"""From *what to keep* to a Schedule, for the planners that choose only that."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

from ckpt.graph import Graph
from ckpt.planners.base.emit import Emitter
from ckpt.planners.base.reads import permanent
from ckpt.planners.base.stages import last_readers
from ckpt.schedule import Schedule


def lower(
    graph: Graph,
    kept: Iterable[int],
    cuts: Sequence[int] | None = None,
    *,
    planner: str = "",
    budget: int | None = None,
    notes: dict[str, Any] | None = None,
) -> Schedule:
    """A schedule that keeps the values ``kept`` and recomputes the rest, segment by segment.

    The forward computes everything once and frees what isn't kept at its last forward reader. The
    backward takes the last segment first: it recomputes what the segment's Backwards read, once,
    from what is kept; each value goes at its last use, a residual after its last Backward reader.

    ``cuts`` are the positions between segments. By default they are all positions where everything
    that crosses is kept, so no segment reaches into another, and nothing is recomputed twice; with
    other cuts a value that crosses one unkept is recomputed for either side. A view is kept with
    its owner, and an owner with its view, since they share one buffer; captured arrays and outputs
    are always kept. Linear in the instructions made.
    """
    owners = graph.owners
    buffers = {owners[i] for i in kept}
    aside = permanent(graph)
    keeps = [i in aside or owners[i] in buffers for i in range(len(graph))]
    emitter = Emitter(graph)
    emitter.hold(i for i, keep in enumerate(keeps) if keep)
    emitter.settle(emitter.compute(graph.outputs))
    if cuts is None:
        cuts = closed_cuts(graph, keeps)
    segments: dict[int, list[int]] = {}
    for k, position in enumerate(graph.positions):
        segments.setdefault(bisect_right(cuts, position), []).append(k)
    for steps in segments.values():
        computed = emitter.compute(r for k in steps for r in graph.steps[k].reads)
        for k in steps:
            emitter.backward(k)
        emitter.settle(computed)
    return emitter.schedule(planner, budget, notes)


def closed_cuts(graph: Graph, keeps: Sequence[bool]) -> list[int]:
    """The positions that no value crosses but those that ``keeps`` marks."""
    last_reader = last_readers(graph)
    cuts = []
    crossing_until = 0
    for position in range(1, len(graph)):
        if not keeps[position - 1]:
            crossing_until = max(crossing_until, last_reader[position - 1])
        if crossing_until < position:
            cuts.append(position)
    return cuts
