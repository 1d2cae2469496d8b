"""The experiments' figures of growth and of training: reproducible, and true to their data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from figure_growth import Panel, Series, growth_figure
from figure_speed import speed_figure
from figure_training import training_figure
from matplotlib.figure import Figure

from ckpt.reports.figure import save
from tests.reports.sample import timeline


def make_training() -> Figure:
    steps = [{"step": k, "loss": 1 / (k + 1), "peak_nbytes": 2**20} for k in range(9)]
    lines = {"store_all": timeline(2)[1], "sqrt": timeline(2, 1)[1]}
    return training_figure({"store_all": steps, "sqrt": steps}, timelines=lines)


def make_growth() -> Figure:
    n = [1, 10, 100]
    series = [Series("sqrt", n, [1, 3, 10], "theory"), Series("sqrt", n, [1, 4, 10])]
    paper = Series("revolve", [10], [4], "paper")
    plans = [Series("chain", [0.1, 0.3], [9, 2]), Series("sqrt", [0.2], [5])]
    return growth_figure(
        [
            Panel([*series, paper], guides={"n": (100, 12), "log n": (100, 2)}),
            Panel(plans, x_unit="ratio", y_unit="nbytes", log_x=False, plans=True),
        ]
    )


def make_speed() -> Figure:
    measured = {"hand": 0.04, "planned": 0.9, "eager": 1.1, "torch": 1.2}
    rows = [
        {"case": case, "way": way, "measured": ratio, "threads": threads}
        for case, threads in [("large", 1), ("large", 2), ("small", 1)]
        for way, ratio in measured.items()
    ]
    return speed_figure(rows)


@pytest.mark.parametrize("make", [make_training, make_growth, make_speed])
@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_the_same_data_gives_the_same_bytes(
    make: Callable[[], Figure], kind: str, tmp_path: Path
) -> None:
    first = save(make(), tmp_path / f"a.{kind}").read_bytes()
    second = save(make(), tmp_path / f"b.{kind}").read_bytes()
    assert first == second


def test_plans_are_joined_by_steps_and_not_through_what_nobody_found() -> None:
    lines, plans = make_growth().axes
    assert {line.get_drawstyle() for line in plans.lines} == {"steps-post"}
    assert {line.get_drawstyle() for line in lines.lines} == {"default"}
    assert {text.get_text() for text in plans.texts} == {"chain", "sqrt"}


def test_times_stand_beside_the_step_by_hand_and_what_was_not_run_is_said_so() -> None:
    one, two = make_speed().axes
    marks = [tuple(map(float, line.get_data()[0])) for line in one.lines]
    assert marks == [(1, 1), *[(0.9,), (1.1,), (1.2,)] * 2]
    assert [text.get_text() for text in two.texts] == ["0.90", "not run"]
    assert two.get_title("left") == "2 threads, time"


def test_losses_that_differ_are_not_called_the_same() -> None:
    rows = [{"step": k, "loss": 1.0, "peak_nbytes": 8} for k in range(3)]
    other = [*rows[:2], {**rows[2], "loss": 1.0 + 2**-52}]
    same = training_figure({"store_all": rows, "sqrt": rows})
    differs = training_figure({"store_all": rows, "sqrt": other})
    assert same.axes[0].get_title("left") == "Loss: bit for bit the same in 3 steps"
    assert differs.axes[0].get_title("left") == "Loss: differs in 1 of 3 steps"
