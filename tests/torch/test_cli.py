"""``file.py:name`` may be a function of PyTorch's tensors: every command takes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from ckpt.cli.app import call

TARGET = """
import torch
from torch import nn

def make():
    model = nn.Sequential(*[m for _ in range(6) for m in (nn.Linear(32, 32), nn.GELU())])
    return (lambda x: model(x).square().mean()), torch.randn(128, 32)
"""


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mine.py").write_text(TARGET)
    monkeypatch.chdir(tmp_path)
    return "mine.py:make"


def test_plan_execute_show(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--planner", "chain", "--cost", "roofline"]
    saved = ["-o", "plan.json", "-o", "plan.svg", "--json"]
    assert call(["plan", target, "--budget", "60%", *options, "--verify", *saved]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["gradients_equal"]
    assert abs(found["measured_peak_nbytes"] - found["predicted_peak_nbytes"]) <= 16
    assert found["recompute_flops"] > 0
    assert call(["execute", "plan.json", target]) == 0
    assert "bit for bit" in capsys.readouterr().out
    assert call(["show", "plan.json"]) == 0
    assert "mine.py:7" in capsys.readouterr().out
    assert Path("plan.svg").stat().st_size > 10_000


def test_profile_and_frontier(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["profile", target, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert abs(found["measured_peak_nbytes"] - found["predicted_peak_nbytes"]) <= 16
    plain = found["plain"]
    assert abs(plain["plain_measured_peak_nbytes"] - plain["plain_predicted_peak_nbytes"]) <= 16
    assert plain["smallest_peak_nbytes"] < plain["store_all_peak_nbytes"]
    assert {(row["module"], row["line"]) for row in plain["saved"]} >= {("1", "mine.py:7")}
    assert all(row["recompute_flops"] >= 0 and row["saved_nbytes"] for row in plain["saved"])
    arguments = ["--planners", "chain", "--points", "2", "--json", "-o", "curve.csv"]
    assert call(["frontier", target, *arguments]) == 0
    assert any(row["measured_peak_nbytes"] for row in json.loads(capsys.readouterr().out)["rows"])


def test_shapes_alone(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["plan", target, "--fake", "--planner", "chain", "--budget", "70%", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["predicted_peak_nbytes"] > 0
    assert call(["profile", target, "--fake"]) == 0
    shown = capsys.readouterr()
    assert "nothing is measured" in shown.err
    assert "saves for backward" in shown.out and "the smallest plan found" in shown.out
    assert call(["plan", "mlp", "--fake"]) == 2
