"""Where the budgets of a frontier are placed."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

import ckpt
from ckpt.studies.budgets.placement import next_budgets
from tests.graphs import chain

LOW, HIGH = 100, 1100


def row(budget: int, peak: int | None, overhead: float = 0.0, smallest: int | None = None) -> Any:
    error = None if peak is not None else "no schedule"
    return {
        "budget_nbytes": budget, "predicted_peak_nbytes": peak, "overhead": overhead,
        "smallest_nbytes": smallest, "error": error,
    }  # fmt: skip


def test_the_ends_then_the_smallest_that_is_known_then_halfway() -> None:
    rows: list[Any] = []
    assert next_budgets(rows, LOW, HIGH, 8) == [HIGH]
    rows.append(row(HIGH, 1000))
    assert next_budgets(rows, LOW, HIGH, 8) == [LOW]
    rows += [row(LOW, None, smallest=300), row(LOW, None, smallest=200)]
    assert next_budgets(rows, LOW, HIGH, 8) == [200]
    rows.append(row(200, 200, 0.75))
    assert next_budgets(rows, LOW, HIGH, 8) == [600]
    rows.append(row(600, 600, 0.25))
    assert next_budgets(rows, LOW, HIGH, 8) == [400, 800]  # 400 * 0.5, 400 * 0.25
    assert next_budgets(rows, LOW, HIGH, 5) == [400]
    rows[-1] = row(600, 600, 0.2)
    assert next_budgets(rows, LOW, HIGH, 8) == [400]


def test_where_a_plan_takes_less_than_it_may_nothing_is_asked_above_it() -> None:
    rows = [row(LOW, 100, 0.5), row(HIGH, 700, 0.0)]
    assert next_budgets(rows, LOW, HIGH, 8) == [400]
    rows = [row(LOW, 100, 0.5), row(HIGH, 100, 0.5)]
    assert next_budgets(rows, LOW, HIGH, 8) == []


def test_many_forwards_count_little() -> None:
    rows = [row(LOW, 100, 900.0), row(300, 300, 2.0), row(HIGH, 1100, 0.0)]
    assert next_budgets(rows, LOW, HIGH, 8) == [700]


def test_the_order_of_rows_decides_nothing() -> None:
    rng = random.Random(0)
    rows = [row(b, b - rng.randrange(20), (HIGH - b) ** 2 / HIGH**2) for b in range(LOW, HIGH, 150)]
    found = next_budgets(rows, LOW, HIGH, 20)
    assert found
    for _ in range(5):
        rng.shuffle(rows)
        assert next_budgets(rows, LOW, HIGH, 20) == found


@pytest.mark.parametrize("planners", [["store_all"], ["store_all", "sqrt"], ["sqrt", "chain"]])
def test_a_frontier_ends_where_there_is_nothing_more_to_see(planners: list[str]) -> None:
    found = ckpt.frontier(chain(12), planners=planners, points=300)
    budgets = [row["budget_nbytes"] for row in found.by_budget()]
    assert len(budgets) < 300
    best = found.best()
    for one, two in pairwise(best):  # between two steps nothing else is hidden
        asked = [b for b in budgets if one["predicted_peak_nbytes"] <= b]
        assert any(b < two["predicted_peak_nbytes"] for b in asked)


def test_fewer_points_are_the_first_of_more() -> None:
    few = ckpt.frontier(chain(40), planners=["chain"], points=5)
    more = ckpt.frontier(chain(40), planners=["chain"], points=9)
    assert {r["budget_nbytes"] for r in few.rows} <= {r["budget_nbytes"] for r in more.rows}
    assert len({row["recompute_flops"] for row in more.best()}) > 4
