"""`frontier`: rows that fall, within the time, on from where they were."""

from __future__ import annotations

import html
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt.graph import Graph
from ckpt.planners import make_timeline
from ckpt.planners.base import registry
from ckpt.planners.base.clock import WORK_LIMIT
from ckpt.planners.bounds.lower import lower_bounds
from ckpt.reports.table import BUDGET_COLUMNS, render
from ckpt.schedule import Schedule
from ckpt.studies.budgets import planned
from ckpt.studies.kept import kept as from_disk
from ckpt.studies.kept import to_keep
from tests.graphs import mlp, unet

PLANNERS = ["sqrt", "dtr", "chain"]


def test_a_larger_budget_never_costs_more() -> None:
    found = ckpt.frontier(unet(3), planners=PLANNERS, budgets=["70%", "85%", "95%"])
    for name in PLANNERS:
        rows = [r for r in found.rows if r["planner"] == name]
        planned = [r["recompute_flops"] for r in rows if r["error"] is None]
        assert planned
        assert planned == sorted(planned, reverse=True)
        assert [r["error"] for r in rows[-len(planned) :]] == [None] * len(planned)
    assert len({row["recompute_flops"] for row in found.rows}) > 2
    for row in found.rows:
        if row["error"] is None:
            assert row["predicted_peak_nbytes"] <= row["budget_nbytes"]
            assert row["recompute_flops"] >= row["bound_flops"]


def test_known_rows_are_taken_as_they_are() -> None:
    graph = unet(2)
    first = ckpt.frontier(graph, planners=["sqrt", "dtr"], points=3)
    known = [{**row, "planning_seconds": 99.0} for row in first.rows[:4]]
    again = ckpt.frontier(graph, planners=["sqrt", "dtr"], points=3, known=known)
    assert [row["planning_seconds"] == 99.0 for row in again.rows] == 4 * [True] + 2 * [False]
    assert [r["recompute_flops"] for r in again.rows] == [r["recompute_flops"] for r in first.rows]


def test_the_time_limit_cuts_rows_and_bounds_off() -> None:
    graph = unet(5)
    found = ckpt.frontier(graph, planners=["sqrt", "auto"], budgets=["90%"], time_limit=0)
    sqrt, auto = found.rows
    assert sqrt["planner"] == "sqrt"
    assert auto["error"] is None or auto["error"].startswith(("auto", "stopped early"))
    (bound,) = found.bounds
    assert bound["bound_flops"] <= lower_bounds(graph, bound["budget_nbytes"])[0].cost


def test_what_comes_once_the_time_is_over_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def make(graph: Graph, name: str, limit: int, **options: Any) -> Schedule:
        begun.append(limit)
        return make_timeline(graph, name, limit, **options)

    monkeypatch.setattr("ckpt.studies.budgets.planned.make_timeline", make)
    found = ckpt.frontier(unet(5), planners=["dtr"], budgets=["80%", "90%"], time_limit=0)
    smaller, larger = found.rows
    assert begun == [larger["budget_nbytes"]]
    assert larger["error"] is None
    assert smaller["error"].startswith("stopped early")


def test_a_row_a_budget_and_a_row_a_planner() -> None:
    graph = unet(3)
    found = ckpt.frontier(graph, planners=["sqrt", "dtr"], budgets=["70%", "85%", "100%"])
    budgets = found.by_budget()
    assert [row["budget_nbytes"] for row in budgets] == sorted(
        {r["budget_nbytes"] for r in found.rows}
    )
    for row in budgets:
        plans = [
            r for r in found.rows if r["budget_nbytes"] == row["budget_nbytes"] and not r["error"]
        ]
        assert row["overhead"] == min(r["overhead"] for r in plans)
        assert row["gap_overhead"] == row["overhead"] - row["bound_overhead"] >= 0
    planners = found.by_planner()
    assert [row["planner"] for row in planners] == ["sqrt", "dtr"]
    best = {(r["planner"], r["budget_nbytes"]) for r in found.best()}
    for row in planners:
        told = list(row.values())[1:]
        for budget, text in zip(budgets, told, strict=True):
            (made,) = (r for r in found.rows if (r["planner"], r["budget_nbytes"])
                       == (row["planner"], budget["budget_nbytes"]))  # fmt: skip
            assert text.strip().rstrip("*") == (
                "-" if made["error"] else f"{100 * made['overhead']:.1f}"
            )
            if (row["planner"], budget["budget_nbytes"]) in best:
                assert text.endswith("*")
    assert max(map(len, render(budgets, BUDGET_COLUMNS).splitlines())) <= 80


@pytest.mark.parametrize("where", ["jobs", "executor"])
def test_rows_are_the_same_on_workers_but_for_times(where: str) -> None:
    graph, names = mlp([8] * 7), ["sqrt", "mine", "greedy", "chain"]
    common: dict[str, Any] = {"planners": names, "points": 3}

    @ckpt.planner("mine")
    def mine(graph: ckpt.Graph, budget: int | None = None) -> ckpt.Schedule:
        """Known to this process only."""
        return ckpt.make_schedule(graph, "store_all", budget)

    here = ckpt.frontier(graph, **common, time_limit=None)
    told: list[dict[str, Any]] = []
    common |= {"time_limit": None, "on_row": told.append}
    if where == "jobs":
        there = ckpt.frontier(graph, **common, jobs=2)
    else:
        with ThreadPoolExecutor(2) as executor:
            there = ckpt.frontier(graph, **common, executor=executor)
    del registry._REGISTRY["mine"]

    def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**row, "planning_seconds": None} for row in rows]

    assert untimed(there.rows) == untimed(here.rows)
    assert there.bounds == here.bounds
    assert there.schedules == here.schedules
    assert len(told) == len(there.rows)
    assert {row["budget_nbytes"] for row in told[-4:]} == {told[-1]["budget_nbytes"]}


def test_rows_that_were_told_before_a_stop_are_taken_on_workers_too() -> None:
    graph = unet(2)
    first: list[dict[str, Any]] = []
    whole = ckpt.frontier(graph, planners=["sqrt", "dtr"], points=3, on_row=first.append)
    known = [{**row, "planning_seconds": 99.0} for row in first[:3]]
    with ThreadPoolExecutor(1) as executor:
        again = ckpt.frontier(
            graph, planners=["sqrt", "dtr"], points=3, known=known, executor=executor
        )
    assert sum(row["planning_seconds"] == 99.0 for row in again.rows) == 3
    assert [row["recompute_flops"] for row in again.rows] == [
        row["recompute_flops"] for row in whole.rows
    ]


def test_measured_peaks_beside_a_busy_thread_are_in_doubt() -> None:
    stop = threading.Event()

    def allocate() -> None:
        while not stop.is_set():
            np.ones(1 << 16)

    other = threading.Thread(target=allocate, name="greedy")
    loss = lambda x: np.sum(np.tanh(np.tanh(x)))  # noqa: E731
    x = np.ones((1024, 1024))
    other.start()
    try:
        assert "(greedy)" in str(ckpt.frontier(loss, x, planners=["sqrt"], points=2).untrusted)
    finally:
        stop.set()
        other.join()
    assert ckpt.frontier(loss, x, planners=["sqrt"], points=2).untrusted is None


def test_the_page_has_a_row_a_planner_that_found_no_plan_somewhere() -> None:
    found = ckpt.frontier(unet(3), planners=["store_all", "sqrt"], budgets=["50%", "90%", "100%"])
    part = found.page().rpartition("Where there was no plan")[2]
    refused = [row for row in found.rows if row["error"] and row["planner"] == "store_all"]
    assert len(refused) > 1
    assert part.count(">store_all<") == 1
    assert f">{len(refused)}<" in part
    assert html.escape(refused[-1]["error"]) in part
    assert html.escape(refused[0]["error"]) not in part


def test_work_is_counted_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes to the end of its share does so in the same place here and on workers, whatever
    they remember of other budgets."""
    monkeypatch.setattr(planned, "WORK", 8_000)
    graph, names = mlp([8] * 12), ["sqrt", "greedy", "chain", "dtr", "auto"]
    common: dict[str, Any] = {"planners": names, "points": 4, "time_limit": None}
    here = ckpt.frontier(graph, **common)
    errors = [row["error"] or "" for row in here.rows]
    assert any(error == f"stopped early: {WORK_LIMIT}" for error in errors)
    notes = [schedule.notes for schedule in here.schedules if schedule]
    assert any(note.get("stopped_early") == WORK_LIMIT for note in notes)
    with ThreadPoolExecutor(2) as executor:
        there = ckpt.frontier(graph, **common, executor=executor)
    again = ckpt.frontier(graph, **common)
    for found in (there, again):
        assert [{**row, "planning_seconds": 0} for row in found.rows] == [
            {**row, "planning_seconds": 0} for row in here.rows
        ]
        assert found.schedules == here.schedules
        assert found.bounds == here.bounds


@pytest.mark.parametrize("stop", [2, 9])
def test_one_that_was_stopped_comes_to_the_same_as_one_that_was_not(
    stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, names = mlp([8] * 12), ["sqrt", "dtr", "auto"]
    monkeypatch.setattr(planned, "WORK", 400_000)
    told: list[dict[str, Any]] = []
    whole = ckpt.frontier(graph, planners=names, points=5, on_row=told.append)
    kept = [from_disk(json.loads(json.dumps(to_keep(row)))) for row in told[:stop]]
    known = [row for row in kept if row is not None]
    assert len(known) == stop
    again = ckpt.frontier(graph, planners=names, points=5, known=known)
    assert [{**row, "planning_seconds": 0} for row in again.rows] == [
        {**row, "planning_seconds": 0} for row in whole.rows
    ]
    assert [s and s.instructions for s in again.schedules] == [
        s and s.instructions for s in whole.schedules
    ]
    assert again.bounds == whole.bounds


def test_auto_is_told_what_others_found(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    plain = registry.Planner.simulated

    def spied(self: registry.Planner, *args: Any, **options: Any) -> Any:
        asked.append(self.name)
        return plain(self, *args, **options)

    monkeypatch.setattr(registry.Planner, "simulated", spied)
    graph, names = mlp([8] * 12), ["chain", "mixed", "auto"]
    found = ckpt.frontier(graph, planners=names, budgets=["60%"])
    assert asked.count("chain") == asked.count("mixed") == 1
    chain, _, auto = found.rows
    assert auto["recompute_flops"] <= chain["recompute_flops"]
