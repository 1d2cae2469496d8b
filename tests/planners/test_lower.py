"""Lowering: values kept are kept, the rest recomputed once, and nothing held too long."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt.graph import BackwardStep, Graph, Node
from ckpt.machine import simulate
from ckpt.planners.base.emit import Action, free_early
from ckpt.planners.base.lower import closed_cuts, lower
from ckpt.planners.base.reads import permanent
from ckpt.schedule import Backward, Compute, Free
from tests.graphs import ZOO, Build, graphs, uneven_chain


@settings(max_examples=60, deadline=None)
@given(graphs(), st.randoms(use_true_random=False))
def test_any_choice_simulates_and_recomputes_at_most_once(graph: Graph, rng: object) -> None:
    kept = [i for i in range(len(graph)) if rng.random() < 0.4]  # type: ignore[attr-defined]
    timeline = simulate(graph, lower(graph, kept))
    owners = {graph.owners[i] for i in kept}
    for i, count in enumerate(timeline.counts):
        assert count <= 2
        if graph.owners[i] in owners or i in permanent(graph):
            assert count <= 1


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_keeping_everything_recomputes_nothing(graph: Graph) -> None:
    assert simulate(graph, lower(graph, range(len(graph)))).recomputations == 0


def test_a_result_that_only_backward_reads_is_kept_from_the_first_run_of_its_call() -> None:
    """A norm's statistics, a pool's indices: the call doesn't run again for their sake."""
    nodes = (
        Node(name="x", op="x", nbytes=8, resident=True),
        Node(name="norm", op="norm", deps=(0,), flops=50, call=True),
        Node(name="out", op="norm", deps=(1,), nbytes=8),
        Node(name="statistics", op="norm", deps=(1,), nbytes=2),
        Node(name="loss", op="sum", deps=(2,), nbytes=1),
    )
    steps = (BackwardStep(label="sum"), BackwardStep(label="norm", reads=(0, 3)))
    graph = Graph(nodes, steps, outputs=(4,))
    assert simulate(graph, lower(graph, range(5))).recompute_flops == 0
    kept = simulate(graph, lower(graph, [3]))
    assert (kept.recompute_flops, kept.peak) == (0, 8 + 2 + 1)
    assert simulate(graph, lower(graph, [])).recompute_flops == 50


@settings(max_examples=40, deadline=None)
@given(graphs(), st.data())
def test_no_value_outlives_its_last_read(graph: Graph, data: st.DataObject) -> None:
    """Each Free directly follows a read of that value, or the Compute of a value none reads."""
    cuts = data.draw(st.lists(st.integers(1, len(graph)), unique=True).map(sorted))
    schedule = lower(graph, [], cuts)
    last: Action | None = None
    for instruction in schedule:
        match instruction:
            case Free(i):
                match last:
                    case Compute(computed):
                        assert i in graph[computed].deps or i == computed
                    case Backward(k):
                        assert i in graph.steps[k].reads
                    case None:
                        raise AssertionError(instruction)
            case _:
                last = instruction
    simulate(graph, schedule)


def test_the_peak_of_a_segment_is_its_own_values_and_the_snapshots() -> None:
    graph = uneven_chain([10] * 9, [1] * 9)
    whole = simulate(graph, lower(graph, range(len(graph))))
    thirds = simulate(graph, lower(graph, [3, 6, *range(7, 10)]))
    # store-all: nine values, a cotangent and its successor, one byte of workspace
    assert whole.peak == 9 * 10 + 2 * 10 + 1
    # two snapshots, three values, two cotangents, workspace; 1, 2, 4 and 5 were computed twice
    assert thirds.peak == 2 * 10 + 3 * 10 + 2 * 10 + 1
    assert thirds.recomputations == 4
    assert [i for i, count in enumerate(thirds.counts) if count == 2] == [1, 2, 4, 5]


def test_a_kept_view_keeps_its_owner_at_no_cost() -> None:
    b = Build()
    owner = b.op("exp", b.resident(8), nbytes=8, reads=["out"])
    view = b.op("transpose", owner, view=True, kinds="view")
    graph = b.graph(b.op("sum", b.op("sin", view, reads=[0]), nbytes=1, kinds="view"))
    timeline = simulate(graph, lower(graph, [view, 3, 4]))
    assert timeline.recomputations == 0
    assert timeline.peak == simulate(graph, lower(graph, range(5))).peak


def test_cuts_are_closed_where_only_kept_values_cross() -> None:
    graph = ZOO["residual_net"]()
    blocks = [i for i, node in enumerate(graph) if node.op in ("add", "embed")]
    keeps = [i in blocks or node.resident for i, node in enumerate(graph)]
    cuts = closed_cuts(graph, keeps)
    assert all(b + 1 in cuts for b in blocks)
    inside = [i + 1 for i, node in enumerate(graph) if node.op == "relu"]
    assert not set(inside) & set(cuts)


def test_a_value_computed_twice_without_a_read_between_is_freed_at_once() -> None:
    graph = uneven_chain([1, 1], [1, 1])
    found = free_early(graph, [Compute(1), Compute(1), Compute(2), Backward(0), Backward(1)])
    assert found[:2] == (Compute(1), Free(1))


@pytest.mark.parametrize("name", ["masked", "several_losses"])
def test_captured_values_and_outputs_are_never_recomputed(name: str) -> None:
    graph = ZOO[name]()
    timeline = simulate(graph, lower(graph, []))
    assert all(timeline.counts[i] <= 1 for i in permanent(graph))
    assert timeline.recomputations > 0
