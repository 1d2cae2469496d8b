"""The portfolio: every planner that takes the graph, the best of them improved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ckpt.errors import BudgetError, MissingExtraError, UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base import registry
from ckpt.planners.base.cost import Cost, flops
from ckpt.planners.base.registry import planner
from ckpt.planners.search.improve import Improved, improve
from ckpt.schedule import Schedule
from ckpt.units import format_bytes

EXACT_NODES, EXACT_STATES = 24, 25_000
"""`brute` is asked about graphs that compute at most so many nodes, for so many states."""

SOLVER_NODES = 24
"""`lp_round` is asked about graphs that compute at most so many nodes: it is slow. `ilp` is not
asked: where it is quick, `brute` is quicker."""

QUADRATIC_NODES = 200
"""Above so many computed nodes `recompute_all`, whose schedules grow with their square, is asked
only if all others fail."""

FINALISTS = 4
"""How many schedules of the portfolio are improved; the best gets half of the iterations."""

WORK = 80_000_000
"""Iterations are cut so that they times the square of the instructions stay below this."""


@planner("auto", monotone=False, takes="iterations")
def auto(
    graph: Graph, budget: int | None = None, *, cost: Cost | None = None, iterations: int = 200
) -> Schedule:
    """The cheapest schedule of all planners, improved by local search.

    Source: none; see `search.improve` for the search. Schedules compare by the cost of recomputing,
    then by peak.
    Guarantee: never worse than any planner it asked, which ``notes["portfolio"]`` lists with what
    each returned. On graphs of up to 24 computed nodes `brute` is asked too, and where it answers
    the result is optimal over all schedules, which ``notes["optimal"]`` says. Deterministic: work
    is counted in iterations, not seconds.
    Ignores: monotony. A larger budget may, rarely, cost more.
    Cost: that of the planners asked, and ``iterations`` steps of the search, fewer on long
    schedules; ``notes["iterations"]`` tells how many.
    """
    price = cost or flops(graph)
    found: list[tuple[tuple[int, int], int, Schedule]] = []
    portfolio: dict[str, Any] = {}
    refusals: list[BudgetError] = []
    optimal = False
    computed = len(graph.computed)
    for name, options in _candidates(computed):
        if name == "recompute_all" and computed > QUADRATIC_NODES and found:
            continue
        try:
            asked, given = registry.get(name)
            schedule = asked(graph, budget, price, **given, **options)
        except BudgetError as error:
            refusals.append(error)
            portfolio[name] = f"needs {error.smallest} bytes"
            continue
        except (MissingExtraError, UsageError) as error:
            portfolio[name] = f"refused: {error}"
            continue
        key = _key(graph, schedule, price)
        portfolio[name] = {"recompute_cost": key[0], "peak_nbytes": key[1]}
        found.append((key, len(found), schedule))
        optimal |= name == "brute" or not key[0]
        if not key[0]:
            break
    if not found:
        raise _refusal(refusals, portfolio, budget)
    found.sort(key=lambda row: row[:2])
    best = found[0][2]
    used = 0
    if not optimal:
        finalists = [row[2] for row in found[:FINALISTS]]
        best, used = _improved(graph, finalists, budget, price, iterations)
    notes = {
        "from": best.planner,
        "portfolio": portfolio,
        "iterations": used,
        "optimal": optimal,
        "assumptions": "none: optimal over all schedules" if optimal else "none, and no proof",
    }
    return replace(best, graph=graph.digest, planner="auto", budget=budget, notes=notes)


def _candidates(computed: int) -> list[tuple[str, dict[str, Any]]]:
    """Planners to ask about a graph that computes so many nodes, with options; store-all first."""
    asked: dict[str, dict[str, Any]] = {name: {} for name in registry.names()}
    for name in ("auto", "ilp", "brute"):
        asked.pop(name)
    asked["dtr:msps"] = {}
    asked["recompute_all"] = asked.pop("recompute_all")  # the last
    if computed > SOLVER_NODES:
        asked.pop("lp_round")
    if computed <= EXACT_NODES:
        asked["brute"] = {"max_nodes": EXACT_NODES, "max_states": EXACT_STATES}
    return list(asked.items())


def _improved(
    graph: Graph, schedules: list[Schedule], budget: int | None, cost: Cost, iterations: int
) -> Improved:
    """Each schedule improved a little, the best of them further; and the iterations it took."""
    longest = max(map(len, schedules))
    allowed = min(iterations, WORK // longest**2)
    if not allowed:
        schedules = schedules[:1]
    each = allowed // (2 * len(schedules))
    tried = [improve(graph, schedule, budget, each, cost=cost) for schedule in schedules]
    best = min(tried, key=lambda one: _key(graph, one.schedule, cost)).schedule
    last = improve(graph, best, budget, allowed - each * len(schedules), cost=cost)
    return Improved(last.schedule, last.iterations + sum(one.iterations for one in tried))


def _key(graph: Graph, schedule: Schedule, cost: Cost) -> tuple[int, int]:
    timeline = simulate(graph, schedule)
    return cost.recompute(timeline.counts), timeline.peak


def _refusal(
    refusals: list[BudgetError], portfolio: dict[str, Any], budget: int | None
) -> Exception:
    """Why no planner has a schedule: the least that any of them needs."""
    known = [error for error in refusals if error.smallest is not None]
    if not known:
        return UsageError(f"auto: no planner takes this graph: {portfolio}")
    best = min(known, key=lambda error: error.smallest or 0)
    return BudgetError(
        f"auto: no schedule within {format_bytes(budget or 0)} ({budget} bytes); the smallest that "
        f"any planner finds needs {format_bytes(best.smallest or 0)} ({best.smallest} bytes), "
        f"set by {best.instruction}",
        smallest=best.smallest,
        instruction=best.instruction,
    )
