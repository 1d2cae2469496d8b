"""Equal blocks: where they are, the graph of fewer, and a plan for these as one for all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.planners.base.cost import flops
from ckpt.planners.bounds.lower import lower_bounds
from ckpt.planners.search import portfolio
from ckpt.planners.search.alike import improve_alike
from ckpt.planners.search.auto import auto
from ckpt.planners.search.lifted import lift
from ckpt.planners.search.shortened import Shortened
from ckpt.repeats import Repeats, find_repeats
from tests.graphs import Build, chain, lstm, mlp, unet
from tests.planners.test_chain import gpt

NETS: dict[str, Callable[[int], Graph]] = {
    "chain": chain,
    "gpt": gpt,
    "lstm": lstm,
    "mlp": lambda depth: mlp([64] * (depth + 1), 16),
}


def store_all_peak(graph: Graph) -> int:
    return simulate(graph, make_schedule(graph, "store_all")).peak


@pytest.mark.parametrize("name", NETS)
def test_a_net_of_equal_layers_repeats_a_block_a_layer(name: str) -> None:
    few, many = (find_repeats(NETS[name](depth)) for depth in (20, 60))
    assert few is not None
    assert many is not None
    assert (many.period, many.steps) == (few.period, few.steps)
    assert many.count == few.count + 40
    assert few.count >= 17


@pytest.mark.parametrize("name", NETS)
def test_blocks_hold_the_same_and_read_as_far_back(name: str) -> None:
    graph = NETS[name](20)
    found = find_repeats(graph)
    assert found is not None
    for b in range(1, found.count):
        for i, j in zip(found.nodes(b - 1), found.nodes(b), strict=True):
            one, other = graph[i], graph[j]
            assert (one.op, one.nbytes, one.flops) == (other.op, other.nbytes, other.flops)
            for d, e in zip(one.deps, other.deps, strict=True):
                assert e - d in (0, found.period) or graph[d].resident
        for p, q in zip(found.backwards(b - 1), found.backwards(b), strict=True):
            assert graph.steps[p].flops == graph.steps[q].flops
            assert graph.positions[p] - graph.positions[q] == -found.period


def test_one_value_of_another_size_ends_a_row_of_blocks() -> None:
    graph = mlp([64] * 41, 16)
    whole = find_repeats(graph)
    assert whole is not None
    odd = whole.nodes(10).start
    nodes = [replace(n, nbytes=n.nbytes + 8) if i == odd else n for i, n in enumerate(graph)]
    found = find_repeats(replace(graph, nodes=tuple(nodes)))
    assert found is not None
    assert odd < found.start
    assert found.count == whole.count - 11


def test_nothing_repeats_where_all_sizes_differ() -> None:
    b = Build()
    x = b.resident(8, name="x")
    for k in range(12):
        x = b.op("f", x, nbytes=10 + k, flops=5 + k, reads=[0])
    assert find_repeats(b.graph(x)) is None
    assert find_repeats(unet(4)) is None


@pytest.mark.parametrize("name", NETS)
def test_the_short_graph_is_that_of_a_shorter_net(name: str) -> None:
    make = NETS[name]
    whole = make(100)
    repeats = find_repeats(whole)
    assert repeats is not None
    short = Shortened(whole, repeats)
    assert 32 <= short.repeats.count < 56
    assert find_repeats(short.graph) == short.repeats
    like = make(100 - short.left_out)
    assert [s.during for s in short.graph.steps] == [s.during for s in like.steps]
    assert short.graph.between == like.between
    assert short.graph.forward_flops == like.forward_flops
    budget = store_all_peak(like) // 2
    for planner in ("store_all", "chain", "dtr:msps", "sqrt"):
        one, other = (
            simulate(graph, make_schedule(graph, planner, None if planner == "sqrt" else budget))
            if planner != "store_all"
            else simulate(graph, make_schedule(graph, planner))
            for graph in (short.graph, like)
        )
        assert (one.peak, one.recompute_flops) == (other.peak, other.recompute_flops)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("percent", [30, 40, 60])
def test_a_plan_for_few_blocks_is_one_for_all(name: str, percent: int) -> None:
    whole = NETS[name](100)
    repeats = find_repeats(whole)
    assert repeats is not None
    short = Shortened(whole, repeats)
    budget, cost = percent * store_all_peak(whole) // 100, flops(whole)
    plan = make_schedule(short.graph, "chain", short.budget(budget))
    lifted = lift(short, plan, budget, cost)
    assert lifted is not None
    better = improve_alike(whole, lifted.schedule, budget, repeats, cost)
    assert better is not None
    timeline = simulate(whole, better)
    assert timeline.peak <= budget
    assert timeline.overhead < simulate(short.graph, plan).overhead + 0.01
    assert sum(timeline.counts) <= 3 * len(whole.computed)


@pytest.mark.parametrize("name", ["mlp", pytest.param("gpt", marks=pytest.mark.slow)])
def test_auto_plans_a_deep_net_by_a_few_of_its_layers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portfolio, "LONG", 100)
    graph = NETS[name](100)
    budget = store_all_peak(graph) // 3
    schedule = auto(graph, budget)
    assert any("equal blocks" in row for row in schedule.notes["portfolio"])
    assert "dtr" not in schedule.notes["portfolio"]
    timeline = simulate(graph, schedule)
    assert timeline.peak <= budget
    bound = lower_bounds(graph, budget, known=timeline.recompute_flops)[0].cost or 0
    assert timeline.recompute_flops - bound <= graph.forward_flops / 200
    assert schedule == auto(graph, budget)


def test_blocks_and_their_steps_are_numbered_from_the_first() -> None:
    repeats = Repeats(start=10, period=3, count=4, step=5, steps=2, alike=5)
    assert [list(repeats.nodes(b)) for b in (0, 3)] == [[10, 11, 12], [19, 20, 21]]
    assert [list(repeats.backwards(b)) for b in (0, 3)] == [[11, 12], [5, 6]]
    assert [repeats.block(i) for i in (9, 10, 21, 22)] == [-1, 0, 3, 4]
    assert repeats.stop == 22
