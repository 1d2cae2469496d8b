"""Scratch: what libraries allocate out of tracemalloc's sight is what the kernel counts."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CALLS = {
    "svd": "np.linalg.svd(x)[1]",
    "svd long": "np.linalg.svd(x, full_matrices=False)[1]",
    "svd complex": "np.linalg.svd(x)[1]",
    "eigh": "np.linalg.eigh(x)[0]",
    "eigh complex": "np.linalg.eigh(x)[0]",
    "eig complex": "np.abs(np.linalg.eig(x)[0])",
    "inv": "np.linalg.inv(x)",
    "det": "np.linalg.det(x)",
    "slogdet": "np.linalg.slogdet(x)[1]",
    "solve": "np.linalg.solve(x, x)",
    "qr": "np.linalg.qr(x)[1]",
    "qr long": "np.linalg.qr(x)[1]",
    "cholesky": "np.linalg.cholesky(x)",
    "fft": "np.abs(np.fft.fft(x + 0j, axis=0))",
    "fft2": "np.abs(np.fft.fft2(x))",
}

CODE = """
import sys
import numpy as np
import ckpt
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.witness import named
n, call = int(sys.argv[1]), sys.argv[2]
kind = sys.argv[3]
rng = np.random.default_rng(0)
x = rng.normal(size=(4 * n if kind == "long" else n, n))
if kind == "complex":
    x = x + 1j * rng.normal(size=x.shape)
if kind != "long":
    x = x @ np.conjugate(x.T) + n * np.eye(n)
function = eval("lambda x: " + call)
small = x[:40, :40].copy()
function(small)  # OpenBLAS's own buffers
_, seen = named("process").of(function, x)
traced = ckpt.trace(lambda x: np.sum(np.abs(function(x))), x)
graph = traced.graph
# The forward up to the op's result: what is live then, its workspace, its scratch.
calls = [i for i, node in enumerate(graph) if node.scratch]
timeline = simulate(graph, make_schedule(graph, "recompute_all"))
first = next(p for p, phase in enumerate(timeline.columns["phase"]) if phase == 2)  # backward
positions = [p for p, step in enumerate(timeline.schedule) if getattr(step, "node", None) in calls
             and type(step).__name__ == "Compute" and p < first]
told = max(timeline.columns["high"][p] + timeline.columns["scratch"][p] for p in positions)
alone = max(timeline.columns["high"][p] for p in positions)
print(seen, told, alone)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's witness is Linux's")
@pytest.mark.parametrize("name", CALLS)
def test_what_the_process_holds_is_told(name: str) -> None:
    _, _, kind = name.partition(" ")
    done = subprocess.run(
        [sys.executable, "-c", CODE, "600", CALLS[name], kind],
        capture_output=True, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen, told, alone = map(int, done.stdout.split())
    assert seen == pytest.approx(told, rel=0.1)
    if "fft" not in name:
        assert seen > 1.1 * alone
