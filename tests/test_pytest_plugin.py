"""The marker and the fixture in a user's own tests: run by a pytest of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

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


SHAPES = """
import asyncio
import unittest

import numpy as np
import pytest

def loss(w):
    return np.sum(np.tanh(w))

W = np.ones((50, 50))
enough, little = pytest.mark.ckpt_peak("100kB"), pytest.mark.ckpt_peak("1kB")

@pytest.mark.parametrize("limit", [pytest.param(0, marks=enough), pytest.param(1, marks=little)])
def test_parameters(ckpt_peak, limit):
    ckpt_peak(loss, W)

@little
class TestAll:
    def test_that_takes_it(self, ckpt_peak):
        ckpt_peak(loss, W)

    @enough
    def test_that_knows_better(self, ckpt_peak):
        ckpt_peak(loss, W)

    def test_of_something_else(self):
        pass

class TestCase(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def taken(self, ckpt_peak):
        self.ckpt_peak = ckpt_peak

    @little
    def test_that_calls(self):
        self.ckpt_peak(loss, W)

    @little
    def test_that_does_not(self):
        pass

    @little
    def test_that_skips(self):
        self.skipTest("today")

@pytest.mark.ckpt_peak("1B", 0.3)
def test_of_two_numbers(ckpt_peak):
    ckpt_peak(loss, W)

@little
def test_skips(ckpt_peak):
    pytest.skip("today")

@little
def test_fails_before(ckpt_peak):
    assert not W.size

@little
@pytest.mark.xfail(strict=True)
def test_is_known_to_fail(ckpt_peak):
    ckpt_peak(loss, W)

@enough
def test_loop(ckpt_peak):
    async def held():
        ckpt_peak(loss, W, measured=True)
    asyncio.run(held())

@enough
def test_another_thread(ckpt_peak):
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(1) as there:
        there.submit(ckpt_peak, loss, W).result()
"""
OUTCOMES = {
    "test_parameters[0]": "PASSED", "test_parameters[1]": "FAILED",
    "TestAll::test_that_takes_it": "FAILED", "TestAll::test_that_knows_better": "PASSED",
    "TestAll::test_of_something_else": "PASSED",
    "TestCase::test_that_calls": "FAILED", "TestCase::test_that_does_not": "FAILED",
    "test_fails_before": "FAILED", "test_is_known_to_fail": "XFAIL", "test_loop": "PASSED",
    "test_of_two_numbers": "ERROR", "test_another_thread": "PASSED",
}  # fmt: skip


def pytest_on(folder: Path, *options: str, tests: str = TESTS) -> str:
    (folder / "test_theirs.py").write_text(tests)
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


@pytest.mark.parametrize("options", [[], ["-p", "xdist", "-n", "2"]], ids=["here", "xdist"])
def test_tests_of_any_kind(tmp_path: Path, options: list[str]) -> None:
    """Classes, parameters, `unittest`, loops, threads: and each has one outcome."""
    if options:
        pytest.importorskip("xdist")
    out = pytest_on(tmp_path, *options, tests=SHAPES)
    found: dict[str, str] = {}
    for line in out.splitlines():
        if told := re.match(r"([A-Z]+) test_theirs.py::(\S+)", line):
            assert found.setdefault(told[2], told[1]) == told[1], f"{told[2]} has two outcomes"
    assert found == OUTCOMES
    assert "2 skipped" in out
    assert "name what else there is" in out


def test_who_does_not_want_it_has_nothing_of_it(tmp_path: Path) -> None:
    plain = "def test_one(): pass"
    assert "1 passed" in pytest_on(tmp_path, "-p", "no:ckpt", tests=plain)


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
