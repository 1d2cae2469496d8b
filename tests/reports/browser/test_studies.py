"""The pages of a frontier, a sweep and a profile."""

from __future__ import annotations

from typing import Any

import numpy as np

import ckpt
from ckpt.units import format_bytes
from tests.graphs import chain
from tests.reports.browser.choosing import choose


def test_a_frontiers_page_chooses_a_budget(visit: Any) -> None:
    found = ckpt.frontier(chain(40), planners=["store_all", "chain"], points=5)
    tab = visit(found.page())
    points = tab.locator("#chart circle")
    budgets = sorted({row["budget_nbytes"] for row in found.rows})
    planned = [budget for budget in budgets if found.at_budget(budget)]
    assert points.count() == len(planned)
    verdicts = set()
    for number, budget in enumerate(budgets):
        choose(tab, number)
        if (row := found.at_budget(budget)) is None:
            assert "No plan was found" in tab.inner_text("#missing")
            continue
        told = tab.inner_text("#verdict")
        verdicts.add(told)
        assert told.startswith(f"{row['planner']}: peak ")
        assert "with less than" in told or not row["recompute_flops"]
        timeline = found.timeline_of(row)
        assert timeline is not None
        state = tab.evaluate("ckpt.state()")
        assert (state["count"], state["recomputes"]) == (len(timeline), timeline.recomputations)
        assert tab.get_attribute("#choice0", "aria-valuetext")
    assert len(verdicts) > 2
    tab.focus("#choice0")
    before = tab.inner_text("#verdict")
    tab.keyboard.press("Home")
    tab.keyboard.press("End")
    tab.keyboard.press("ArrowLeft")
    assert tab.inner_text("#verdict") != before
    points.last.click()
    assert tab.evaluate("ckpt.state().count") > 0


def test_a_sweeps_page_chooses_depth_and_strategy(visit: Any) -> None:
    found = ckpt.sweep(depths=[2, 4, 8], width=8, batch=4, measure=False)
    tab = visit(found.page())
    for k, depth in enumerate((2, 4, 8)):
        choose(tab, k)
        for row in (row for row in found if row["depth"] == depth):
            tab.select_option("#choice1", label=row["strategy"])
            assert tab.inner_text("#verdict").startswith(f"{row['strategy']}: peak ")
            assert tab.evaluate("ckpt.state().recomputes") == row["recomputations"]
        rows = [row for row in found if row["depth"] == depth]
        assert tab.locator("#chart circle").count() == len(rows)


def test_a_profiles_page_opens_a_scope_and_shows_the_line(visit: Any) -> None:
    def loss(w: Any) -> Any:
        with ckpt.scope("outer"):
            y = np.tanh(w * 2.0)  # the line that is shown
        return np.sum(np.tanh(y) ** 2)

    tab = visit(ckpt.profile(loss, ckpt.spec((64, 8))).page())
    assert tab.inner_text("#line") in ("np.sum(np.tanh(y) ** 2)", "return np.sum(np.tanh(y) ** 2)")
    assert "measured" not in tab.inner_text("#now")
    tab.click("#peak")
    tab.select_option("#levels", "scope")
    boxes = tab.locator("#map button")
    before = boxes.count()
    tab.locator("#map button", has_text="outer").first.click()
    assert 0 < boxes.count() < before
    tab.locator("#map button", has_text="test_studies.py").first.click()
    assert "y = np.tanh(w * 2.0)  # the line that is shown" in tab.inner_text("#source")


def test_what_was_measured_is_told_with_the_instruction(visit: Any) -> None:
    found = ckpt.profile(lambda w: np.sum(np.tanh(w) ** 2), np.ones((64, 64)))
    tab = visit(found.page())
    assert found.measured is not None
    at = tab.evaluate("ckpt.state().position")
    said = format_bytes(found.measured.columns["high"][at])
    assert f"measured {said} in all while it ran" in tab.inner_text("#now")
