"""The cheapest schedule of Checkmate's class, by integer programming."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

from ckpt.graph import Graph
from ckpt.planners.base.cost import Cost, flops
from ckpt.planners.base.registry import over_budget, planner
from ckpt.planners.base.solver import INFEASIBLE, OPTIMAL, STOPPED
from ckpt.planners.bounds.lower import lower_bounds
from ckpt.planners.exact.checkmate import Checkmate, perform
from ckpt.planners.exact.epochs import Epochs, ladder
from ckpt.planners.exact.lp_round import round_relaxation
from ckpt.schedule import Proof, Schedule
from ckpt.timeline import Timeline


@planner("ilp", monotone=False)
def ilp(
    graph: Graph,
    budget: int | None = None,
    *,
    cost: Cost | None = None,
    time_limit: float = 60.0,
    max_size: int = 1_200,
    forward_epochs: int = 1,
) -> Schedule:
    """Checkmate's integer program, solved by HiGHS; the schedule says what it proved.

    Source: Jain et al. 2020 (arXiv:1910.02653), §4, on our memory model: see `exact.checkmate`.
    Guarantee: the schedule's ``proof`` is a bound for schedules of a class that it tells; where the
    bound is the schedule's own cost, ``notes["status"]`` is ``optimal``, else ``notes["gap"]`` says
    how far they are apart. Proven optima are monotone in the budget; plans that the clock stopped
    need not be.
    Ignores: other orders of Compute, and what the class leaves out. Graphs of more than
    ``max_size`` (epoch, node) pairs are coarsened to fewer epochs, and the class says so. With
    ``forward_epochs`` > 1 the forward, cut into as many parts, may recompute what an earlier part
    freed: as many as it has nodes is Checkmate's whole class.
    Cost: exponential; 48 nodes (forward and backward) in seconds, stopped after ``time_limit``.
    Coarser epochs and rounding come first, so that there is an answer when the clock stops it.
    Raises MissingExtraError without SciPy.
    """
    price = cost or flops(graph)
    ends = time.monotonic() + time_limit
    rungs = ladder(graph, max_size, forward_epochs)
    keeps_all = perform(rungs[-1], rungs[-1].all_kept())
    if budget is None or keeps_all.peak <= budget:
        proof = Proof(0, price.unit, rungs[-1].assumptions)
        return replace(keeps_all.schedule, planner="ilp", budget=budget, proof=proof,
                       notes={"status": OPTIMAL})  # fmt: skip

    best: Timeline | None = None
    known = lower_bounds(graph, budget, price, effort=100_000_000)
    any_class = max(bound.cost or 0 for bound in known)
    found = _Proven(rungs[-1], STOPPED, 0)
    for number, space in enumerate(rungs):
        if best is not None and price.recompute(best.counts) <= any_class:
            break
        model = Checkmate(space, price)
        until = time.monotonic() + (ends - time.monotonic()) / (len(rungs) - number)
        rounded, linear = round_relaxation(model, budget, until)
        best = model.cheaper(best, rounded)
        best, status, proven = _improve(model, budget, best, until)
        stands = best is not None and price.recompute(best.counts) >= found.bound
        if status == STOPPED and found.status == OPTIMAL and stands:
            continue  # finer epochs, where nothing is proven, don't replace a proof for coarser
        found = _Proven(space, status, max(proven, linear or 0))
    if best is None:
        smallest = _smallest(model, time_limit)
        if smallest.peak > budget:
            raise over_budget(graph, smallest, "ilp", budget)
        best = smallest
    spent = price.recompute(best.counts)
    bound = min(max(found.bound, any_class), spent)
    return replace(
        best.schedule,
        planner="ilp",
        budget=budget,
        proof=Proof(bound, price.unit, found.space.assumptions),
        notes={
            "status": OPTIMAL if bound == spent else f"{STOPPED} at {time_limit:g} s",
            "gap": (spent - bound) / spent if spent else 0.0,
        },
    )


class _Proven(NamedTuple):
    """What is known of the best schedule in a class."""

    space: Epochs
    status: str
    bound: int


def _improve(
    model: Checkmate, budget: int, best: Timeline | None, until: float
) -> tuple[Timeline | None, str, int]:
    """Look for a schedule cheaper than ``best``: the best now, the state, and what is proven."""
    found = model.cheapest(budget, time_limit=until - time.monotonic())
    if found.status == INFEASIBLE:
        return best, INFEASIBLE if best is None else STOPPED, 0
    proven = model.recompute_bound(found.bound)
    cap = float(budget)
    while found.x is not None:
        timeline = perform(model.space, model.kept(found.x))
        if timeline.peak <= budget:
            return model.cheaper(best, timeline), found.status, proven
        # The solver's tolerance let a few bytes through: ask again for that much less.
        cap -= timeline.peak - budget
        found = model.cheapest(cap, time_limit=until - time.monotonic())
    return best, STOPPED, proven


def _smallest(model: Checkmate, seconds: float) -> Timeline:
    """The schedule of the least peak that is found in time."""
    keeps_none = perform(model.space, model.space.none_kept())
    found = model.smallest(time_limit=seconds)
    if found.x is None:
        return keeps_none
    return min(keeps_none, perform(model.space, model.kept(found.x)), key=lambda t: t.peak)
