"""Where graphs are cut, what the stage operations become, and what they are said to cost."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt.errors import UsageError
from ckpt.graph import BackwardRow, BackwardStep, Graph, Node
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.planners.base.stages import Stages, cut_at, find_stages
from ckpt.planners.revolve.stage_ops import ADVANCE, BACK, KEEP, TAPE, StageOp, emit
from tests import graphs as zoo
from tests.graphs import ZOO, Build, graphs


def store_all_ops(stages: Stages) -> list[StageOp]:
    """Every stage taped, every stage back: the plan that recomputes nothing."""
    count = len(stages)
    forward = [StageOp(TAPE, k) for k in range(count)]
    return forward + [StageOp(BACK, k) for k in range(count - 1, -1, -1)]


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
def test_restarting_from_the_beginning_costs_what_the_stages_do(name: str) -> None:
    """Stage t is run once for each stage from it on, but for what is permanent or not read."""
    graph = ZOO[name]()
    stages = find_stages(graph)
    ops = []
    for t in range(len(stages) - 1, -1, -1):
        ops += [StageOp(ADVANCE if k else KEEP, k) for k in range(t)]
        ops.append(StageOp(BACK, t))
    timeline = simulate(graph, emit(stages, ops))
    most = sum((len(stages) - k) * stage.flops for k, stage in enumerate(stages.stages))
    assert timeline.forward_flops < timeline.forward_flops + timeline.recompute_flops <= most
    assert timeline.peak <= simulate(graph, emit(stages, store_all_ops(stages))).peak


def test_the_tape_of_a_stage_is_what_its_backwards_read() -> None:
    stages = find_stages(zoo.chain(8, nbytes=64, tape_nbytes=128, flops=100))
    assert stages[3].tape_nbytes == 64  # the squash; expand's own output is no residual


# -- positions of steps ----------------------------------------------------------------------------


def gated(layers: int, *, at: bool) -> Graph:
    """A gate computed first, which every layer and every layer's backward reads: its cotangent is
    summed up over all of them, and taken in the last step. ``at`` tells where steps belong."""
    nodes = [
        Node(name="x", op="input", nbytes=8, resident=True),
        Node(name="gate", op="gate", deps=(0,), nbytes=8, flops=1),
    ]
    steps = []
    for k in range(layers):
        before = 1 if not k else len(nodes) - 1
        nodes.append(Node(name=f"h{k}", op="h", deps=(before, 1), nbytes=8, flops=9))
        where = len(nodes) - 1
        step = BackwardStep(label="h", reads=(before, 1), during=32, at=where if at else None)
        steps.insert(0, step)
    steps.append(BackwardStep(label="gate", during=16, at=1 if at else None))
    row = BackwardRow(kind="cotangent", nbytes=8, first=0, last=layers, whose=1)
    return Graph(tuple(nodes), tuple(steps), (row,), (len(nodes) - 1,))


@pytest.mark.parametrize("at", [False, True])
def test_a_gate_that_all_layers_read_leaves_each_step_in_its_own_segment(at: bool) -> None:
    graph = gated(9, at=at)
    stages = cut_at(graph, [5, 8])
    # Each layer's step reads what the layer before made, so without `at` it may lie one lower.
    expected = [[6, 7, 8, 9], [3, 4, 5], [0, 1, 2]] if at else [[5, 6, 7, 8, 9], [2, 3, 4], [0, 1]]
    assert [list(stage.backwards) for stage in stages.stages] == expected
    assert all(1 in stage.boundary for stage in stages.stages[1:])
    for name in ("chain", "sqrt", "greedy", "revolve"):
        timeline = simulate(graph, make_schedule(graph, name))
        assert timeline.forward_flops == graph.forward_flops


def test_a_segments_first_step_does_not_fall_into_the_segment_before() -> None:
    """Residuals are inputs of the layers: by its reads alone a step lies before the cut."""
    graph = zoo.unit_chain(12)
    stages = cut_at(graph, [5, 9])
    assert [graph.steps[k].at for k in stages[1].backwards] == [8, 7, 6, 5]
    blind = replace(graph, steps=tuple(replace(step, at=None) for step in graph.steps))
    assert [graph.steps[k].at for k in cut_at(blind, [5, 9])[1].backwards] == [9, 8, 7, 6]


def test_positions_never_ascend_and_cover_what_is_read_later() -> None:
    steps = (
        BackwardStep(label="late", reads=(1,), at=4),
        BackwardStep(label="low", reads=(0,), at=1),
        BackwardStep(label="high", reads=(3, 0)),
        BackwardStep(label="above", reads=(2,), at=4),
        BackwardStep(label="residents", reads=(0,)),
    )
    nodes = [Node(name="x", op="input", resident=True)]
    nodes += [Node(name=f"n{i}", op="f", deps=(i - 1,)) for i in range(1, 5)]
    assert Graph(tuple(nodes), steps, outputs=(4,)).positions == (4, 3, 3, 3, 0)
