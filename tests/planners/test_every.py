"""Even segments: peaks and counts, by hand."""

from __future__ import annotations

import pytest

from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.planners.simple.every import round_sqrt
from tests.graphs import ZOO, uneven_chain


@pytest.mark.parametrize("k", [1, 2, 3, 5, 100])
def test_each_value_is_recomputed_at_most_once_and_the_last_segment_never(k: int) -> None:
    graph = uneven_chain([10] * 12, [1] * 12)
    timeline = simulate(graph, make_schedule(graph, f"every:{k}"))
    last = 12 - (12 % k or k) if k < 12 else 0
    # in each segment but the last, all values but the snapshot that ends it
    expected = last - last // k
    assert timeline.recomputations == expected
    assert max(timeline.counts) <= 2


def test_the_peak_is_snapshots_and_one_segment() -> None:
    graph = uneven_chain([10] * 16, [1] * 16)
    timeline = simulate(graph, make_schedule(graph, "sqrt"))
    assert timeline.schedule.notes["stages_per_segment"] == 4
    # three snapshots, the last segment's four values, two cotangents, one byte of workspace
    assert timeline.peak == 3 * 10 + 4 * 10 + 2 * 10 + 1
    assert timeline.recomputations == 9


@pytest.mark.parametrize("name", [n for n in ZOO if n != "single"])
def test_recomputing_never_costs_more_than_one_forward(name: str) -> None:
    graph = ZOO[name]()
    for planner in ("every:2", "sqrt"):
        timeline = simulate(graph, make_schedule(graph, planner))
        assert timeline.recompute_flops < timeline.forward_flops
        assert max(timeline.counts) <= 2


def test_round_sqrt() -> None:
    assert [round_sqrt(n) for n in (1, 2, 3, 6, 7, 12, 13, 100)] == [1, 1, 2, 2, 3, 3, 4, 10]
