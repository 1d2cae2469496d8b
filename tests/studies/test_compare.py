"""`compare`: what moved between two steps, by line; and the facts beside each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt.reports.reproduce import environment
from ckpt.studies.compare import FACTS, WORKSPACE, moved, verdict
from tests.cli.running import run

BEFORE = """
import numpy as np

def loss(w, x):
    h = np.tanh(x @ w)
    h = np.exp(h)
    return np.sum(h * h)

def job():
    return loss, np.ones((20, 30)), np.ones((40, 20))
"""
AFTER = BEFORE.replace("    h = np.exp(h)\n", "").replace("loss(w, x):\n", "loss(w, x):\n\n")


def made(folder: Path, text: str, name: str) -> str:
    (folder / "model.py").write_text(text)
    (folder / f"{name}.profile.json").unlink(missing_ok=True)
    return str(folder / f"{name}.profile.json")


def test_what_moved_is_told_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text, name in ((BEFORE, "a"), (AFTER, "b")):
        path = made(tmp_path, text, name)
        assert run(capsys, f"profile model.py:job -o {path}").code == 0
    first, second = (ckpt.load_profile(tmp_path / f"{name}.profile.json") for name in "ab")
    rows = {row["line"]: row for row in moved(first, second)}
    gone = rows["model.py:6"]
    a_value_and_its_cotangent = 2 * 40 * 30 * 8
    assert (gone["before_nbytes"], gone["after_nbytes"]) == (a_value_and_its_cotangent, 0)
    assert gone["text"] in BEFORE
    difference = second.timeline.peak - first.timeline.peak
    assert sum(row["moved_nbytes"] for row in rows.values()) == difference != 0
    assert "model.py:5" not in rows, "it stands a line lower, and nothing else"
    done = run(capsys, "compare a.profile.json b.profile.json")
    assert done.code == 0
    assert "model.py:6" in done.out
    assert done.out.startswith("peak ")
    found = json.loads(run(capsys, "compare a.profile.json b.profile.json --json").out)
    assert found["rows"] == list(rows.values())
    same = run(capsys, "compare a.profile.json a.profile.json")
    assert "nothing moved" in same.out


def test_recompute_moves_too_and_a_plan_is_compared_with_a_profile() -> None:
    def loss(w):
        for _ in range(6):
            w = np.tanh(w)
        return np.sum(w)

    w = np.ones((50, 50))
    first = ckpt.profile(loss, w, measure=False)
    second = ckpt.plan(loss, w, budget="60%")
    rows = moved(first, second)
    assert sum(row["moved_recompute_flops"] for row in rows) == second.timeline.recompute_flops > 0
    assert sum(row["moved_nbytes"] for row in rows) == second.timeline.peak - first.timeline.peak
    assert not moved(first, first)
    assert WORKSPACE not in {row["line"] for row in moved(first, first)}


def test_another_numpy_is_told_of(tmp_path: Path) -> None:
    found = ckpt.profile(lambda w: np.sum(w * w), np.ones(100))
    assert found.environment["versions"]["numpy"] == np.__version__
    assert found.environment == environment()
    path = tmp_path / "a.profile.json"
    found.save(path)
    again = ckpt.load_profile(path)
    assert again.environment == found.environment
    again.environment["versions"]["numpy"] = "1.0"
    told = verdict(found, again)
    assert f"versions numpy: {np.__version__} before, 1.0 after" in told
    assert not any("versions" in line for line in verdict(found, found))


@pytest.mark.parametrize(
    ("facts", "lines"),
    [
        ({"cpu": "\x1b[31mred\nverified: all is well"}, 1),
        ({"cpu": "x" * 1_000_000, "\u202e": 1}, 2),
        ({"cpu": [1, {"a": None}], "versions": {"numpy": {"deep": 1}}}, 2),
        ({"cpu": 1} | {str(k): k for k in range(10_000)}, FACTS + 1),
    ],
)
def test_facts_from_elsewhere_are_told_in_a_line_each(facts: dict[str, Any], lines: int) -> None:
    one, two = (ckpt.profile(lambda w: np.sum(w * w), np.ones(100)) for _ in range(2))
    one.environment, two.environment = {"cpu": "fast"}, facts
    _, _, _, *told = verdict(one, two)  # after both peaks, recompute, and what was measured
    assert len(told) == lines
    assert all(line.isprintable() and len(line) < 400 for line in told)


def test_env_says_what_a_figure_depends_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    out = run(capsys, "env").out
    for text in (np.__version__, "MALLOC_TRIM_THRESHOLD_ 65536", "OPENBLAS_NUM_THREADS 3", "cpu",
                 "tracemalloc"):  # fmt: skip
        assert text in out
    facts = json.loads(run(capsys, "env --json").out)
    assert facts["malloc"] == {"MALLOC_TRIM_THRESHOLD_": "65536"}
    assert facts["blas"] == environment()["blas"]


def test_what_has_no_peak_is_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = ckpt.trace(lambda w: np.sum(w * w), np.ones(3)).graph
    path = tmp_path / "g.json"
    path.write_text(json.dumps(graph.to_json()))
    done = run(capsys, f"compare {path} {path}")
    assert done.code == 2
    assert "holds no plan and no profile" in done.err
