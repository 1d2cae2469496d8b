"""The cheapest schedule of Checkmate's class, by integer programming."""

from __future__ import annotations

import time
from typing import NamedTuple

from ckpt.graph import Graph
from ckpt.planners.base.registry import over_budget, planner
from ckpt.planners.bounds.bounds import lower_bounds
from ckpt.planners.exact.checkmate import Checkmate, perform
from ckpt.planners.exact.lp_round import named, round_relaxation
from ckpt.planners.exact.solver import INFEASIBLE, OPTIMAL, STOPPED
from ckpt.planners.exact.stagewise import Stagewise, ladder
from ckpt.schedule import Schedule
from ckpt.timeline import Timeline


@planner("ilp", monotone=False)
def ilp(
    graph: Graph,
    budget: int | None = None,
    *,
    time_limit: float = 60.0,
    max_size: int = 1_200,
    forward_stages: int = 1,
) -> Schedule:
    """Checkmate's integer program, solved by HiGHS; the schedule says what it proved.

    Source: Jain et al. 2020 (arXiv:1910.02653), §4, on our memory model: see `exact.checkmate`.
    Guarantee: where ``notes["status"]`` is ``optimal``, no schedule of the class in
    ``notes["class"]`` that fits recomputes less; else ``bound_flops`` and ``gap`` say how far that
    may be. Proven optima are monotone in the budget; plans that the clock stopped need not be.
    Ignores: other orders of Compute, and what the class leaves out. Graphs of more than
    ``max_size`` (stage, node) pairs are coarsened to fewer stages, and the class says so. With
    ``forward_stages`` > 1 the forward, cut into as many parts, may recompute what an earlier part
    freed: as many as it has nodes is Checkmate's whole class.
    Cost: exponential; 48 nodes (forward and backward) in seconds, stopped after ``time_limit``.
    Coarser stages and rounding come first, so that there is an answer when the clock stops it.
    Raises MissingExtraError without SciPy.
    """
    ends = time.monotonic() + time_limit
    rungs = ladder(graph, max_size, forward_stages)
    keeps_all = perform(rungs[-1], rungs[-1].all_kept())
    if budget is None or keeps_all.peak <= budget:
        return named(keeps_all, "ilp", budget, {"status": OPTIMAL, "bound_flops": 0})

    best: Timeline | None = None
    any_class = max(b.flops or 0 for b in lower_bounds(graph, budget, time_limit=time_limit / 10))
    proof = _Proof(rungs[-1], STOPPED, 0)
    for number, space in enumerate(rungs):
        if best is not None and best.recompute_flops <= any_class:
            break
        model = Checkmate(space)
        until = time.monotonic() + (ends - time.monotonic()) / (len(rungs) - number)
        rounded, linear = round_relaxation(model, budget, until)
        best = _cheaper(best, rounded)
        best, status, proven = _improve(model, budget, best, until)
        stands = best is not None and best.recompute_flops >= proof.bound
        if status == STOPPED and proof.status == OPTIMAL and stands:
            continue  # finer stages, where nothing is proven, don't replace a proof for coarser
        proof = _Proof(space, status, max(proven, linear or 0))
    if best is None:
        smallest = _smallest(model, time_limit)
        if smallest.peak > budget:
            raise over_budget(graph, smallest, "ilp", budget)
        best = smallest
    cost = best.recompute_flops
    bound = min(max(proof.bound, any_class), cost)
    notes = {
        "status": OPTIMAL if bound == cost else f"{STOPPED} at {time_limit:g} s",
        "bound_flops": bound,
        "gap": (cost - bound) / cost if cost else 0.0,
        "class": proof.space.assumptions,
    }
    return named(best, "ilp", budget, notes)


class _Proof(NamedTuple):
    """What is known of the best schedule in a class."""

    space: Stagewise
    status: str
    bound: int


def _cheaper(best: Timeline | None, other: Timeline | None) -> Timeline | None:
    if best is None or other is None:
        return other if best is None else best
    return other if other.recompute_flops < best.recompute_flops else best


def _improve(
    model: Checkmate, budget: int, best: Timeline | None, until: float
) -> tuple[Timeline | None, str, int]:
    """Look for a schedule cheaper than ``best``: the best now, the state, and what is proven."""
    below = None if best is None else best.recompute_flops
    found = model.cheapest(budget, time_limit=until - time.monotonic(), below=below)
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
        found = model.cheapest(cap, time_limit=until - time.monotonic(), below=below)
    return best, STOPPED, proven


def _smallest(model: Checkmate, seconds: float) -> Timeline:
    """The schedule of the least peak that is found in time."""
    keeps_none = perform(model.space, model.space.none_kept())
    found = model.smallest(time_limit=seconds)
    if found.x is None:
        return keeps_none
    return min(keeps_none, perform(model.space, model.kept(found.x)), key=lambda t: t.peak)
