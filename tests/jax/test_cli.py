"""``file.py:name`` may be a function of JAX's arrays: every command takes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("jax")

from ckpt.cli.app import call

TARGET = """
import jax
import jax.numpy as jnp

def loss(ws, x):
    for w in ws:
        x = x + jnp.tanh(x @ w)
    return jnp.mean(x * x)

def make():
    return loss, [jnp.eye(16) * 0.1 for _ in range(6)], jnp.ones((64, 16))

def shapes():
    return loss, [jnp.eye(16) for _ in range(6)], jax.ShapeDtypeStruct((64, 16), "float32")
"""


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mine.py").write_text(TARGET)
    monkeypatch.chdir(tmp_path)
    return "mine.py:make"


def test_plan_execute_show(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    saved = ["--planner", "chain", "-o", "plan.json", "--json"]
    assert call(["plan", target, "--budget", "60%", "--verify", *saved]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["gradients_equal"] and found["recompute_flops"] > 0
    assert "ckpt.jax.plan" in said.err
    assert call(["execute", "plan.json", target]) == 0
    assert "bit for bit" in capsys.readouterr().out
    assert call(["show", "plan.json"]) == 0
    assert "mine.py:7" in capsys.readouterr().out


def test_profile_and_frontier(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["profile", target, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["measured_peak_nbytes"] <= found["predicted_peak_nbytes"]
    arguments = ["--planners", "chain", "--points", "2", "--json", "-o", "curve.csv"]
    assert call(["frontier", target, *arguments]) == 0
    assert any(row["measured_peak_nbytes"] for row in json.loads(capsys.readouterr().out)["rows"])
    assert call(["profile", "mine.py:shapes"]) == 0
    assert "nothing is measured" in capsys.readouterr().err
