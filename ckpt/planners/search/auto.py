"""The portfolio as a planner: every planner that takes the graph, and the local search."""

from __future__ import annotations

from concurrent.futures import Executor
from contextlib import closing, suppress

from ckpt import workers
from ckpt.graph import Graph
from ckpt.planners.base.clock import Deadline, StoppedError
from ckpt.planners.base.cost import Cost, flops
from ckpt.planners.base.registry import planner
from ckpt.planners.search.ahead import Ahead, Known
from ckpt.planners.search.portfolio import Portfolio
from ckpt.schedule import Schedule


@planner("auto", monotone=False, takes="iterations")
def auto(
    graph: Graph,
    budget: int | None = None,
    *,
    cost: Cost | None = None,
    iterations: int = 200,
    time_limit: float | None = 60.0,
    jobs: int | None = None,
    executor: Executor | None = None,
    cluster: str | None = None,
    known: Known | None = None,
) -> Schedule:
    """The cheapest schedule of all planners, improved by local search.

    Source: none; see `search.improve` for the search. Schedules compare by the cost of recomputing,
    then by peak.
    Guarantee: never worse than any planner it asked, which ``notes["portfolio"]`` lists with what
    each returned. The schedule's ``proof`` is the bound of `bounds.lower_bounds`, and where that is
    met the search ends; for a last thousandth of the forward no `beam` is asked. On graphs of up to
    24 computed nodes `brute` is asked too, and where it answers the proof is that. The result is
    optimal where ``notes["optimal"]`` says so, under ``notes["assumptions"]``. Work is counted in
    iterations: the same everywhere, unless ``time_limit`` seconds are over before. Then it is the
    best so far, and ``notes["stopped_early"]`` says so. With ``jobs``, an ``executor`` or a
    ``cluster`` (see `workers.pool`) others do part of the work ahead, and it is the same schedule.
    ``known``: what planners said for this budget already, who aren't asked again then.
    Of a graph of more than LONG computed nodes whose blocks repeat, one of few blocks is planned,
    and what is found is done with all; of the planners `chain` alone is then asked about the whole,
    unless little is left to save.
    Ignores: monotony. A larger budget may, rarely, cost more.
    Cost: that of the planners asked, and ``iterations`` steps of the search for each of a few
    schedules, fewer of long ones; ``notes["iterations"]`` tells how many.

    Raises BudgetError where it finds none, with the smallest that is found and what is proven.
    """
    clock = Deadline(time_limit)
    with clock.running():
        price = cost or flops(graph)
        portfolio = Portfolio(graph, budget, price, clock)
        with (
            suppress(StoppedError),  # the best so far stands
            workers.pool(jobs=jobs, executor=executor, cluster=cluster) as there,
            closing(Ahead(there, graph, budget, price, known)) as ahead,
        ):
            portfolio.search(ahead, iterations)
        return portfolio.result()
