"""What results are written as: each ending, held to what its own reader asks for."""

from __future__ import annotations

import csv
import json
import re
import webbrowser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt.errors import UsageError
from ckpt.reports.formats.registry import FORMATS, check, endings
from ckpt.reports.formats.simulated import Simulation
from tests.graphs import chain
from tests.reports.test_traces import hostile_graph


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    graph = chain(12)
    return {
        "Profile": ckpt.profile(graph, planner="chain", budget="60%"),
        "Plan": ckpt.plan(graph, planner="chain", budget="60%"),
        "Frontier": ckpt.frontier(graph, planners=["store_all", "chain"], points=4),
        "Sweep": ckpt.sweep(depths=[2, 4], width=8, batch=4, measure=False),
    }


STEPS = ("Profile", "Plan")
ALL = (*STEPS, "Frontier", "Sweep")


@pytest.mark.parametrize("name", ALL)
def test_every_ending_that_is_offered_is_written(
    results: dict[str, Any], name: str, tmp_path: Path
) -> None:
    result = results[name]
    for ending in endings(type(result)):
        path = result.export(tmp_path / f"a.b{ending}")
        assert path.stat().st_size > 100, ending
        if ending.endswith(".json"):
            json.loads(path.read_text())
    assert (".trace.json" in endings(type(result))) == (name in STEPS)


@pytest.mark.parametrize("name", ALL)
def test_an_unknown_ending_lists_what_works(results: dict[str, Any], name: str) -> None:
    for wrong in ("a.xyz", "a", "a.json.gz", ".json"):
        with pytest.raises(UsageError) as caught:
            results[name].export(wrong)
        said = str(caught.value)
        assert "\n" not in said
        assert all(ending in said for ending in endings(type(results[name])))
        assert not Path(wrong).exists()


def test_an_ending_of_another_result_is_refused_and_not_taken_for_its_tail() -> None:
    for wrong in ("a.trace.json", "a.plan.json", "A.PROFILE.JSON"):
        with pytest.raises(UsageError, match=r"a Frontier is not written as \.(trace|plan|prof)"):
            check(wrong, ckpt.Frontier)
    assert check("A.TRACE.JSON", ckpt.Plan).name == "A.TRACE.JSON"


def test_every_ending_belongs_to_someone() -> None:
    kinds = (ckpt.Profile, ckpt.Plan, ckpt.Frontier, ckpt.Sweep)
    assert {ending for kind in kinds for ending in endings(kind)} == set(FORMATS)


def test_rows_are_the_same_in_every_table(results: dict[str, Any], tmp_path: Path) -> None:
    for name in ALL:
        result = results[name]
        with result.export(tmp_path / "a.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        lines = result.export(tmp_path / "a.jsonl").read_text().splitlines()
        marked = result.export(tmp_path / "a.md").read_text().splitlines()
        assert len(rows) == len(lines) == len(result.records())
        assert sum(line.startswith("|") for line in marked) == len(rows) + 2
        column = "nbytes" if name in STEPS else "predicted_peak_nbytes"
        assert [row[column] for row in rows] == [
            "" if row[column] is None else str(row[column]) for row in result.records()
        ]


# -- a profile and a plan, saved and read back -----------------------------------------------------


def test_a_profile_is_read_back(tmp_path: Path) -> None:
    def loss(w: Any, x: Any) -> Any:
        return np.sum(np.tanh(x @ w) ** 2)

    found = ckpt.profile(loss, np.ones((8, 8)), np.ones((4, 8)))
    assert found.measured is not None
    again = ckpt.load_profile(found.export(tmp_path / "a.profile.json"))
    assert again.to_dict() == found.to_dict()
    assert str(again) == str(found)
    assert again.measured is not None
    assert again.measured.same_live_bytes(found.measured) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("graph"),
        lambda d: d.update(seconds=-1),
        lambda d: d.update(seconds="1"),
        lambda d: d.update(eager_peak_nbytes=1.5),
        lambda d: d.update(version=99),
        lambda d: d["schedule"].update(graph="0" * 16),
        lambda d: d["schedule"]["instructions"].pop(),
    ],
)
def test_a_damaged_profile_is_refused(change: Any, tmp_path: Path) -> None:
    path = ckpt.profile(chain(4)).export(tmp_path / "a.profile.json")
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ckpt.CkptError):
        ckpt.load_profile(path)


def test_a_plan_is_not_read_as_a_profile(results: dict[str, Any], tmp_path: Path) -> None:
    path = results["Plan"].export(tmp_path / "a.plan.json")
    assert ckpt.load_plan(path).timeline.peak == results["Plan"].timeline.peak
    with pytest.raises(UsageError, match="holds no profile"):
        ckpt.load_profile(path)
    kept = results["Profile"].export(tmp_path / "a.profile.json")
    with pytest.raises(UsageError, match="holds no plan"):
        ckpt.load_plan(kept)


# -- what people see -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_results_are_short_in_words_and_a_table_in_a_notebook(
    results: dict[str, Any], name: str
) -> None:
    result = results[name]
    assert len(repr(result)) < 200
    assert "\n" not in repr(result)
    shown = result._repr_html_()
    assert shown.startswith('<div class="ckpt">')
    assert shown.count("<table") == 1
    assert "<pre" not in shown and "font-family" not in shown and "monospace" not in shown
    assert len(shown) < 30_000


@pytest.mark.parametrize("name", ALL)
def test_without_a_path_plot_gives_the_figure(results: dict[str, Any], name: str) -> None:
    from matplotlib.figure import Figure

    assert isinstance(results[name].plot(), Figure)


def test_show_opens_the_page(results: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    path = results["Plan"].show()
    assert opened == [path.as_uri()]
    assert path.read_text(encoding="utf-8") == results["Plan"].page()
    path.unlink()


def test_certificates_and_verifications_are_shown() -> None:
    step = ckpt.plan(lambda w: np.sum(np.tanh(w) ** 2), np.ones(64))
    for found in (step.certificate, step.verify(np.ones(64))):
        assert len(repr(found)) < 250
        assert found._repr_html_().startswith("<table")
        assert "<pre" not in found._repr_html_()


def test_a_hostile_name_is_nowhere_markup(tmp_path: Path) -> None:
    graph = hostile_graph()
    found = [
        ckpt.profile(graph),
        ckpt.plan(graph),
        ckpt.frontier(graph, planners=["store_all"], points=2),
        Simulation(graph, ckpt.simulate(graph, ckpt.make_schedule(graph, "store_all"))),
    ]
    for result in found:
        texts = [result._repr_html_(), result.page(), repr(result)]
        for ending in (".svg", ".md", ".html"):
            texts.append(result.export(tmp_path / f"a{ending}").read_text(encoding="utf-8"))
        for text in texts[:2] + texts[3:]:
            assert "<script>alert" not in text
            assert "<b>" not in text
        for text in texts:
            assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text
    assert not re.search("[<>]b>", found[1].certificate._repr_html_())


def test_a_page_of_a_frontier_has_a_plan_or_a_reason_at_each_budget(
    results: dict[str, Any],
) -> None:
    page = results["Frontier"].page()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    data = json.loads(found[1])
    budgets = sorted({row["budget_nbytes"] for row in results["Frontier"].rows})
    assert len(data["choices"][0]["options"]) == len(budgets)
    assert len(data["reels"]) + len(data["missing"]) == len(budgets)
    for reel in data["reels"]:
        row = results["Frontier"].at_budget(reel["budget"])
        assert reel["peak_nbytes"] == row["predicted_peak_nbytes"] <= reel["budget"]
        assert reel["overhead"] == row["overhead"] >= (reel["bound"] or 0) - 1e-12
    overheads = [reel["overhead"] for reel in data["reels"]]
    assert overheads == sorted(overheads, reverse=True)


def test_rows_of_an_earlier_run_are_planned_again_for_the_page_or_said() -> None:
    graph = chain(12)
    first = ckpt.frontier(graph, planners=["store_all", "chain"], points=4)
    again = ckpt.frontier(graph, planners=["store_all", "chain"], points=4, known=first.rows)
    assert not any(again.schedules)
    assert again.page() == first.page()
    for row in again.rows:
        row.update(recompute_flops=row["recompute_flops"] and row["recompute_flops"] + 1)
    assert "whose schedule was not kept" in again.page()


def test_a_page_of_a_sweep_has_every_point(results: dict[str, Any]) -> None:
    sweep = results["Sweep"]
    found = re.search(r'id="data">(.*?)</script>', sweep.page(), re.S)
    assert found is not None
    data = json.loads(found[1])
    depths, strategies = (choice["options"] for choice in data["choices"])
    peaks = {
        (depths[reel["at"][0]], strategies[reel["at"][1]]): reel["peak_nbytes"]
        for reel in data["reels"]
    }
    assert peaks == {
        (str(row["depth"]), row["strategy"]): row["predicted_peak_nbytes"] for row in sweep
    }
