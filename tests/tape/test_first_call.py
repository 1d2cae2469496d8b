"""The first call of a planned step keeps its promise, in a process in which nothing ran before: it
was compiled when it was planned, and its code is told apart."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt.units import KIB

FIRST = """
import gc, tracemalloc
import ckpt
from ckpt.models import build
from ckpt.planners import make_schedule
work = build("lstm", depth=20)
args = work.arrays(0)
program = ckpt.trace(work.loss, *args)
program.check_steady()
schedule = make_schedule(program.graph, "sqrt")
gc.collect()
tracemalloc.start()
step = program.compile(schedule)
gc.collect()
code, compiling = tracemalloc.get_traced_memory()
tracemalloc.reset_peak()
result = step(*args)
first = tracemalloc.get_traced_memory()[1] - code
gc.collect()
before, _ = tracemalloc.get_traced_memory()
again = program.compile(schedule)
gc.collect()
second = tracemalloc.get_traced_memory()[0] - before
peak = ckpt.simulate(program.graph, schedule).peak
gradients = program.graph.gradient_nbytes
print(len(program.graph), peak, gradients, first, code, second, again.code_nbytes)
"""


def test_in_a_fresh_process() -> None:
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    nodes, promised, gradients, first, code, second, told = map(int, done.stdout.split())
    assert nodes > 800
    assert promised + gradients < 2 << 20
    assert promised + gradients < first <= 1.01 * (promised + gradients) + 256 * KIB
    assert code < 450 * nodes
    assert told == pytest.approx(second, rel=0.3)  # without what Python keeps of the first


def loss(ws: Any, x: Any) -> Any:
    for w in ws:
        x = np.tanh(x @ w)
    return np.sum(x)


WS, X = [np.eye(64) * 0.1 for _ in range(6)], np.ones((256, 64))


def test_planning_allocates_nothing_of_the_buffers_size() -> None:
    wide = 1 << 19  # activations of a TiB
    specs = [ckpt.spec((wide, wide)) for _ in range(4)], ckpt.spec((wide, wide))
    step = ckpt.plan(loss, *specs, planner="store_all")
    assert step.compiled.nbytes >= 4 << 40


def test_buffers_are_there_from_the_first_call_to_the_release() -> None:
    step = ckpt.plan(loss, WS, X, planner="store_all")
    witness = step.program.witness
    expected, first = witness.of(step, WS, X)
    assert first >= step.compiled.nbytes
    _, second = witness.of(step, WS, X)
    assert second < step.compiled.nbytes  # gradients, and no buffers
    step.release()
    again, third = witness.of(step, WS, X)
    assert third >= step.compiled.nbytes
    assert step.program.digest(again) == step.program.digest(expected)


def test_what_is_alike_is_there_once() -> None:
    """Twice the layers have more lines, and hardly more names."""
    sizes = []
    for n in (10, 20):
        program = ckpt.trace(loss, [WS[0]] * n, X)
        compiled = program.compile(ckpt.make_schedule(program.graph, "recompute_all"))
        sizes.append(len(compiled._made._values))
    assert sizes[1] < 1.3 * sizes[0]


def test_a_call_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    step = ckpt.plan(loss, WS, X, planner="store_all")
    monkeypatch.setattr("builtins.compile", None)
    step(WS, X)
    step.release()
    step(WS, X)


def test_options_that_are_equal_and_not_the_same_stay_apart() -> None:
    """0.0 and -0.0, 1 and True: merged, one of two calls would have the other's."""

    def clipped(x: Any) -> Any:
        a, b = np.clip(x, -0.0, 2.0), np.clip(x, 0.0, 2.0)
        return np.sum(1 / np.where(a == 0, a, 1.0)) + np.sum(1 / np.where(b == 0, -b, 1.0) * x)

    x = np.array([[0.0, -0.0, 1.0], [2.0, -1.0, 0.0]])
    with np.errstate(all="ignore"):
        step = ckpt.plan(clipped, x, planner="store_all")
        expected = ckpt.value_and_grad(clipped)(x)
        assert repr(step(x)) == repr(expected)
