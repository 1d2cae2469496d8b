"""Chen's greedy: a snapshot whenever enough bytes have gathered since the last one."""

from __future__ import annotations

from functools import partial
from itertools import accumulate

from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base import clock
from ckpt.planners.base.cost import Cost, flops
from ckpt.planners.base.lower import lower
from ckpt.planners.base.registry import over_budget, planner
from ckpt.planners.base.stages import find_stages
from ckpt.planners.base.tried import Figures, tried
from ckpt.planners.simple.every import keep_boundaries
from ckpt.schedule import Schedule
from ckpt.timeline import Timeline

THRESHOLDS = 32


@planner("greedy")
def greedy(graph: Graph, budget: int | None = None, *, cost: Cost | None = None) -> Schedule:
    """Keep the boundary at a cut once more than a threshold of bytes was made since the last one.

    Source: Chen et al. 2016 (arXiv:1604.06174), Algorithm 3, with the search over thresholds of its
    appendix A widened: instead of six around one guess, THRESHOLDS in equal ratios from the
    smallest stage to everything. Each is simulated; the one of the least cost within the budget
    wins, then the smaller peak. The last segment is kept whole. Store-all, the
    limit of a threshold that is never reached, is among the candidates.

    Guarantee: the thresholds don't depend on the budget, so a larger one never costs more. Ignores:
    cost, when it places snapshots. Cost: THRESHOLDS simulations. Raises UsageError where the graph
    can't be cut (`find_stages`).
    """
    stages = find_stages(graph)
    owners = graph.owners
    made = [
        sum(graph.nodes[i].nbytes for i in stage.nodes if owners[i] == i) for stage in stages.stages
    ]
    plans: dict[tuple[int, ...], int] = {}  # the stages that start a segment -> threshold
    for threshold in _thresholds(made):
        starts, gathered = [0], 0
        for k, nbytes in enumerate(made[:-1]):
            gathered += nbytes
            if gathered > threshold:
                starts.append(k + 1)
                gathered = 0
        plans.setdefault(tuple(starts), threshold)

    def plan(segments: tuple[int, ...]) -> Timeline:
        cuts = [stages[s].start for s in segments]
        threshold = plans[segments]
        notes = {"stages": len(stages), "segments": len(segments), "threshold_nbytes": threshold}
        kept = keep_boundaries(stages, segments)
        schedule = lower(graph, kept, cuts, planner="greedy", budget=budget, notes=notes)
        return simulate(graph, schedule)

    known = tried(graph, cost or flops(graph), "greedy")
    found: dict[tuple[int, ...], Figures] = {}
    for segments in plans:
        clock.check()
        found[segments] = known.figures_of(segments, partial(plan, segments))
    able = [s for s in plans if budget is None or found[s].peak <= budget]
    if not able:
        least = plan(min(plans, key=lambda s: found[s].peak))
        raise over_budget(graph, least, "greedy", budget)
    return plan(min(able, key=lambda s: (found[s].cost, found[s].peak))).schedule


def _thresholds(made: list[int]) -> list[int]:
    """From zero, then from the smallest positive to all bytes in equal ratios; distinct."""
    total = max(sum(made), 1)
    low = max(min((m for m in made if m), default=1), 1)
    ratio = (total / low) ** (1 / (THRESHOLDS - 2))
    steps = accumulate([ratio] * (THRESHOLDS - 2), lambda size, r: size * r, initial=float(low))
    return list(dict.fromkeys([0, *map(int, steps)]))
