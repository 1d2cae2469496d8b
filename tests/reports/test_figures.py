"""Figures: what they show, that their bytes are reproducible, that nothing comes early."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ckpt.errors import UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.reports.canvas import byte_step, new_figure, spread
from ckpt.reports.drawing import Label, place, segments, struck
from ckpt.reports.figure import (
    frontier_figure,
    save,
    schedule_figure,
    sweep_figure,
    timeline_figure,
    to_svg,
)
from ckpt.reports.figure_schedule import Bar, bars
from ckpt.reports.figure_sweep import headline
from ckpt.reports.figure_timeline import settled_phases
from ckpt.reports.style import LOOKS, ink, look
from ckpt.schedule import Backward, Compute, Free, Schedule
from ckpt.timeline import BACKWARD, FORWARD, RECOMPUTE, Timeline
from ckpt.units import format_bytes
from tests.graphs import Build
from tests.reports.sample import frontier_rows, sweep_rows, timeline


def measured(line: Timeline) -> Timeline:
    seen = {**line.columns, "high": [high + 5000 for high in line.columns["high"]]}
    return replace(line, source="execute", columns=seen, measured={"tracemalloc": True})


def make_timeline() -> Figure:
    graph, line = timeline(4, 2)
    return timeline_figure(line, measured(line), graph=graph, caption="Sample.")


def make_schedule() -> Figure:
    graph, line = timeline(3, 1)
    return schedule_figure(graph, line)


def make_frontier() -> Figure:
    bounds = [{"budget_nbytes": b * 2**20, "bound_flops": (90 - b) * 10**6} for b in (20, 50, 95)]
    rows = frontier_rows()
    return frontier_figure(
        rows, bounds, knee=rows[1], floor_nbytes=5 * 2**20, forward_flops=100 * 10**6
    )


MAKERS = [
    make_timeline,
    make_schedule,
    lambda: sweep_figure(sweep_rows()),
    make_frontier,
]


@pytest.mark.parametrize("make", MAKERS)
def test_the_same_data_gives_the_same_svg_bytes(make: Callable[[], Figure], tmp_path: Path) -> None:
    first = save(make(), tmp_path / "a.svg").read_bytes()
    second = save(make(), tmp_path / "b.svg").read_bytes()
    assert first == second
    assert b"<dc:date>" not in first


@pytest.mark.parametrize(
    ("suffix", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("SVG", b"<?xml")]
)
def test_the_extension_decides_the_kind(suffix: str, magic: bytes, tmp_path: Path) -> None:
    path = save(make_schedule(), tmp_path / "new" / f"figure.{suffix}")
    assert path.read_bytes().startswith(magic)
    assert [p.name for p in path.parent.iterdir()] == [f"figure.{suffix}"]


def test_pdf_bytes_are_reproducible(tmp_path: Path) -> None:
    files = [save(make_frontier(), tmp_path / f"{k}.pdf").read_bytes() for k in range(2)]
    assert files[0] == files[1]


@pytest.mark.parametrize("name", ["figure", "figure.jpg", "figure.png.bak"])
def test_another_extension_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"use \.png \.svg \.pdf") as caught:
        save(make_schedule(), tmp_path / name)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_unwritable_place_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UsageError, match=r"can't write .*choose another place"):
        save(make_schedule(), tmp_path / "file" / "figure.png")
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(UsageError, match="can't write"):
        save(make_schedule(), tmp_path / "taken.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "taken.png"]


def test_an_svg_for_a_page_is_one_element() -> None:
    text = to_svg(make_schedule())
    assert text.startswith("<svg")
    assert text.rstrip().endswith("</svg>")


def test_matplotlib_comes_with_the_first_figure_and_pyplot_never() -> None:
    program = (
        "import sys, ckpt.reports.figure, ckpt.reports.table, ckpt.reports.exports\n"
        "assert not {'matplotlib', 'rich', 'scipy'} & set(sys.modules)\n"
        "from tests.reports.test_figures import MAKERS\n"
        "from ckpt.reports.figure import save\n"
        "import tempfile, pathlib\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    for k, make in enumerate(MAKERS): save(make(), pathlib.Path(folder) / f'{k}.png')\n"
        "assert 'matplotlib.figure' in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_timeline_says_the_peaks_and_draws_measured_over_simulated() -> None:
    _, line = timeline(4, 2)
    figure = timeline_figure(line, measured(line))
    axes = figure.axes[0]
    assert max(patch.get_data().values.max() for patch in axes.patches) == line.peak + 5000  # type: ignore[attr-defined]
    text = " ".join(figure.get_supxlabel().split())
    assert "Predicted peak 7 MiB, measured 7 MiB (+0.07%)" in text
    assert any("peak 7 MiB" in note.get_text() for note in axes.texts)


def test_a_long_timeline_keeps_its_peak_when_columns_are_merged() -> None:
    _, line = timeline(150)
    assert len(line) > 2000
    figure = timeline_figure(line)
    values = [patch.get_data().values.max() for patch in figure.axes[0].patches]  # type: ignore[attr-defined]
    assert max(values) == line.peak
    assert "FLOPs done" in figure.axes[0].get_xlabel()


def test_a_plan_is_drawn_below_its_budget_and_over_store_alls_outline() -> None:
    graph, line = timeline(8, 2)
    _, whole = timeline(8)
    within = replace(line, schedule=replace(line.schedule, budget=line.peak + 2**20))
    axes = timeline_figure(within, graph=graph, against=whole).axes[0]
    (budget,) = [drawn for drawn in axes.lines if drawn.get_linestyle() == "--"]
    assert set(ys(budget)) == {line.peak + 2**20}
    heights = [patch.get_data().values.max() for patch in axes.patches]  # type: ignore[attr-defined]
    assert max(heights) == whole.peak
    assert axes.get_ylim()[1] > whole.peak
    assert axes.get_xlim()[1] == line.step_flops > whole.step_flops
    assert f"store all, up to {format_bytes(whole.peak)}" in axes.get_legend_handles_labels()[1]


@pytest.mark.parametrize(("depth", "every"), [(1, None), (1, 1), (2, 1), (250, 16)])
def test_a_schedule_is_drawn_from_ten_to_ten_thousand_instructions(
    depth: int, every: int | None, tmp_path: Path
) -> None:
    graph, line = timeline(depth, every)
    path = save(schedule_figure(graph, line), tmp_path / "schedule.svg")
    assert path.stat().st_size < 3_000_000


def test_an_empty_timeline_is_no_error(tmp_path: Path) -> None:
    graph = Graph(())
    empty = simulate(graph, Schedule(()))
    save(timeline_figure(empty), tmp_path / "timeline.png")
    save(schedule_figure(graph, empty), tmp_path / "schedule.png")


def test_spans_say_when_a_value_is_live_and_which_turn_it_is() -> None:
    build = Build()
    x = build.resident()
    graph = build.graph(build.op("f", build.op("f", x, reads=["out"]), reads=["out"]))
    steps = (Compute(1), Compute(2), Free(1), Backward(0), Compute(1), Backward(1), Free(1))
    found = bars(simulate(graph, Schedule(steps)))
    assert found == [Bar(1, 0, 2, 1), Bar(2, 1, 7, 1), Bar(1, 4, 6, 2)]


def test_a_free_belongs_to_the_phase_it_follows() -> None:
    _, line = timeline(2, 1)
    phases = settled_phases(line)
    assert set(phases.tolist()) == {FORWARD, RECOMPUTE, BACKWARD}
    assert phases[0] == FORWARD
    assert phases[-1] == BACKWARD


def ys(line: Line2D) -> list[float]:
    return [float(y) for y in np.asarray(line.get_ydata(), dtype=float)]


def test_the_sweep_draws_measured_points_over_predicted_lines() -> None:
    memory, recompute, trade = sweep_figure(sweep_rows()).axes
    peaks = [timeline(depth)[1].peak for depth in (1, 4, 16)]
    assert any(ys(line) == peaks and line.get_linestyle() == "-" for line in memory.lines)
    (points,) = [line for line in memory.lines if line.get_marker() == "s"]
    assert ys(points) == [peak + 9000 for peak in peaks]
    assert any(ys(line) == [0, 0, 0] for line in recompute.lines)
    assert {"store all", "√n segments", "per layer"} <= {note.get_text() for note in trade.texts}


def planned_rows() -> list[dict[str, object]]:
    """A sweep with a planned curve, and plans that recompute a share with their bounds."""
    rows = sweep_rows()
    full = {row["strategy"]: row for row in rows if row["depth"] == 16}
    root = full["sqrt"]
    for depth in (1, 4, 16):
        (like,) = [r for r in rows if (r["depth"], r["strategy"]) == (depth, "sqrt")]
        less = {"predicted_peak_nbytes": like["predicted_peak_nbytes"] // 2}
        rows.append({**like, **less, "strategy": "planned", "measured_peak_nbytes": None})
    for k in range(1, 9):
        share = {"overhead": 0.1 * k, "recompute_flops": int(0.1 * k * root["forward_flops"])}
        peak = {"predicted_peak_nbytes": full["store_all"]["predicted_peak_nbytes"] >> k}
        bound = {"bound_flops": int(0.05 * k * root["forward_flops"]), "measured_peak_nbytes": None}
        rows.append({**root, **share, **peak, **bound, "strategy": f"planned@{10 * k}%"})
    return rows


def test_the_best_are_steps_and_no_line_strikes_a_label() -> None:
    figure = sweep_figure(planned_rows())
    figure.draw_without_rendering()
    trade = figure.axes[2]
    (hero,) = [line for line in trade.lines if line.get_linewidth() == 2.2]
    corners = np.asarray(hero.get_xydata(), dtype=float)
    assert len(corners) > 10
    assert all((a == b).any() for a, b in pairwise(corners))  # level or upright, never between
    assert "proven\nimpossible" in {text.get_text() for text in trade.texts}
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = [text.get_window_extent(renderer) for text in trade.texts]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    strokes = segments(trade)
    named = [t for t in trade.texts if t.get_text() not in ("proven\nimpossible",)]
    assert [t.get_text() for t in named if struck(t.get_window_extent(renderer), strokes)] == []


def test_a_sweeps_title_is_true_of_its_rows() -> None:
    rows = planned_rows()
    title = headline(rows, 16)
    full = {str(row["strategy"]): row for row in rows if row["depth"] == 16}
    for name in ("store_all", "sqrt", "planned"):
        assert format_bytes(int(str(full[name]["predicted_peak_nbytes"]))) in title
    assert "for no more recompute" in title
    full["planned"]["recompute_flops"] = 10 * int(str(full["sqrt"]["recompute_flops"])) + 1
    assert "planned" not in headline(rows, 16)
    above = int(str(full["sqrt"]["predicted_peak_nbytes"])) + 1
    full["planned"] |= {"recompute_flops": 0, "predicted_peak_nbytes": above}
    assert "planned" not in headline(rows, 16)


def test_a_frontier_is_drawn_as_steps_over_the_impossible() -> None:
    (axes,) = make_frontier().axes
    (hero,) = [line for line in axes.lines if line.get_linewidth() == 2.2]
    assert all((a == b).any() for a, b in pairwise(np.asarray(hero.get_xydata(), dtype=float)))
    texts = " ".join(text.get_text() for text in axes.texts)
    assert "proven impossible: no schedule below 5 MiB" in texts
    assert "logarithmic" in texts  # recompute_all needs 68 forwards


def test_an_unmeasured_sweep_says_so_and_has_no_points() -> None:
    figure = sweep_figure(sweep_rows(measure=False))
    assert "Nothing was measured" in figure.get_supxlabel()
    (points,) = [line for line in figure.axes[0].lines if line.get_marker() == "s"]
    assert ys(points) == []


@pytest.mark.parametrize("rows", [[], sweep_rows(depths=(1,), segments=())])
def test_a_sweep_of_little_or_nothing_is_drawn(
    rows: list[dict[str, object]], tmp_path: Path
) -> None:
    save(sweep_figure(rows), tmp_path / "sweep.png")


def test_a_frontier_without_bounds_or_livesis_drawn(tmp_path: Path) -> None:
    save(frontier_figure(frontier_rows()), tmp_path / "frontier.png")
    save(frontier_figure([]), tmp_path / "empty.png")


def test_every_planner_has_a_look_of_its_own() -> None:
    assert len(set(LOOKS.values())) == len(LOOKS)
    assert len({known.marker for known in LOOKS.values()}) == len(LOOKS)
    assert look("every:4") == LOOKS["every"]
    assert look("someone's planner") == look("someone's planner:9")
    assert ink("#F0E442") != "#F0E442"
    assert ink("#000000") == "#000000"


def test_labels_are_moved_apart_as_little_as_can_be() -> None:
    assert spread([0, 1, 50], 10) == pytest.approx([-4.5, 5.5, 50])
    assert spread([50, 0, 1], 10) == pytest.approx([50, -4.5, 5.5])
    assert spread([], 10) == []


@pytest.mark.parametrize(
    ("span", "step"),
    [(0, 1), (5, 1), (60, 10), (6 * 2**20, 2**20), (9 * 2**20, 2 * 2**20), (2**30, 200 * 2**20)],
)
def test_byte_ticks_are_round(span: int, step: int) -> None:
    assert byte_step(span) == step


def test_a_label_keeps_clear_of_the_steps_of_a_line() -> None:
    figure = new_figure(4, 3)
    axes = figure.subplots()
    axes.set_yscale("log")
    axes.plot([0, 4, 8], [9, 5, 1], drawstyle="steps-post", clip_on=False)
    figure.draw_without_rendering()
    place(axes, [Label(0, 9, "chain", "#000000")])
    corners = axes.transData.transform([(0, 9), (4, 9), (4, 5), (8, 5), (8, 1)]).tolist()
    strokes = [(*a, *b) for a, b in pairwise(corners)]
    np.testing.assert_allclose(segments(axes), strokes)
    (text,) = axes.texts
    assert not struck(text.get_window_extent(), strokes)


def test_the_peak_has_its_line_of_source() -> None:
    graph, line = timeline(3)
    sources = {place.source for place in (*graph, *graph.steps)}
    told = replace(graph, lines=dict.fromkeys(sources, "y = np.tanh(x @ w)"))
    said = timeline_figure(line, graph=told).axes[0].texts[0].get_text()
    assert said.splitlines()[-1] == "y = np.tanh(x @ w)"
