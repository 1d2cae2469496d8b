"""Two-phase rounding: always within the budget, near the relaxation on chains of unequal steps."""

from __future__ import annotations

from random import Random

import pytest

from ckpt.errors import BudgetError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base import registry as base
from tests.graphs import ZOO, mlp, random_graph, uneven_chain

lp_round = base.get("lp_round")[0]
brute = base.get("brute")[0]


def rough_chain(n: int) -> Graph:
    rng = Random(3)
    sizes = [rng.randint(1, 20) for _ in range(n - 1)]
    return uneven_chain([*sizes, 1], [rng.randint(1, 20) for _ in range(n)])


@pytest.mark.parametrize("name", [name for name in ZOO if name != "lstm"])
def test_within_the_budget_or_a_smallest_that_it_meets(name: str) -> None:
    graph = ZOO[name]()
    top = simulate(graph, lp_round(graph)).peak
    for share in (0.3, 0.6, 0.9):
        budget = max(1, int(top * share))
        try:
            plan = lp_round(graph, budget)
        except BudgetError as error:
            smallest = error.smallest or 0
            plan = lp_round(graph, smallest)
            refused, budget = budget, smallest
            assert refused < smallest == simulate(graph, plan).peak
        assert simulate(graph, plan).peak <= budget


@pytest.mark.parametrize("seed", range(8))
def test_never_better_than_brute_force(seed: int) -> None:
    graph = random_graph(Random(seed), 7)
    top = simulate(graph, lp_round(graph)).peak
    for budget in range(top // 2, top, max(1, top // 6)):
        try:
            timeline = simulate(graph, lp_round(graph, budget))
        except BudgetError:
            continue
        assert timeline.peak <= budget
        assert timeline.recompute_flops >= simulate(graph, brute(graph, budget)).recompute_flops


def test_close_to_its_bound_on_a_rough_chain() -> None:
    graph = rough_chain(40)
    budget = simulate(graph, lp_round(graph)).peak // 2
    plan = lp_round(graph, budget)
    timeline = simulate(graph, plan)
    assert timeline.peak <= budget
    assert plan.proof is not None
    assert 0 < plan.proof.bound <= timeline.recompute_flops
    assert timeline.recompute_flops <= 1.3 * plan.proof.bound


def test_deterministic() -> None:
    graph = mlp([4, 8, 8, 8, 8, 4])
    budget = simulate(graph, lp_round(graph)).peak * 9 // 10
    assert lp_round(graph, budget).instructions == lp_round(graph, budget).instructions


def test_the_clock_stops_it() -> None:
    graph = rough_chain(150)
    budget = simulate(graph, lp_round(graph)).peak // 2
    plan = lp_round(graph, budget, time_limit=0.5)
    assert plan.notes["status"] == "stopped by the clock at 0.5 s"
    assert simulate(graph, plan).peak <= budget


@pytest.mark.slow
def test_200_nodes() -> None:
    graph = rough_chain(100)
    budget = simulate(graph, lp_round(graph)).peak // 2
    plan = lp_round(graph, budget)
    assert plan.proof is not None
    assert simulate(graph, plan).recompute_flops <= 1.3 * plan.proof.bound
