"""Every planner, every graph, every budget: the promise of `ckpt.planners.base.registry`, kept."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from ckpt.errors import BudgetError, MissingExtraError, UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners import get, make_schedule, names
from ckpt.planners.base.registry import Planner
from ckpt.timeline import Timeline
from tests import graphs

SEARCHING = {"brute", "ilp", "lp_round", "auto"}
"""Planners that search: the whole zoo would take them minutes, so they get small graphs."""

SMALL = {
    "unit_chain": graphs.unit_chain(5),
    "uneven_chain": graphs.uneven_chain([8, 3, 12, 5], [5, 9, 2, 40]),
    "used_later": graphs.used_later(4),
    "views": graphs.views(1),
    "masked": graphs.masked(1),
    "several_losses": graphs.several_losses(2),
    "with_regions": graphs.with_regions(1),
    "random": graphs.random_graph(Random(22), 8),
    "single": graphs.single(),
}
LESS: dict[str, dict[str, Any]] = {"beam": {"work": 100_000, "iterations": 20}}
"""Options with which they promise the same and take less time."""

LARGE = graphs.zoo()
CASES = [
    (name, graph)
    for name in names()
    for graph in (SMALL if name in SEARCHING else LARGE)
]  # fmt: skip


def find(name: str) -> Planner:
    try:
        return get(name)[0]
    except MissingExtraError as error:
        pytest.skip(str(error))


def graph_of(name: str, graph: str) -> Graph:
    return (SMALL if name in SEARCHING else LARGE)[graph]


def plan(planner: Planner, graph: Graph, budget: int | None) -> Timeline:
    try:
        schedule = planner(graph, budget, **LESS.get(planner.name, {}))
    except MissingExtraError as error:
        pytest.skip(str(error))
    assert schedule.graph == graph.digest
    assert schedule.budget == budget
    return simulate(graph, schedule)


def attempt(planner: Planner, graph: Graph, budget: int) -> Timeline | BudgetError:
    try:
        return plan(planner, graph, budget)
    except BudgetError as error:
        return error


@pytest.mark.parametrize(("name", "graph_name"), CASES)
def test_promise(name: str, graph_name: str) -> None:
    planner, graph = find(name), graph_of(name, graph_name)
    store_all = simulate(graph, make_schedule(graph, "store_all"))
    try:
        free = plan(planner, graph, None)
    except UsageError:  # a chain planner where there is no chain, a search that would never end
        assert graph_name == "single" or name == "brute"
        return
    assert all(n <= 1 for n, node in zip(free.counts, graph, strict=True) if node.captured)
    assert not any(n for i, n in enumerate(free.counts) if i not in graph.needed)
    assert free.forward_flops == store_all.forward_flops

    costs = []
    for percent in (100, 75, 50, 25, 0):
        budget = max(1, store_all.peak * percent // 100)
        timeline = attempt(planner, graph, budget)
        if isinstance(timeline, BudgetError):
            smallest = timeline.smallest
            assert timeline.instruction
            assert smallest is not None
            assert smallest > budget
            assert plan(planner, graph, smallest).peak <= smallest
            break
        assert timeline.peak <= budget
        assert timeline.schedule.instructions == plan(planner, graph, budget).schedule.instructions
        costs.append(timeline.recompute_flops)
    if planner.monotone:
        assert costs == sorted(costs)


@pytest.mark.parametrize("name", ["store_all", "greedy", "mixed"])
@pytest.mark.parametrize("graph_name", LARGE)
def test_with_all_the_memory_nothing_is_recomputed(name: str, graph_name: str) -> None:
    graph = LARGE[graph_name]
    if graph_name == "single" and name != "store_all":
        with pytest.raises(UsageError, match="two stages"):
            make_schedule(graph, name)
        return
    timeline = simulate(graph, make_schedule(graph, name))
    assert timeline.recomputations == 0
    assert timeline.peak == simulate(graph, make_schedule(graph, "store_all")).peak


BUDGETS: list[Any] = ["2GiB", 10**9]


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", ["every:3", "revolve", "recompute_all"])
def test_a_budget_above_store_all_gives_store_all_and_says_so(name: str, budget: Any) -> None:
    graph = LARGE["mlp"]
    schedule = make_schedule(graph, name, budget)
    assert schedule.planner == "store_all"
    assert "exceeds" in schedule.notes["note"]
    assert schedule.notes["asked_for"] == name
    assert simulate(graph, schedule).recomputations == 0


def test_budgets_are_read_as_the_units_say() -> None:
    graph = LARGE["mlp"]
    peak = simulate(graph, make_schedule(graph, "store_all")).peak
    assert make_schedule(graph, "greedy", "90%").budget == peak * 90 // 100
    assert make_schedule(graph, "greedy", "1.2KiB").budget == 1228
    with pytest.raises(UsageError, match="has no unit"):
        make_schedule(graph, "greedy", "25")
    with pytest.raises(UsageError, match="more than store-all"):
        make_schedule(graph, "greedy", "125%")
