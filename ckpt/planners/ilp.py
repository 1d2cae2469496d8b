"""The cheapest schedule of Checkmate's class, by integer programming."""

from __future__ import annotations

import time
from typing import Any

from ckpt.graph import Graph
from ckpt.planners.base import over_budget, planner
from ckpt.planners.checkmate import Checkmate, perform
from ckpt.planners.lp_round import named, round_relaxation
from ckpt.planners.solver import INFEASIBLE, OPTIMAL, STOPPED
from ckpt.planners.stagewise import ladder
from ckpt.schedule import Schedule
from ckpt.timeline import Timeline


@planner("ilp", monotone=False)
def ilp(
    graph: Graph,
    budget: int | None = None,
    *,
    time_limit: float = 60.0,
    max_size: int = 1_200,
) -> Schedule:
    """Checkmate's integer program, solved by HiGHS; the schedule says what it proved.

    Source: Jain et al. 2020 (arXiv:1910.02653), §4, on our memory model: `ckpt.planners.checkmate`.
    Guarantee: where ``notes["status"]`` is ``optimal``, no schedule of the class in
    ``notes["class"]`` that fits recomputes less; else ``bound_flops`` and ``gap`` say how far that
    may be. Proven optima are monotone in the budget; plans that the clock stopped need not be.
    Ignores: other orders of Compute, and recomputing within the forward. Graphs of more than
    ``max_size`` (stage, node) pairs are coarsened to fewer stages, and the class says so. Outputs
    that take less than a hundredth of store-all are kept, not recomputed at the end.
    Cost: exponential; 48 nodes (forward and backward) in seconds, stopped after ``time_limit``.
    Coarser stages and rounding come first, so that there is an answer when the clock stops it.
    Raises MissingExtraError without SciPy.
    """
    ends = time.monotonic() + time_limit
    rungs = ladder(graph, max_size)
    keeps_all = perform(rungs[-1], rungs[-1].all_kept())
    if budget is None or keeps_all.peak <= budget:
        return named(keeps_all, "ilp", budget, {"status": OPTIMAL, "bound_flops": 0})
    outputs = sum(graph[i].nbytes for i in graph.outputs if not graph[i].resident)
    if outputs * 100 >= keeps_all.peak:
        rungs = ladder(graph, max_size, keep_outputs=False)

    best: Timeline | None = None
    status, bound = STOPPED, 0
    for space in rungs:
        finest = space is rungs[-1]
        model = Checkmate(space)
        left = ends - time.monotonic()
        rounded, linear = round_relaxation(model, budget, ends if finest else ends - left * 0.8)
        best = _cheaper(best, rounded)
        left = ends - time.monotonic()
        best, status, proven = _improve(model, budget, best, left if finest else left * 0.2)
        bound = max(proven, linear or 0)
    if best is None:
        smallest = _smallest(model, ends - time.monotonic() if status == STOPPED else time_limit)
        if smallest.peak > budget:
            raise over_budget(graph, smallest, "ilp", budget)
        best = smallest
    cost = best.recompute_flops
    bound = min(bound, cost)
    notes: dict[str, Any] = {"class": rungs[-1].assumptions, "bound_flops": bound}
    notes["status"] = OPTIMAL if bound == cost else status
    notes["gap"] = (cost - bound) / cost if cost else 0.0
    return named(best, "ilp", budget, notes)


def _cheaper(best: Timeline | None, other: Timeline | None) -> Timeline | None:
    if best is None or other is None:
        return best or other
    return other if other.recompute_flops < best.recompute_flops else best


def _improve(
    model: Checkmate, budget: int, best: Timeline | None, seconds: float
) -> tuple[Timeline | None, str, int]:
    """Look for a schedule cheaper than ``best``: the best one now, the state, and what is proven."""
    ends = time.monotonic() + seconds
    below = None if best is None else best.recompute_flops
    if seconds <= 0:
        return best, STOPPED, 0
    found = model.cheapest(budget, time_limit=seconds, below=below)
    if found.status == INFEASIBLE:
        # Nothing is cheaper than `best`; or, without one, nothing fits.
        return best, INFEASIBLE if best is None else OPTIMAL, below or 0
    proven = model.recompute_bound(found.bound)
    cap = float(budget)
    while found.x is not None:
        timeline = perform(model.space, model.kept(found.x))
        if timeline.peak <= budget:
            return _cheaper(best, timeline), found.status, proven
        # The solver's tolerance let a few bytes through: ask again for that much less.
        cap -= timeline.peak - budget
        left = ends - time.monotonic()
        found = model.cheapest(cap, time_limit=left, below=below)
    return best, STOPPED, proven


def _smallest(model: Checkmate, seconds: float) -> Timeline:
    """The schedule of the least peak that is found in time."""
    keeps_none = perform(model.space, model.space.none_kept())
    found = model.smallest(time_limit=seconds)
    if found.x is None:
        return keeps_none
    return min(keeps_none, perform(model.space, model.kept(found.x)), key=lambda t: t.peak)
