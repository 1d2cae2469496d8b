"""Snapshots at even distances: `every:K`, and `sqrt`, its classical choice of K."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

from ckpt.errors import UsageError
from ckpt.graph import Graph
from ckpt.planners.base.lower import lower
from ckpt.planners.base.registry import planner
from ckpt.planners.base.stages import Stages, find_stages
from ckpt.schedule import Schedule


@planner("every", takes="k")
def every(graph: Graph, budget: int | None = None, *, k: int = 4) -> Schedule:
    """Keep the boundary at every ``k``-th cut and recompute the segments between, once each.

    Source: Chen et al. 2016 (arXiv:1604.06174), section 4.1. The last segment is kept whole, since
    its Backwards come at once: to drop it is pure cost. Guarantee: each other value is recomputed
    at most once. Ignores: the sizes of values, and the budget, but for refusing one it exceeds.
    Cost: linear. Raises UsageError where the graph can't be cut (`find_stages`) and for k < 1.
    """
    if k < 1:
        raise UsageError(
            f"every:{k}: a segment has at least one stage; write for example 'every:4'"
        )
    return _keep_every(graph, find_stages(graph), k, "every", budget)


@planner("sqrt")
def sqrt(graph: Graph, budget: int | None = None) -> Schedule:
    """`every` with segments of about sqrt(L) of the L stages.

    Source: Chen et al. 2016 (arXiv:1604.06174), section 4.1: with equal stages the snapshots and
    one segment's values balance, and the peak grows as sqrt(L). Guarantee, what it ignores, and
    cost as for `every`.
    """
    stages = find_stages(graph)
    return _keep_every(graph, stages, max(1, round_sqrt(len(stages))), "sqrt", budget)


def round_sqrt(number: int) -> int:
    """The integer nearest to the square root."""
    root = isqrt(number)
    return root + (number - root * root > root)


def _keep_every(graph: Graph, stages: Stages, k: int, name: str, budget: int | None) -> Schedule:
    starts = range(0, len(stages), k)
    kept = keep_boundaries(stages, starts)
    notes: dict[str, Any] = {"stages": len(stages), "stages_per_segment": k}
    cuts = [stages[s].start for s in starts]
    return lower(graph, kept, cuts, planner=name, budget=budget, notes=notes)


def keep_boundaries(stages: Stages, starts: Sequence[int]) -> set[int]:
    """What crosses the cuts before the stages ``starts``, and everything from the last one on."""
    kept = {i for start in starts for i in stages[start].boundary}
    kept.update(i for stage in stages.stages[starts[-1] :] for i in stage.nodes)
    return kept
