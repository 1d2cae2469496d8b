"""Chen's greedy: the cheapest threshold within the budget."""

from __future__ import annotations

from importlib import import_module

import pytest

from ckpt.errors import BudgetError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.planners.base.clock import Deadline
from ckpt.schedule import Schedule
from ckpt.timeline import Timeline
from tests.graphs import uneven_chain


def test_snapshots_follow_bytes_not_counts() -> None:
    graph = uneven_chain([40, 2, 2, 2, 2, 40, 2, 2, 2, 2, 2, 2], [10] * 12)
    timeline = simulate(graph, make_schedule(graph, "greedy", 100))
    # kept: 2, right behind the large value 1, and all from the second large one on
    assert list(timeline.counts) == [0, 2, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1]
    assert timeline.peak == 93


def test_a_smaller_budget_never_costs_less() -> None:
    graph = uneven_chain([10] * 30, list(range(1, 31)))
    costs = []
    for budget in range(330, 0, -10):
        try:
            timeline = simulate(graph, make_schedule(graph, "greedy", budget))
        except BudgetError:
            break
        assert timeline.peak <= budget
        costs.append(timeline.recompute_flops)
    assert len(costs) > 15
    assert costs == sorted(costs)


@pytest.mark.parametrize("n", [25, 64])
def test_it_reaches_the_square_root(n: int) -> None:
    graph = uneven_chain([10] * n, [1] * n)
    sqrt = simulate(graph, make_schedule(graph, "sqrt"))
    greedy = simulate(graph, make_schedule(graph, "greedy", sqrt.peak + 20))
    assert greedy.peak <= sqrt.peak + 20
    assert greedy.recompute_flops <= n


def test_another_budget_simulates_nothing_again_and_counts_as_much(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = import_module("ckpt.planners.simple.greedy")
    tried: list[Schedule] = []

    def counted(graph: Graph, schedule: Schedule) -> Timeline:
        tried.append(schedule)
        return simulate(graph, schedule)

    monkeypatch.setattr(module, "simulate", counted)
    graph = uneven_chain([10] * 31, list(range(2, 33)))
    work, made = [], []
    for budget in (300, 200):
        tried.clear()
        with Deadline().running() as deadline:
            module.greedy(graph, budget)
        work.append(deadline.spent)
        made.append(len(tried))
    assert made[0] > 10
    assert made[1] == 1
    assert work[0] == pytest.approx(work[1], rel=0.1)
