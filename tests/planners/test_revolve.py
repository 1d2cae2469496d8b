"""Revolve on graphs: slots that fit, peaks, and speed."""

from __future__ import annotations

import pytest

from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.planners.revolve.revolve import eta, revolve_ops, total_forwards
from ckpt.planners.revolve.stage_ops import ADVANCE, BACK, KEEP, StageOp
from tests.graphs import lstm, residual_net, uneven_chain, unit_chain


def test_four_steps_with_two_slots() -> None:
    """η(4, 2) = 4 advances; with the second snapshot at 1, three steps are left to one slot."""
    ops = revolve_ops(4, 2)
    assert ops == [
        StageOp(KEEP, 0),
        StageOp(KEEP, 1),
        StageOp(ADVANCE, 2),
        StageOp(BACK, 3),
        StageOp(KEEP, 1),
        StageOp(BACK, 2),
        StageOp(BACK, 1),
        StageOp(BACK, 0),
    ]


@pytest.mark.parametrize("s", [1, 2, 3, 4, 6])
def test_peak_is_slots_plus_one_step_at_work(s: int) -> None:
    n = 30
    graph = unit_chain(n)
    timeline = simulate(graph, make_schedule(graph, f"revolve:{s}"))
    # the initial state is an input and takes no bytes: s - 1 snapshots, the output, and at work a
    # value and its successor while a cotangent waits
    assert timeline.peak == s - 1 + 1 + 3
    # this chain's Backwards read only their input: no taped forward has to Compute, but the last
    assert timeline.forward_flops + timeline.recompute_flops == eta(n, s) + 1


def test_as_many_slots_as_fit() -> None:
    graph = uneven_chain([10] * 40, [1] * 40)
    chosen = make_schedule(graph, "revolve", 120)
    slots = chosen.notes["slots"]
    assert simulate(graph, chosen).peak <= 120
    assert simulate(graph, make_schedule(graph, "revolve", slots=slots + 1)).peak > 120
    assert chosen.notes["untaped_forwards"] == eta(40, slots)


@pytest.mark.parametrize("graph", [lstm(12), residual_net(12)])
def test_boundaries_of_several_values(graph: Graph) -> None:
    schedule = make_schedule(graph, "revolve", slots=3)
    timeline = simulate(graph, schedule)
    stages = schedule.notes["stages"]
    assert timeline.forward_flops + timeline.recompute_flops <= (
        timeline.forward_flops * total_forwards(stages, 3) / stages * 1.5
    )
    assert timeline.peak < simulate(graph, make_schedule(graph, "store_all")).peak


def test_ten_thousand_steps() -> None:
    assert len(revolve_ops(10_000, 100)) == total_forwards(10_000, 100) == 34_747
