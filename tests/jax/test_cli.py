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
    assert "bytes are the graph's" in said.err
    assert call(["execute", "plan.json", target]) == 0
    assert "bit for bit" in capsys.readouterr().out
    assert call(["show", "plan.json"]) == 0
    assert "mine.py:7" in capsys.readouterr().out


def test_a_budget_is_of_the_compiled_step(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["plan", target, "--budget", "80%", "--verify", "--json", "-o", "plan.json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["compiled_temp_nbytes"] <= found["budget_nbytes"]
    assert found["budget_nbytes"] < found["plain_compiled_temp_nbytes"]
    assert found["gradients_equal"] and found["recompute_flops"] > 0
    assert "conds (compiled in" in said.err and "ckpt execute plan.json" in said.err
    assert call(["plan", target, "--budget", "1KiB"]) == 3
    said = capsys.readouterr().err
    assert "ckpt plan mine.py:make --budget" in said
    assert call(["plan", target, "--budget", "60%", "--no-compile"]) == 0
    assert "certificate" not in capsys.readouterr().out
    assert call(["plan", target, "--compile", "--planner", "chain"]) == 2
    assert call(["plan", "mlp", "--compile"]) == 2
    assert "for functions of JAX" in capsys.readouterr().err


def test_shapes_are_planned_and_not_verified(
    target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["plan", "mine.py:shapes", "--budget", "90%"]) == 0
    assert "of temporaries, compiled, within" in capsys.readouterr().out
    assert call(["plan", "mine.py:shapes", "--budget", "90%", "--verify"]) == 2
    assert "shapes alone" in capsys.readouterr().err


def test_profile_and_frontier(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["profile", target, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["measured_peak_nbytes"] <= found["predicted_peak_nbytes"]
    assert [row["temp_nbytes"] > 0 for row in found["plain"]["ways"]] == [True, True]
    arguments = ["--planners", "chain", "--points", "2", "--json", "-o", "curve.csv"]
    assert call(["frontier", target, *arguments]) == 0
    assert any(row["measured_peak_nbytes"] for row in json.loads(capsys.readouterr().out)["rows"])
    assert call(["profile", "mine.py:shapes"]) == 0
    assert "nothing is measured" in capsys.readouterr().err
