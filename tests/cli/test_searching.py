"""Searches that are stopped, that find nothing, and that go on where they were."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckpt.errors import BudgetError
from ckpt.graph import Graph
from ckpt.planners import planner
from ckpt.planners.base import registry
from ckpt.schedule import Schedule
from tests.cli.running import run

GPT = "plan gpt --depth 2 --budget 60%"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def presses() -> Iterator[list[int]]:
    """A planner during which Ctrl-C is pressed so many times."""
    times = [1]

    @planner("pressed")
    def pressed(graph: Graph, budget: int | None = None) -> Schedule:
        for _ in range(times[0]):
            signal.raise_signal(signal.SIGINT)
        raise BudgetError("none")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield times
    signal.signal(signal.SIGINT, before)
    del registry._REGISTRY["pressed"]


def test_ctrl_c_gives_the_best_so_far(
    capsys: pytest.CaptureFixture[str], presses: list[int]
) -> None:
    found = run(capsys, GPT)
    assert found.code == 0
    assert "stopped early (Ctrl-C)" in found.out
    told = json.loads(run(capsys, f"{GPT} --json").out)
    assert told["stopped_early"] == "Ctrl-C"
    assert 0 < told["overhead"] < 1
    assert told["certificate"]["bounds"][0]["recompute_cost"] > 0
    assert told["predicted_peak_nbytes"] <= told["budget_nbytes"]


def test_ctrl_c_while_others_work_gives_the_best_so_far_too(
    capsys: pytest.CaptureFixture[str], presses: list[int]
) -> None:
    found = run(capsys, f"{GPT} --jobs 1")
    assert found.code == 0
    assert "stopped early (Ctrl-C)" in found.out
    presses[0] = 0
    assert run(capsys, f"{GPT} --jobs 2").out == run(capsys, GPT).out
    assert run(capsys, f"{GPT} --planner sqrt --jobs 2").code == 2


def test_a_second_ctrl_c_is_an_interrupt(
    capsys: pytest.CaptureFixture[str], presses: list[int]
) -> None:
    presses[0] = 2
    found = run(capsys, GPT)
    assert found.code == 130
    assert not found.out


def test_a_time_limit_is_said_where_it_cut(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, f"{GPT} --time-limit 0")
    assert found.code == 0
    assert "stopped early (time limit of 0 s)" in found.out
    told = json.loads(run(capsys, f"{GPT} --time-limit 0 --json").out)
    assert told["stopped_early"] == "time limit of 0 s"
    assert json.loads(run(capsys, f"{GPT} --planner sqrt --json").out)["stopped_early"] is None


def test_below_the_smallest_budget_the_error_has_the_command_that_works(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = "plan mlp --depth 4"
    found = run(capsys, f"{model} --budget 5%")
    assert found.code == 3
    assert "proven by" in found.err
    command = found.err.strip().rpartition("next: ckpt ")[2]
    assert command.startswith(f"{model} --budget ")
    assert run(capsys, *shlex.split(command)).code == 0
    smallest = int(command.split()[-1].removesuffix("B"))
    below = run(capsys, f"{model} --budget {smallest - 1}B")
    assert below.code == 3
    # Between what is proven and what is found nothing is claimed.
    proven = re.search(rf"none needs less than .*\({smallest} bytes\), proven", below.err)
    assert ("undecided" in below.err) != bool(proven)


def test_frontier_goes_on_from_its_rows(
    capsys: pytest.CaptureFixture[str], folder: Path, presses: list[int]
) -> None:
    command = "frontier mlp --depth 6 --planners sqrt,pressed,dtr --budgets 50%,70% --no-measure"
    found = run(capsys, command)
    assert found.code == 130
    assert "goes on from there" in found.err
    (journal,) = (folder / "plots").glob("*.partial.jsonl")
    assert '"sqrt"' in journal.read_text()
    marked = journal.read_text().replace('"planning_seconds": ', '"planning_seconds": 7')
    assert marked != journal.read_text()
    journal.write_text(marked)
    presses[0] = 0
    told = json.loads(run(capsys, f"{command} --json").out)
    seconds = {(r["planner"], r["budget_nbytes"]): r["planning_seconds"] for r in told["rows"]}
    assert len(seconds) == 6
    largest = max(budget for _, budget in seconds)
    assert [key for key, took in seconds.items() if took >= 7] == [("sqrt", largest)]
    assert not journal.exists()
