"""The chain planner on graphs: within its budget, monotone, and with options worth having."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings

from ckpt.errors import BudgetError, UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.planners.base import registry as base
from ckpt.planners.base.clock import Deadline, StoppedError
from ckpt.planners.base.cost import flops
from ckpt.planners.chain.chain import frontier, least_peak
from ckpt.planners.chain.cuts import Cutter, cuts_of
from ckpt.planners.chain.plans import Tables
from ckpt.schedule import Backward, Compute
from ckpt.timeline import Timeline
from tests.graphs import ZOO, Build, graphs, lstm, mlp, random_graph, unit_chain

chain = base.get("chain")[0]
CUTTABLE = [name for name in ZOO if name != "single"]


def gpt(
    layers: int, tokens: int = 256, width: int = 128, heads: int = 4, vocab: int = 500
) -> Graph:
    """A transformer by hand, float32: norm, qkv, scores, softmax, mix, projection, skip; norm,
    matmul, gelu, matmul, skip."""
    b = Build()
    T, D = tokens, width
    stream, scores = 4 * T * D, 4 * heads * T * T

    def weight(*shape: int) -> int:
        rows, columns = (*shape, 1)[:2]
        return b.resident(4 * rows * columns)

    x = b.op("embed", weight(vocab, D), nbytes=stream, flops=T * D)
    for _ in range(layers):
        h = b.op("norm", x, nbytes=stream, flops=8 * T * D, reads=[0], backward_work=stream)
        qkv = b.op(
            "matmul", h, weight(D, 3 * D), nbytes=3 * stream, flops=6 * T * D * D, reads=[0, 1]
        )
        q, k, v = (b.op("item", qkv, nbytes=stream, view=True, kinds="part") for _ in range(3))
        s = b.op("matmul", q, k, nbytes=scores, flops=2 * T * T * D, reads=[0, 1])
        p = b.op(
            "softmax", s, nbytes=scores, flops=5 * scores // 4, reads=["out"], backward_work=scores
        )
        o = b.op("matmul", p, v, nbytes=stream, flops=2 * T * T * D, reads=[0, 1])
        y = b.op("matmul", o, weight(D, D), nbytes=stream, flops=2 * T * D * D, reads=[0, 1])
        x = b.op("add", x, y, nbytes=stream, flops=T * D, kinds="handed")
        h = b.op("norm", x, nbytes=stream, flops=8 * T * D, reads=[0], backward_work=stream)
        h = b.op(
            "matmul", h, weight(D, 4 * D), nbytes=4 * stream, flops=8 * T * D * D, reads=[0, 1]
        )
        h = b.op("add", h, weight(4 * D), nbytes=4 * stream, flops=4 * T * D, kinds="handed")
        g = b.op(
            "gelu", h, nbytes=4 * stream, flops=40 * T * D, reads=[0], backward_work=4 * stream
        )
        y = b.op("matmul", g, weight(4 * D, D), nbytes=stream, flops=8 * T * D * D, reads=[0, 1])
        x = b.op("add", x, y, nbytes=stream, flops=T * D, kinds="handed")
    h = b.op("norm", x, nbytes=stream, flops=8 * T * D, reads=[0], backward_work=stream)
    logits = b.op(
        "matmul", h, weight(D, vocab), nbytes=4 * T * vocab, flops=2 * T * D * vocab, reads=[0, 1]
    )
    loss = b.op("cross_entropy", logits, nbytes=4, flops=5 * T * vocab, reads=[0])
    return b.graph(loss, name=f"gpt {layers}")


def store_all_peak(graph: Graph) -> int:
    return simulate(graph, make_schedule(graph, "store_all")).peak


def planned(graph: Graph, budget: int | None, **options: object) -> Timeline:
    schedule = chain(graph, budget, **options)
    timeline = simulate(graph, schedule)
    assert budget is None or timeline.peak <= budget
    return timeline


def check_promises(graph: Graph, budgets: int, **options: object) -> None:
    """Within each budget, or a BudgetError that names one that is met; more never costs more."""
    with pytest.raises(BudgetError) as failure:
        chain(graph, 0, **options)
    floor, peak = failure.value.smallest, store_all_peak(graph)
    assert failure.value.instruction
    assert floor is not None
    with pytest.raises(BudgetError):
        chain(graph, floor - 1, **options)
    costs = [
        planned(graph, budget, **options).recompute_flops
        for budget in [*range(floor, peak, max((peak - floor) // budgets, 1)), peak]
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] == 0


@pytest.mark.parametrize("name", CUTTABLE)
@pytest.mark.parametrize("options", [{}, {"options": False}, {"slots": 25}, {"max_stages": 4}])
def test_keeps_its_promises_on_every_graph(name: str, options: dict[str, int]) -> None:
    check_promises(ZOO[name](), budgets=30, **options)


@settings(max_examples=40, deadline=None)
@given(graphs(16))
def test_keeps_its_promises_on_random_graphs(graph: Graph) -> None:
    try:
        chain(graph)
    except UsageError:
        return  # fewer than two stages
    check_promises(graph, budgets=8)
    check_promises(graph, budgets=8, slots=20)


@pytest.mark.parametrize("name", CUTTABLE)
def test_no_plan_needs_more_than_its_table_says(name: str) -> None:
    """Even before anything is simulated: bytes and FLOPs of the table are upper bounds."""
    graph = ZOO[name]()
    for slots in (20, 500):
        for stage_options in (True, False):
            plans = Tables(graph, flops(graph), slots, stage_options, None).finished()
            for one in plans.chains:
                for point in one.points:
                    timeline = plans.timeline(point)
                    assert timeline.peak <= point.nbytes
                    assert timeline.recompute_flops <= point.cost * 1.000001


def test_model_is_exact_where_one_value_crosses() -> None:
    """On a plain chain the table's bytes and FLOPs are those of the reference machine."""
    for graph in (unit_chain(12), mlp([6, 8, 8, 16, 8, 8, 4]), ZOO["residual_net"]()):
        plans = Tables(graph, flops(graph), 500, True, None).finished()
        for one in plans.chains[:1]:
            assert one.table.nbytes(1) < 65
            for point in one.points:
                timeline = plans.timeline(point)
                assert timeline.recompute_flops == point.cost
            assert timeline.peak == point.nbytes == store_all_peak(graph)


def test_unit_chain_by_hand() -> None:
    """12 unit stages; the loss is the last of them. Storing all takes 14 bytes: 12 values and two
    cotangents. Four bytes are the floor: a snapshot, what is computed from it, and so on."""
    graph = unit_chain(12)
    assert store_all_peak(graph) == 14
    assert planned(graph, 14).recompute_flops == 0
    assert planned(graph, 13).recompute_flops == 1
    with pytest.raises(BudgetError) as failure:
        chain(graph, 3)
    assert failure.value.smallest == 4
    # Revolve's totals with 4 - 3 = 1 snapshot beside the resident input: r n - C(s+r, r-1).
    counts = planned(graph, 4).counts
    assert sum(counts[1:]) == 12 + planned(graph, 4).recompute_flops


@pytest.mark.parametrize("percent", [25, 50])
def test_options_cut_recompute_on_a_gpt(percent: int) -> None:
    graph = gpt(12)
    budget = store_all_peak(graph) * percent // 100
    blocks = 26  # between attention and MLP, embedding and head apart
    with_options = planned(graph, budget, max_stages=blocks).overhead
    without = planned(graph, budget, options=False, max_stages=blocks).overhead
    assert with_options < {25: 0.85, 50: 0.4}[percent] * without
    # Left to itself it cuts in finer ways as well, which do some of the options' work.
    best = planned(graph, budget).overhead
    assert best <= with_options
    assert best <= planned(graph, budget, options=False).overhead


def test_options_keep_the_matmuls() -> None:
    """With a little less than everything, what goes is elementwise: never a matrix product."""
    graph = gpt(8)
    timeline = planned(graph, store_all_peak(graph) * 80 // 100)
    again = {graph[i].op for i, count in enumerate(timeline.counts) if count > 1}
    assert again
    assert "matmul" not in again
    assert timeline.overhead < 0.02


def test_a_deep_gpt() -> None:
    graph = gpt(48)
    budget = store_all_peak(graph) // 4
    timeline = planned(graph, budget)
    assert timeline.overhead < 0.5
    assert timeline.peak > 0.95 * budget  # what it was given it uses


def test_frontier_is_what_chain_delivers() -> None:
    for graph in (mlp([8] * 20), lstm(6), gpt(6)):
        steps = frontier(graph)
        assert len(steps) > 5
        for before, after in pairwise(steps):
            assert before.budget < after.budget
            assert before.recompute_cost > after.recompute_cost
        for step in steps[:: 1 + len(steps) // 9]:
            cost = planned(graph, step.budget).recompute_flops
            assert cost <= step.recompute_cost * 1.000001
        assert steps[-1].recompute_cost == 0


def test_least_peak_for_a_recompute_is_the_frontier_read_the_other_way() -> None:
    for name in CUTTABLE:
        graph = ZOO[name]()
        steps = frontier(graph)
        for step in steps[:: 1 + len(steps) // 5]:
            found = simulate(graph, least_peak(graph, step.recompute_cost))
            assert found.recompute_flops <= step.recompute_cost
            assert found.peak <= step.budget
        assert simulate(graph, least_peak(graph, 0)).recompute_flops == 0


def test_schedule_says_what_it_is() -> None:
    graph = mlp([8] * 10)
    schedule = chain(graph, store_all_peak(graph) * 9 // 10, slots=300)
    assert schedule.planner == "chain"
    assert schedule.graph == graph.digest
    assert schedule.notes["optimal"] == "among persistent schedules for these stages and options"
    assert schedule.notes["stages"] == len(schedule.notes["cuts"]) - 1
    assert schedule.notes["slots"] > 0
    assert schedule.notes["slot_nbytes"] > 0
    assert schedule.notes["options"] >= schedule.notes["kinds"]
    assert chain(graph, 10**9).instructions == chain(graph).instructions


def test_same_plan_twice() -> None:
    graph = random_graph(Random(23), 22)
    budget = store_all_peak(graph) * 9 // 10
    again = random_graph(Random(23), 22)
    assert chain(graph, budget) == Tables(again, flops(again), None, True, None).finished().within(
        budget
    )


def test_nothing_idle() -> None:
    """Every Compute is read before the value is computed again, or is an output."""
    for name in CUTTABLE:
        graph = ZOO[name]()
        for step in frontier(graph)[:3]:
            read = set(graph.outputs)
            for instruction in reversed(chain(graph, step.budget).instructions):
                if isinstance(instruction, Backward):
                    read.update(graph.steps[instruction.step].reads)
                elif isinstance(instruction, Compute):
                    # A captured array is made where the program made it, read or not.
                    assert instruction.node in read or graph[instruction.node].captured
                    read.discard(instruction.node)
                    read.update(graph[instruction.node].deps)


def test_refuses_what_has_no_cut() -> None:
    with pytest.raises(UsageError, match="nothing to cut"):
        chain(ZOO["single"]())


@pytest.mark.slow
def test_a_hundred_and_fifty_equal_layers_cost_no_larger_a_share_than_thirty() -> None:
    few, many = gpt(30), gpt(150)
    for percent in (10, 25, 50):
        shares = []
        for graph in (few, many):
            timeline = planned(graph, percent * store_all_peak(graph) // 100)
            shares.append(timeline.overhead)
        assert shares[1] < shares[0] + 0.002
        assert planned(many, timeline.peak).schedule.notes["runs"] < 60


def test_states_of_generators_are_within_the_budget() -> None:
    """The table doesn't know them: from the smallest budget that is named, every one has a plan."""
    plain = mlp([*range(40, 8, -1)])
    draws = (
        replace(node, state_nbytes=500 if i % 10 == 3 and not node.resident else 0)
        for i, node in enumerate(plain)
    )
    graph = replace(plain, nodes=tuple(draws))
    with pytest.raises(BudgetError) as error:
        chain(graph, 1)
    least, top = error.value.smallest or 0, simulate(graph, chain(graph)).peak
    assert least <= top
    for budget in range(least, top + 1, 1 + (top - least) // 10):
        assert simulate(graph, chain(graph, budget)).peak <= budget


def test_where_it_cuts_a_graph_it_heeds_the_clock() -> None:
    graph = mlp([32] * 40)
    deadline = Deadline(0)
    with deadline.running(), pytest.raises(StoppedError):
        cuts_of(Cutter(graph, flops(graph), None), None, None)


def test_what_the_clock_stopped_is_gone_on_with() -> None:
    graph = gpt(6)
    with Deadline().running() as deadline:
        whole = Tables(graph, flops(graph), None, True, None).finished()
    plans = Tables(graph, flops(graph), None, True, None)
    with Deadline(work=deadline.spent * 2 // 3).running(), pytest.raises(StoppedError):
        plans.finished()
    made = list(plans.chains)
    assert 0 < len(made) < len(whole.chains)
    assert all(one is other for one, other in zip(made, plans.finished().chains, strict=False))
    budget = simulate(graph, whole.within(None)).peak // 2
    assert plans.within(budget) == whole.within(budget)
