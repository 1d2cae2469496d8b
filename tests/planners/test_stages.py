"""Where graphs are cut, what the stage operations become, and what they are said to cost."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt.errors import UsageError
from ckpt.graph import Graph
from ckpt.planners.base.stages import Stages, cut_at, find_stages
from ckpt.planners.chain.stage_costs import StageCosts
from ckpt.planners.revolve.stage_ops import ADVANCE, BACK, KEEP, TAPE, StageOp, emit, store_all_ops
from ckpt.simulate import simulate
from tests import graphs as zoo
from tests.graphs import ZOO, Build, graphs


def persistent_plan(stages: Stages, rng: Random) -> list[StageOp]:
    """A random nesting of snapshots and tapes, some of them partial."""
    ops: list[StageOp] = []
    waiting = [(0, len(stages) - 1)]
    while waiting:
        start, stop = waiting.pop()
        if start >= stop:
            ops.append(StageOp(BACK, start))
        elif rng.random() < 0.5:
            kept = tuple(i for i in stages[start].nodes if rng.random() < 0.5)
            ops.append(StageOp(TAPE, start, kept if rng.random() < 0.5 else None))
            waiting += [(start, start), (start + 1, stop)]
        else:
            middle = rng.randint(start + 1, stop)
            ops.append(StageOp(KEEP, start))
            ops += [StageOp(ADVANCE, k) for k in range(start + 1, middle)]
            waiting += [(start, middle - 1), (middle, stop)]
    return ops


def test_a_layer_of_an_mlp_is_one_stage() -> None:
    graph = zoo.mlp([16] * 11)
    stages = find_stages(graph)
    assert len(stages) == 10  # the mean, a cheap one, joins the last layer
    assert [graph[s.boundary[0]].op for s in stages.stages[1:]] == ["tanh"] * 9
    assert {s.boundary_nbytes for s in stages.stages[1:]} == {4 * 4 * 16}


def test_residual_blocks_are_cut_between() -> None:
    graph = zoo.residual_net(12)
    stages = find_stages(graph)
    assert all(len(s.boundary) == 1 for s in stages.stages[1:])
    assert all(graph[s.boundary[0]].op in ("add", "embed") for s in stages.stages[1:])


def test_an_lstm_is_cut_where_h_and_c_cross() -> None:
    graph = zoo.lstm(12)
    stages = find_stages(graph)
    assert max(len(s.boundary) for s in stages.stages) == 2
    assert len(stages) >= 12
    assert stages.boundary_nbytes == 2 * 16


def test_unit_chain_has_a_stage_a_step() -> None:
    assert len(find_stages(zoo.unit_chain(37))) == 37


def test_a_long_skip_is_in_every_boundary_that_it_passes() -> None:
    graph = zoo.used_later(12)
    stages = find_stages(graph)
    first = next(i for i, node in enumerate(graph) if node.op == "embed")
    assert all(first in s.boundary for s in stages.stages[1:-1])


def test_captured_arrays_and_outputs_are_in_no_boundary() -> None:
    for name in ("masked", "several_losses"):
        graph = ZOO[name]()
        stages = find_stages(graph)
        for stage in stages.stages:
            assert not set(stage.boundary) & stages.permanent


def test_max_stages_is_a_bound() -> None:
    graph = zoo.unit_chain(100)
    for most in (2, 3, 10, 99):
        stages = find_stages(graph, max_stages=most)
        assert most / 2 <= len(stages) <= most
        sizes = [len(s.nodes) for s in stages.stages]
        assert max(sizes) <= 3 * 100 / most


def test_a_graph_that_cannot_be_cut_is_refused_by_its_longest_crossing() -> None:
    b = Build()
    values = [b.op("first", b.resident(8))]
    for _ in range(5):
        values.append(b.op("all", *values, reads=[0]))
    with pytest.raises(UsageError, match=r"longest crossing is 1 .*'first1'"):
        find_stages(b.graph(values[-1]))
    with pytest.raises(UsageError, match="fewer than two stages"):
        find_stages(zoo.single())


@settings(max_examples=80, deadline=None)
@given(graphs(20), st.integers(0, 1000), st.data())
def test_every_persistent_plan_simulates(graph: Graph, seed: int, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(1, len(graph) - 1), unique=True, max_size=6))
    stages = cut_at(graph, cuts)
    timeline = simulate(graph, emit(stages, persistent_plan(stages, Random(seed))))
    assert all(n <= 1 for i, n in enumerate(timeline.counts) if i in stages.permanent)
    assert not any(n for i, n in enumerate(timeline.counts) if i not in graph.needed)
    assert simulate(graph, emit(stages, store_all_ops(stages))).recomputations == 0


@pytest.mark.parametrize("name", [n for n in ZOO if n != "single"])
def test_restarting_from_the_beginning_costs_what_the_stages_say(name: str) -> None:
    """Flops are exact, and so is the peak: only one stage is ever at work."""
    graph = ZOO[name]()
    stages = find_stages(graph)
    costs = StageCosts(stages)
    last = len(stages) - 1
    ops, flops, peak = [], 0, 0
    for t in range(last, -1, -1):
        for k in range(t):
            ops.append(StageOp(ADVANCE if k else KEEP, k))
            forward = costs.forward(k, first=t == last)
            flops += forward.flops
            beside = costs.made_before[k] if t == last else costs.alive_after[t]
            peak = max(peak, forward.advance_peak + beside + costs.cotangents[t + 1])
        ops.append(StageOp(BACK, t))
        back = costs.forward(t, first=t == last)
        flops += back.back_flops
        beside = costs.made_before[t] if t == last else costs.alive_after[t]
        peak = max(peak, back.release_peak + beside)
    timeline = simulate(graph, emit(stages, ops))
    assert timeline.peak <= peak
    assert timeline.peak >= 0.75 * peak
    assert timeline.forward_flops + timeline.recompute_flops == flops


def test_the_tape_of_a_stage_is_priced_by_what_it_keeps() -> None:
    graph = zoo.chain(8, nbytes=64, tape_nbytes=128, flops=100)
    stages = find_stages(graph)
    costs = StageCosts(stages)
    full, none = costs.tape(3), costs.tape(3, ())
    assert stages[3].tape_nbytes == 64  # the squash; expand's own output is no residual
    assert full.kept == stages[3].tape
    assert (full.tape_nbytes, full.beyond_nbytes, full.back_flops) == (0, 64, 0)
    assert (none.tape_nbytes, none.beyond_nbytes, none.back_flops) == (0, 64, 112)
    assert none.input_read_nbytes == full.input_read_nbytes == 64
    assert none.back_peak > full.back_peak
    assert costs.forward(3).flops == 112
    assert costs.cotangents[3] == 64
