"""The marker and the fixture in a user's own tests: run by a pytest of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).parents[1]

TESTS = """
import numpy as np
import pytest

def loss(w):
    for _ in range(6):
        w = np.tanh(w)
    return np.sum(w)

W = np.ones((50, 50))  # 20,000 bytes each

@pytest.mark.ckpt_peak("200kB", recompute=0)
def test_fits(ckpt_peak):
    assert ckpt_peak(loss, W).simulated.peak <= 200_000

@pytest.mark.ckpt_peak("100kB")
def test_is_too_large(ckpt_peak):
    ckpt_peak(loss, W)

@pytest.mark.ckpt_peak(at_most="100kB")
def test_the_call_comes_first(ckpt_peak):
    ckpt_peak(loss, W, at_most="200kB", measured=True)

@pytest.mark.ckpt_peak("1B")
def test_does_not_take_it():
    pass

@pytest.mark.ckpt_peak("1B")
def test_does_not_call_it(ckpt_peak):
    pass

def test_without_a_marker(ckpt_peak):
    ckpt_peak(loss, W, recompute=0)
    ckpt_peak(loss, W, at_most="200kB")
"""


def pytest_on(folder: Path, *options: str) -> str:
    (folder / "test_theirs.py").write_text(TESTS)
    installed = entry_points(group="pytest11", name="ckpt")
    named = () if installed else ("-p", "ckpt.pytest_plugin")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *named, "-p", "no:cacheprovider",
         "--strict-markers", "-rA", *options, "test_theirs.py"],
        cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return done.stdout + done.stderr


def test_each_fails_with_what_there_is_to_know(tmp_path: Path) -> None:
    out = pytest_on(tmp_path)
    for name in ("test_fits", "test_the_call_comes_first", "test_without_a_marker"):
        assert f"PASSED test_theirs.py::{name}" in out, out
    assert "FAILED test_theirs.py::test_is_too_large" in out
    assert "the predicted peak of loss is" in out
    assert "test_theirs.py:7" in out  # the line that sets it
    assert "a plan fits: ckpt.plan(..., budget=" in out
    assert "which doesn't take the fixture ckpt_peak" in out
    assert "which holds nothing to it" in out
    assert "Traceback" not in out


def test_the_marker_is_documented(tmp_path: Path) -> None:
    assert "@pytest.mark.ckpt_peak(at_most, *, recompute=None" in pytest_on(tmp_path, "--markers")


def test_the_entry_point_is_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [name] = project["entry-points"]["pytest11"].values()
    assert import_module(name).ckpt_peak


def test_it_costs_the_start_of_pytest_nothing() -> None:
    code = (
        "import sys, pytest\nbefore = set(sys.modules)\nimport ckpt.pytest_plugin\n"
        "print(sorted(m for m in set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.strip() == "['ckpt', 'ckpt.pytest_plugin']"
