"""Online eviction: which buffer each heuristic picks, the budget's promise, and the pace."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt.errors import BudgetError, UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.planners.base import registry as base
from ckpt.planners.base.cost import flops
from ckpt.planners.online.heuristics import (
    HEURISTICS,
    Ancestors,
    Components,
    Neighbourhood,
    Sums,
)
from ckpt.planners.online.machine import BufferGraph
from ckpt.schedule import Compute, Free
from tests.graphs import Build, random_graph, unit_chain
from tests.planners.test_brute import small_dag

dtr = base.get("dtr")[0]
brute = base.get("brute")[0]


def chain(sizes: list[int], flops: list[int]) -> Graph:
    """Each node's Backward reads the node before it; cotangents take a byte each."""
    b = Build()
    x = b.resident(1, name="x")
    for size, cost in zip(sizes, flops, strict=True):
        x = b.op("f", x, nbytes=size, flops=cost, reads=[0])
    return b.graph(x)


def long_graph(length: int) -> Graph:
    """A chain of unequal bytes and costs with a skip over nine at every seventh node."""
    b = Build()
    b.resident(64, name="x")
    for i in range(1, length + 1):
        deps = (i - 1,) if i < 12 or i % 7 else (i - 1, i - 9)
        reads: list[int | str] = [0] if i % 4 else ["out"]
        b.op("f", *deps, nbytes=64 * (1 + i % 3), flops=100 + i % 50, reads=reads)
    return b.graph(length)


def first_evicted(graph: Graph, budget: int, heuristic: str) -> int:
    return next(s.node for s in dtr(graph, budget, heuristic=heuristic) if isinstance(s, Free))


@pytest.mark.parametrize(
    ("heuristic", "victim"),
    # Node 5 comes next, and reads 4; of 1, 2, 3 (bytes 4, 6, 5; FLOPs 2, 6, 50) one must go. Read
    # last by nodes 2, 3, 4, a FLOP more than each costs ago: 64, 58 and 7.
    # c / (m s): 2 / (4 64) = .008, 6 / (6 58) = .017, 50 / (5 7) = 1.4.
    [("dtr_local", 1), ("dtr", 1), ("dtr_eq", 1), ("msps", 1), ("lru", 1), ("size", 2)],
)
def test_the_first_victim_is_the_one_with_the_least_score(heuristic: str, victim: int) -> None:
    graph = chain([4, 6, 5, 1, 6, 1], [2, 6, 50, 6, 1, 1])
    assert first_evicted(graph, 20, heuristic) == victim


def test_the_heuristics_differ_where_their_terms_do() -> None:
    # Old and costly (1), large (2), young and cheap (3). c / (m s): 90 / (4 46), 40 / (8 5) and
    # 1 / (4 3) = .08, the least; c / m: 22, 5 and 1 / 4.
    graph = chain([4, 8, 4, 1, 6, 1], [90, 40, 1, 1, 1, 1])
    victims = {h: first_evicted(graph, 21, h) for h in ("lru", "size", "dtr_local", "msps")}
    assert victims == {"lru": 1, "size": 2, "dtr_local": 3, "msps": 3}


def test_evicted_neighbours_count_by_direction() -> None:
    # 0 - 1 - 2 - 3 - 4, a chain, and 5 read by 2 as well; costs are powers of two.
    cost, parents = [1, 2, 4, 8, 16, 32], [[], [0], [1, 5], [2], [3], []]
    exact, ancestors, classes = (
        kind(cost, parents) for kind in (Neighbourhood, Ancestors, Components)
    )
    for heuristic in (exact, ancestors, classes):
        heuristic.evict(1)
        heuristic.evict(2)
    assert [exact.numerator(b) for b in (0, 3, 5)] == [1 + 2 + 4, 8 + 4 + 2, 32 + 4]
    assert [ancestors.numerator(b) for b in (0, 3, 5)] == [1, 8 + 4 + 2, 32]
    # Undirected: 5 reaches 2, and through it 1, though neither 1 nor 5 is the other's ancestor.
    assert [classes.numerator(b) for b in (0, 3, 5)] == [1 + 6, 8 + 6, 32 + 6]


def test_a_buffer_that_returns_leaves_and_its_component_stays_whole() -> None:
    cost, parents = [1, 2, 4, 8, 16], [[], [0], [1], [2], [3]]
    exact, classes = Neighbourhood(cost, parents), Components(cost, parents)
    for heuristic in (exact, classes):
        for b in (1, 2, 3):
            heuristic.evict(b)
        heuristic.changed.clear()
        heuristic.restore(2)
    assert {0, 2, 4} <= exact.changed
    assert list(classes.numerators()[[0, 2, 4]]) == [classes.numerator(b) for b in (0, 2, 4)]
    assert exact.numerator(0) == 1 + 2
    assert classes.numerator(0) == 1 + 2 + 8  # the paper's phantom: 3 is still in the class
    assert classes.numerator(2) == 4 + (2 + 8)


@pytest.mark.parametrize("heuristic", HEURISTICS)
@pytest.mark.parametrize("seed", range(6))
def test_the_budget_is_a_promise(seed: int, heuristic: str) -> None:
    graph = small_dag(12, seed)
    ceiling = simulate(graph, dtr(graph, heuristic=heuristic)).peak
    met = 0
    for budget in range(1, ceiling + 1):
        try:
            timeline = simulate(graph, dtr(graph, budget, heuristic=heuristic))
        except BudgetError as error:
            smallest = error.smallest or 0
        else:
            met += 1
            smallest = timeline.peak
            assert smallest <= budget
            exact = simulate(graph, brute(graph, budget)).recompute_flops
            assert timeline.recompute_flops >= exact
        assert simulate(graph, dtr(graph, smallest, heuristic=heuristic)).peak <= smallest
    assert met > 1


def test_without_pressure_nothing_is_recomputed_and_what_is_read_no_more_is_dropped() -> None:
    graph = chain([4, 4, 4, 4], [1, 1, 1, 1])
    timeline = simulate(graph, dtr(graph))
    assert timeline.recomputations == 0
    assert dtr(graph).notes["evictions"] == 0
    # Node 3 is last read by backward 4, and then 3 bytes are three nodes' and a cotangent's.
    assert [s.activations for s in timeline if s.phase == "backward"] == [16, 12, 8, 4]


def test_one_boundary_evicted_on_a_chain_costs_that_much() -> None:
    graph = chain([4, 4, 4, 1], [3, 5, 7, 1])
    stored = simulate(graph, dtr(graph)).peak
    timeline = simulate(graph, dtr(graph, stored - 4, heuristic="dtr_local"))
    assert timeline.recompute_flops == 3
    assert [s.node for s in timeline.schedule if isinstance(s, Compute)] == [1, 2, 3, 4, 1]


def test_thrashing_is_reported() -> None:
    graph = chain([4] * 40, [10] * 40)
    with pytest.raises(BudgetError) as caught:
        dtr(graph, 1, heuristic="lru")
    schedule = dtr(graph, caught.value.smallest, heuristic="lru")
    timeline = simulate(graph, schedule)
    plain = graph.forward_flops + graph.backward_flops
    assert schedule.notes["slowdown"] == round(timeline.step_flops / plain, 4)
    assert schedule.notes["slowdown"] > 2
    assert schedule.notes["thrashing"] is True
    assert dtr(graph).notes["thrashing"] is False


def test_an_unknown_heuristic_is_named() -> None:
    with pytest.raises(UsageError, match=r"no heuristic 'fifo'; choose from dtr, dtr_eq"):
        dtr(chain([1], [1]), 10, heuristic="fifo")


def test_ten_thousand_nodes() -> None:
    graph = long_graph(10_000)
    stored = simulate(graph, dtr(graph)).peak
    schedule = dtr(graph, stored // 10)
    timeline = simulate(graph, schedule)
    assert timeline.peak <= stored // 10
    assert 0 < timeline.overhead < 2


class Afresh(Components):
    """The same components, every numerator summed anew before each eviction."""

    def numerators(self) -> Sums:
        return np.array([self.numerator(b) for b in range(len(self.cost))], np.int64)


@pytest.mark.parametrize("seed", range(30))
def test_sums_that_follow_each_change_are_the_sums(seed: int) -> None:
    graph = random_graph(random.Random(seed), 10 + 5 * seed)
    price = flops(graph)
    peak = simulate(graph, make_schedule(graph, "store_all")).peak
    for budget in (peak * 3 // 4, peak // 2):
        runs = [BufferGraph(graph, price, kind, 20_000)(budget) for kind in (Components, Afresh)]
        assert runs[0] == runs[1]


class Walked(Ancestors):
    """Ancestors, each time looked up anew, and all told that see a change."""

    def __init__(self, cost: Sequence[int], parents: Sequence[Sequence[int]]) -> None:
        super().__init__(cost, parents)
        self.walked = True


@pytest.mark.parametrize("seed", range(16))
def test_ancestors_as_bits_are_the_ancestors(seed: int) -> None:
    graph = random_graph(random.Random(seed), 10 + 5 * seed)
    peak = simulate(graph, make_schedule(graph, "store_all")).peak
    for budget in (peak * 3 // 4, peak // 2):
        kinds = Ancestors, Walked
        runs = [BufferGraph(graph, flops(graph), kind, 8_000)(budget) for kind in kinds]
        assert runs[0] == runs[1]


def test_a_run_that_costs_too_much_is_given_up() -> None:
    graph, budget = unit_chain(16), 9
    plan = make_schedule(graph, "dtr", budget)
    cost = flops(graph)
    spent = cost.forward(graph) + cost.recompute(simulate(graph, plan).counts)
    dtr = base.get("dtr")[0]
    assert dtr(graph, budget, max_cost=spent).instructions == plan.instructions
    assert spent > cost.forward(graph)
    with pytest.raises(BudgetError):
        dtr(graph, budget, max_cost=spent - 1, smallest=False)


def test_a_call_holds_its_results_until_they_are_claimed() -> None:
    """Of two results one is wanted again; the other's bytes are there as long as the call is."""
    program = ckpt.trace(_eigenvectors, np.diag(np.arange(6.0)) + 0.1)
    graph = program.graph
    run = BufferGraph(graph, flops(graph), HEURISTICS["dtr_eq"], 10_000)
    ceiling = ckpt.simulate(graph, ckpt.make_schedule(graph, "store_all")).peak
    met = [(b, run(b)) for b in range(ceiling // 4, ceiling, 8)]
    assert any(found is None for _, found in met)
    for budget, found in met:
        if found is not None:
            assert ckpt.simulate(graph, ckpt.Schedule(tuple(found))).peak <= budget


def _eigenvectors(x: Any) -> Any:
    for _ in range(3):
        values, vectors = np.linalg.eigh(x + x.T)
        x = np.sin(vectors * np.tanh(values)) @ vectors
    return np.sum(x)


def test_msps_knows_buffers_that_need_each_other() -> None:
    """A view of 0 reads 1, which reads 0: walked, and not for ever."""
    score = Ancestors([3, 5, 7], [[1], [0], [0]])
    for buffer in (0, 1):
        score.evict(buffer)
    assert score.numerator(2) == 7 + 3 + 5
