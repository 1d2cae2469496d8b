"""The linear program over pairs of moments: a bound whatever the duals, and a good one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from ckpt.errors import BudgetError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base import registry
from ckpt.planners.base.cost import Cost, flops, moved
from ckpt.planners.bounds import first_order, highs, reduced
from ckpt.planners.bounds.boxes import BoxProgram, Solved
from ckpt.planners.bounds.branches import Tree
from ckpt.planners.bounds.certificate import certify
from ckpt.planners.bounds.floor import budget_floor
from ckpt.planners.bounds.lower import lower_bounds
from ckpt.planners.bounds.moments import BUILT_IN, EARLY, HIGHS, SAME, MomentSearch, pair_bound
from ckpt.planners.bounds.pairs import Pairs
from ckpt.planners.bounds.reduced import Reduced
from ckpt.planners.bounds.simple import memory_floor
from tests.graphs import chain, lstm, mlp, random_graph, residual_net, unit_chain, zoo
from tests.planners.test_brute import dag_with_call, overwriting, small_dag
from tests.test_waist import wild_graph

brute = registry.get("brute")[0]


def small(seed: int) -> Graph:
    """A random graph of every kind that the machine knows and brute force takes."""
    rng = Random(seed)
    match seed % 5:
        case 0:
            graph = wild_graph(rng)
            nodes = (replace(node, state_nbytes=0, workspace_again=0) for node in graph)
            return replace(graph, nodes=tuple(nodes))
        case 1:
            return overwriting(small_dag(rng.randint(5, 9), seed), seed)
        case 2:
            return overwriting(dag_with_call(seed), seed)
        case 3:
            return random_graph(rng, rng.randint(4, 8))
        case _:
            return overwriting(random_graph(rng, rng.randint(4, 8)), seed)


def optimum(graph: Graph, budget: int, cost: Cost) -> int | None:
    try:
        return cost.recompute(simulate(graph, brute(graph, budget, cost)).counts)
    except BudgetError:
        return None


def least_peak(graph: Graph) -> int:
    try:
        return simulate(graph, brute(graph, 1)).peak
    except BudgetError as error:
        return error.smallest or 0


def budgets(graph: Graph) -> Iterator[int]:
    """Four: below the least, the least, and two above it."""
    low, top = least_peak(graph), simulate(graph, brute(graph)).peak
    yield from sorted({low - 1, low, (3 * low + top) // 4, (low + top) // 2} - {-1, 0})


def branched(pairs: Pairs, root: Solved, most: int) -> int | None:
    """What so many programs of the tree prove."""
    left = iter(range(most))

    def solve(program: BoxProgram) -> Solved | None:
        solved = highs.solve(program, 10_000)
        return None if next(left, None) is None or solved.duals is None else solved

    return Tree(pairs, root, solve, lambda bound: True).run()


def check(seed: int) -> int:
    """Every program of a growing set of moments against the optimum; how many were solved."""
    graph = small(seed)
    if not graph.steps or not graph.computed or len(graph.computed) > 14:
        return 0
    floor = budget_floor(graph).nbytes
    assert memory_floor(graph).nbytes <= floor <= least_peak(graph)
    solved = 0
    rng = Random(seed)
    cost = rng.choice([flops(graph), moved(graph)]) if seed % 3 == 0 else flops(graph)
    for budget in budgets(graph):
        best = optimum(graph, budget, cost)
        found = Reduced(graph, budget, cost)
        chosen = rng.sample(range(len(graph.steps)), min(len(graph.steps), 4))
        before = 0
        for k in range(1, len(chosen) + 1):
            moments = [found.moment(q) for q in sorted(chosen[:k])]
            if min(moment.room for moment in moments) < 0:
                assert best is None
                break
            pairs = Pairs(found, moments)
            root = highs.solve(pairs.program, 10_000)
            duals = root.duals
            if duals is None:
                continue
            solved += 1
            if pairs.refuted(duals):
                assert best is None
                break
            proven = pairs.recompute(duals)
            assert best is None or proven <= best, (seed, budget, chosen[:k])
            # To within what the solver tolerates.
            assert proven >= before - 1 - before // 1000, (seed, budget, chosen[:k])
            before = max(before, proven)
            noise = np.random.default_rng(seed).lognormal(0, 1, len(duals))  # any duals at all
            assert best is None or pairs.recompute(duals * noise) <= best
            if k == len(chosen):
                halved = branched(pairs, root, 12)
                assert best is None or (halved is not None and proven <= halved <= best), seed
            if k == len(chosen) and best is not None:  # and any items taken for one
                alike = np.array([rng.randrange(4) for _ in found.nodes])
                pairs.program = pairs.program.folded(alike)
                root = highs.solve(pairs.program, 10_000)
                if root.duals is not None:
                    halved = branched(pairs, root, 6)
                    assert pairs.recompute(root.duals) <= best, seed
                    assert halved is not None and halved <= best, seed
    return solved


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_never_above_the_optimum(first: int) -> None:
    assert sum(check(seed) for seed in range(first, first + 50)) > 100


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 11_000, 500))
def test_never_above_the_optimum_of_ten_thousand_graphs(first: int) -> None:
    assert sum(check(seed) for seed in range(first, first + 500)) > 1000


def test_tiny_buffers_are_left_out_and_what_is_left_is_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reduced, "TINY", 4)
    graph = small_dag(9, 3)
    assert len(Reduced(graph, 30, flops(graph))) < len(graph.computed)
    assert sum(check(seed) for seed in range(40)) > 50


@pytest.mark.parametrize("make", [lambda: mlp([8] * 7), lambda: lstm(3), lambda: residual_net(4)])
def test_the_built_in_solver_proves_nearly_what_highs_does(make: Callable[[], Graph]) -> None:
    graph = make()
    cost = flops(graph)
    budget = int(simulate(graph, registry.get("store_all")[0](graph)).peak * 0.6)
    found = Reduced(graph, budget, cost)
    steps = len(graph.steps)
    moments = [found.moment(q) for q in range(0, steps, max(1, steps // 3))]
    pairs = Pairs(found, moments)
    exact = pairs.recompute(highs.solve(pairs.program, 10_000).duals)
    built_in = pairs.recompute(first_order.solve(pairs.program, 3_000).duals)
    assert 0 < 0.98 * exact <= built_in <= exact * 1.0001 + 1


@pytest.mark.parametrize("solver", [HIGHS, BUILT_IN])
def test_whole_numbers_close_the_gap(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of equal stages no fraction can be computed."""
    graph = residual_net(8)
    cost = flops(graph)
    budget = int(simulate(graph, registry.get("store_all")[0](graph)).peak * 0.6)
    best = cost.recompute(simulate(graph, registry.get("auto")[0](graph, budget)).counts)

    def proven() -> int:
        search = MomentSearch(Reduced(graph, budget, cost), 4 * 10**8, 0, best, solver)
        search.run()
        return search.best

    assert proven() == best
    monkeypatch.setattr(MomentSearch, "_branch", lambda *_: None)
    assert proven() < best


def test_equal_layers_made_one_prove_nearly_as_much_in_a_tenth_of_the_size() -> None:
    graph = residual_net(200)
    cost = flops(graph)
    budget = int(simulate(graph, registry.get("store_all")[0](graph)).peak * 0.5)
    found = Reduced(graph, budget, cost)
    whole = Pairs(found, [found.moment(q) for q in (1, 4)])
    size, proven = (
        len(whole.program.entries[0]),
        whole.recompute(highs.solve(whole.program, 100_000).duals),
    )
    assert whole.fold()
    assert len(whole.program.entries[0]) < size / 10
    folded = whole.recompute(highs.solve(whole.program, 100_000).duals)
    assert 0 < 0.95 * proven < folded <= proven


def test_the_search_in_a_deep_net_takes_equal_layers_for_one() -> None:
    """The effort for a thousand layers is hardly more than for a hundred."""
    spent = []
    for depth in (100, 400):
        graph = residual_net(depth)
        budget = int(simulate(graph, registry.get("store_all")[0](graph)).peak * 0.5)
        search = MomentSearch(Reduced(graph, budget, flops(graph)), 10**9, 0, None, HIGHS)
        search.run()
        spent.append(10**9 - search.effort)
        assert search.best > 0
    assert spent[1] < 2 * spent[0]


def test_more_effort_never_proves_less() -> None:
    graph = residual_net(4)
    budget = int(simulate(graph, registry.get("store_all")[0](graph)).peak * 0.5)
    for solver, scale in ((HIGHS, 1), (BUILT_IN, 50)):
        proven = []
        for effort in (3_000, 30_000, 300_000, 3_000_000):
            bound = pair_bound(graph, budget, flops(graph), effort=effort * scale, solver=solver)
            proven.append(0 if bound is None else bound.cost or 0)
        assert proven == sorted(proven)
        assert proven[-1] > proven[0]


def test_without_scipy_the_built_in_solver_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual_net(4)
    budget = int(simulate(graph, registry.get("store_all")[0](graph)).peak * 0.6)
    known = lower_bounds(graph, budget)[0]
    assert known.solver == HIGHS
    monkeypatch.setitem(sys.modules, "scipy", None)
    found = lower_bounds(graph, budget)[0]
    assert found.solver == BUILT_IN
    assert 0 < 0.95 * (known.cost or 0) <= (found.cost or 0)
    plan = registry.get("chain")[0](graph, budget)
    assert "HiGHS, in the extra ckpt-profiler[ilp]" in str(certify(graph, plan, budget))


def test_no_program_where_nothing_is_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError

    graph = chain(6)
    plan = registry.get("store_all")[0](graph)
    monkeypatch.setattr("ckpt.planners.bounds.lower.pair_bound", never)
    found = certify(graph, plan)
    assert found.optimal
    assert found.verdict == "Nothing is recomputed."
    with pytest.raises(AssertionError):
        certify(graph, registry.get("recompute_all")[0](graph), found.peak)


def test_what_nothing_fits_is_refuted() -> None:
    graph = unit_chain(8)
    for solver in (HIGHS, BUILT_IN):
        bound = pair_bound(graph, 2, flops(graph), effort=10**7, solver=solver)
        assert bound is not None
        assert bound.cost is None


@pytest.mark.parametrize("name", sorted(zoo()))
def test_a_bound_for_every_graph_of_the_zoo(name: str) -> None:
    """Below what any planner finds, and near it for nets of layers."""
    graph = zoo()[name]
    top = simulate(graph, registry.get("store_all")[0](graph)).peak
    for share in (0.5, 0.75):
        budget = int(share * top)
        try:
            plan = registry.get("auto")[0](graph, budget, iterations=20)
        except BudgetError:
            continue
        found = certify(graph, plan, budget, effort=20_000_000)
        assert (found.bound.cost or 0) <= found.recompute
        assert found.floor <= found.peak


def test_the_floor_knows_what_must_be_carried_or_made() -> None:
    """Some graphs need more between two steps than any one instruction does."""
    gains = 0
    for seed in range(60):
        graph = small(seed)
        if graph.steps and graph.computed:
            gains += budget_floor(graph).nbytes > memory_floor(graph).nbytes
    assert gains > 2


@pytest.mark.parametrize("graph", [residual_net(120), lstm(120), mlp([32] * 160)], ids=len)
def test_where_layers_are_equal_several_of_their_steps_are_moments(graph: Graph) -> None:
    reduced = Reduced(graph, 10**5, flops(graph))
    search = MomentSearch(reduced, 0, 0, None, BUILT_IN)
    early = search._stretches(search._first())[0]
    rooms = [reduced.rooms[q] for q in early]
    assert len(early) == EARLY
    assert rooms[:SAME] == [min(rooms)] * SAME
    assert len(set(rooms)) > 1
