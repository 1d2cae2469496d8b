"""Store-all and recompute-all: the two ends."""

from __future__ import annotations

import pytest

from ckpt.errors import UsageError
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.planners.simple import recompute_all
from tests.graphs import ZOO, unit_chain


@pytest.mark.parametrize("name", ZOO)
def test_store_all_computes_what_is_needed_once(name: str) -> None:
    graph = ZOO[name]()
    counts = simulate(graph, make_schedule(graph, "store_all")).counts
    computed = {i for i, count in enumerate(counts) if count == 1}
    assert computed == set(graph.computed)
    assert max(counts) == 1


def test_store_all_frees_behind_the_backward() -> None:
    graph = unit_chain(20)
    timeline = simulate(graph, make_schedule(graph, "store_all"))
    # twenty values, and the cotangent on its way
    assert timeline.peak == 22
    assert timeline[len(timeline) - 1].live == 1


@pytest.mark.parametrize("n", [2, 5, 20])
def test_recompute_all_is_quadratic_in_time_and_flat_in_memory(n: int) -> None:
    graph = unit_chain(n)
    timeline = simulate(graph, make_schedule(graph, "recompute_all"))
    # before Backward j, steps 1 .. j-1 again; the last step's value is the output, and stays
    assert timeline.recomputations == n * (n - 1) // 2
    assert timeline.peak == min(n + 2, 4)


def test_recompute_all_refuses_what_would_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recompute_all, "MOST_COMPUTES", 100)
    with pytest.raises(UsageError, match="more than 100 Computes"):
        make_schedule(unit_chain(20), "recompute_all")
