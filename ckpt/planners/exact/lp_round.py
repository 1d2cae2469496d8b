"""Checkmate's two-phase rounding: solve the linear relaxation, keep what it mostly keeps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ckpt.graph import Graph
from ckpt.planners.base.cost import Cost, flops
from ckpt.planners.base.registry import over_budget, planner
from ckpt.planners.base.solver import STOPPED
from ckpt.planners.exact.checkmate import Checkmate, perform
from ckpt.planners.exact.epochs import ladder
from ckpt.schedule import Proof, Schedule
from ckpt.timeline import Timeline

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SHARES = (0.9, 0.95, 1.0)
"""The parts of the budget at which the relaxation is solved, the paper's first."""


@planner("lp_round", monotone=False)
def lp_round(
    graph: Graph,
    budget: int | None = None,
    *,
    cost: Cost | None = None,
    time_limit: float = 60.0,
    max_size: int = 6_000,
) -> Schedule:
    """Checkmate's approximation: round the linear relaxation of its integer program.

    Source: Jain et al. 2020 (arXiv:1910.02653), §5: solve at 0.9 of the budget, keep what is above
    a threshold, recompute the least that then is needed, from right to left. Here several shares of
    the budget, thresholds and numbers of epochs are tried, each is simulated, and the cheapest that
    fits is kept; coarse epochs often round better, for there is less to round.
    Guarantee: within the budget; none on cost. The relaxation at the whole budget is its ``proof``:
    a bound for schedules of the class that is told beside it.
    Ignores: what rounding loses; a larger budget may cost more.
    Cost: three linear programs for each number of epochs (8, 16, …), of O(epochs x edges)
    columns, the finest of at most ``max_size`` (epoch, node) pairs. After ``time_limit`` seconds no
    further one is begun, and the notes say so.
    """
    price = cost or flops(graph)
    rungs = ladder(graph, max_size)
    space = rungs[-1]
    keeps_all, keeps_none = perform(space, space.all_kept()), perform(space, space.none_kept())
    if budget is None or keeps_all.peak <= budget:
        return replace(keeps_all.schedule, planner="lp_round", budget=budget)
    best = keeps_none if keeps_none.peak <= budget else None
    proof = None
    ends = time.monotonic() + time_limit
    for space in rungs:
        model = Checkmate(space, price)
        rounded, bound = round_relaxation(model, budget, ends)
        best = model.cheaper(best, rounded)
        if bound is not None:
            proof = Proof(bound, price.unit, space.assumptions)
    if best is None:
        raise over_budget(graph, keeps_none, "lp_round", budget)
    stopped = {"status": f"{STOPPED} at {time_limit:g} s"} if time.monotonic() > ends else {}
    return replace(best.schedule, planner="lp_round", budget=budget, proof=proof, notes=stopped)


def round_relaxation(
    model: Checkmate, budget: int, ends: float, shares: tuple[float, ...] = SHARES
) -> tuple[Timeline | None, int | None]:
    """The cheapest rounded schedule within ``budget``, and the linear bound on the class.

    ``ends``: when to stop, in `time.monotonic` seconds.
    """
    best: Timeline | None = None
    bound: int | None = None
    for share in shares:
        left = ends - time.monotonic()
        if left <= 0:
            break
        relaxed = model.cheapest(share * budget, time_limit=left, integer=False)
        if relaxed.x is None:
            continue
        if share == 1:
            bound = model.recompute_bound(relaxed.value)
        for timeline in _rounded(model, relaxed.x):
            if timeline.peak <= budget:
                best = model.cheaper(best, timeline)
    return best, bound


def _rounded(model: Checkmate, x: Any) -> Iterator[Timeline]:
    """The schedules that the thresholds give, each in two ways.

    The paper's rounds each epoch apart. Where the optimum is not unique the relaxation keeps a bit
    of everything for a while, and that drops values that were just recomputed; so what is kept at
    the first Backward is also rounded alone, and held as long as it is useful.
    """
    space = model.space
    seen: list[list[set[int]]] = []
    for threshold in THRESHOLDS:
        apart = model.kept(x, threshold)
        first = apart[min(space.forward_epochs, len(apart) - 1)]
        held = [set(first & epoch.keepable) for epoch in space.epochs]
        both = [one | other for one, other in zip(apart, held, strict=True)]
        for kept in (apart, held, both):
            if kept not in seen:
                seen.append(kept)
                yield perform(space, kept)
