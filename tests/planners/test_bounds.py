"""Lower bounds: never above the optimum that brute force finds, and equal to it where they should
be."""

from __future__ import annotations

from random import Random

import pytest

from ckpt.errors import BudgetError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base import registry as base
from ckpt.planners.base.clock import Deadline
from ckpt.planners.base.cost import flops
from ckpt.planners.bounds import simple
from ckpt.planners.bounds.floor import budget_floor
from ckpt.planners.bounds.lower import lower_bounds
from ckpt.planners.bounds.simple import Bound, advances, memory_floor
from tests.graphs import (
    Build,
    mlp,
    random_graph,
    residual_net,
    unet,
    uneven_chain,
    unit_chain,
    views,
)

brute = base.get("brute")[0]


def knapsack_bound(graph: Graph, budget: int) -> Bound:
    return simple.knapsack_bound(graph, budget, flops(graph))


def chain_bound(graph: Graph, budget: int) -> Bound | None:
    return simple.chain_bound(graph, budget, flops(graph))


def optimum(graph: Graph, budget: int) -> int | None:
    try:
        return simulate(graph, brute(graph, budget)).recompute_flops
    except BudgetError:
        return None


def least_peak(graph: Graph) -> int:
    try:
        return simulate(graph, brute(graph, 1)).peak
    except BudgetError as error:
        return error.smallest or 0


SMALL = [
    *(random_graph(Random(seed), 7) for seed in range(30)),
    *(
        uneven_chain([rng.randint(1, 9) for _ in range(6)], [rng.randint(0, 9) for _ in range(6)])
        for rng in map(Random, range(10))
    ),
    unit_chain(8),
    residual_net(2),
    views(3),
    mlp([3, 4, 2, 3]),
]


@pytest.mark.parametrize("graph", SMALL, ids=lambda g: g.name)
def test_no_bound_exceeds_the_optimum(graph: Graph) -> None:
    low = least_peak(graph)
    top = simulate(graph, brute(graph)).peak
    assert memory_floor(graph).nbytes <= low
    for budget in {low - 1, *range(low, top + 1, max(1, (top - low) // 4))} - {0}:
        best = optimum(graph, budget)
        for bound in lower_bounds(graph, budget):
            if best is not None:
                assert bound.cost is not None, bound
                assert bound.cost <= best, (bound, budget)


def test_they_are_not_idle() -> None:
    """Over many small graphs and budgets the best bound reaches most of the optimum."""
    shares, exact = [], 0
    for graph in SMALL:
        low = least_peak(graph)
        top = simulate(graph, brute(graph)).peak
        for budget in range(low, top, max(1, (top - low) // 4)):
            best = optimum(graph, budget)
            if best:
                bound = lower_bounds(graph, budget)[0].cost or 0
                shares.append(bound / best)
                exact += bound == best
    assert len(shares) > 50
    assert sum(shares) / len(shares) > 0.5
    assert exact >= len(shares) // 4


def test_a_budget_that_nothing_meets_is_refuted() -> None:
    graph = unit_chain(8)
    assert least_peak(graph) == 4  # the output, what a step reads, and its two cotangents
    assert knapsack_bound(graph, 2).cost is None
    assert lower_bounds(graph, 2)[0].cost is None


def test_the_floor_names_what_sets_it() -> None:
    floor = memory_floor(mlp([4, 4, 64, 4]))
    assert floor.nbytes == least_peak(mlp([4, 4, 64, 4]))
    assert "tanh" in floor.instruction


def test_the_floor_counts_captured_arrays_that_are_read_again() -> None:
    b = Build()
    mask = b.captured(100)
    x = b.op("scale", b.resident(4), mask, nbytes=4, reads=[1], kinds=["fresh", None])
    x = b.op("wide", x, nbytes=4, reads=[0], backward_work=50)
    x = b.op("scale", x, mask, nbytes=4, reads=[1], kinds=["fresh", None])
    graph = b.graph(b.op("sum", x, nbytes=0, kinds="view"))
    # The middle Backward: the mask, its residual, two cotangents, its workspace.
    assert memory_floor(graph).nbytes == 100 + 4 + 4 + 4 + 50


def test_the_knapsack_by_hand() -> None:
    """Values a (10 bytes, 100 FLOPs), b (10, 30), c (5, 20); the loss reads c."""
    b = Build()
    x = b.op("a", b.resident(1), nbytes=10, flops=100, reads=["out"])
    x = b.op("b", x, nbytes=10, flops=30, reads=["out"], kinds="handed")
    x = b.op("c", x, nbytes=5, flops=20, reads=["out"], kinds="handed")
    graph = b.graph(b.op("loss", x, nbytes=0, flops=1, reads=[0]))
    # During the loss's Backward: c, its cotangent of 5, and 14 bytes for a and four tenths of b.
    assert knapsack_bound(graph, 24).cost == 100 + 30 - (100 + 12)
    assert knapsack_bound(graph, 30).cost == 0
    # During b's: b, the same cotangent, and no room for a.
    assert knapsack_bound(graph, 15).cost == 100


def test_the_closed_form_is_revolves() -> None:
    totals: dict[tuple[int, int], int] = {}
    for slots in range(1, 8):
        for steps in range(1, 40):
            if steps == 1:
                totals[steps, slots] = 0
            elif slots == 1:
                totals[steps, slots] = steps * (steps - 1) // 2
            else:
                totals[steps, slots] = min(
                    k + totals[k, slots] + totals[steps - k, slots - 1] for k in range(1, steps)
                )
            assert advances(slots, steps) == totals[steps, slots]


def test_the_chain_bound_sees_what_is_recomputed_twice() -> None:
    graph = unit_chain(60)
    chain, knapsack = chain_bound(graph, 8), knapsack_bound(graph, 8)
    assert chain is not None
    assert chain.cost is not None
    # Six values fit beside two cotangents; x59, ..., x1 are read in turn.
    assert chain.cost == advances(6, 59 + 1) - 59
    assert chain.cost > 1.5 * (knapsack.cost or 0)


def test_what_is_no_chain_has_no_chain_bound() -> None:
    assert chain_bound(unet(2), 10_000) is None
    assert chain_bound(residual_net(2), 10_000) is None
    assert chain_bound(mlp([3, 4, 2, 3]), 10_000) is not None


def test_once_the_time_is_over_less_is_proven_and_nothing_wrong() -> None:
    graph = unet(3)
    most = base.get("store_all")[0].simulated(graph).peak
    floor, bound = budget_floor(graph), lower_bounds(graph, most * 3 // 4)[0].cost or 0
    with Deadline(0).running():
        assert memory_floor(graph).nbytes <= budget_floor(graph).nbytes <= floor.nbytes
        (best, *_) = lower_bounds(graph, most * 3 // 4)
        assert 0 <= (best.cost or 0) <= bound
    assert bound > 0
