"""Scratch: what libraries allocate out of tracemalloc's sight is what the kernel counts."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import ckpt
from ckpt.tape.ops.linear import pocketfft
from ckpt.tape.ops.linear.scratch import TRACED

SEEN = "tracemalloc sees LAPACK's buffers with NumPy 2.5: they are workspace, held to it elsewhere"

SQUARE, LONG, WIDE, STACK = "600,600", "2400,600", "600,2400", "3,600,600"

QUICK = [
    ("svd(x)", "float64", SQUARE),
    ("svd(x)", "complex64", SQUARE),
    ("svd(x, compute_uv=False)", "float64", WIDE),
    ("pinv(x)", "float32", "900,600"),
    ("eigh(x)", "float32", SQUARE),
    ("inv(x)", "complex128", SQUARE),
    ("solve(x, x[..., :20])", "float64", STACK),
    ("qr(x)", "float32", SQUARE),
    ("cholesky(x)", "float64", STACK),
    ("fft(x)", "complex64", "600,1200"),
    ("fft2(x)", "float64", "601,1201"),
    ("rfft(x)", "float64", "100003"),
    ("det(x)", "float64", SQUARE),
]
"""Function of np.linalg or np.fft, dtype, shape."""

DEEP = [
    *[
        (f"svd(x, {how})", dtype, shape)
        for how in ("full_matrices=False", "compute_uv=False")
        for dtype in ("float32", "float64", "complex64", "complex128")
        for shape in (SQUARE, LONG, WIDE, STACK)
    ],
    *[
        (call, dtype, shape)
        for call in (
            "svd(x)", "eigh(x)", "eigvalsh(x)", "inv(x)", "det(x)", "slogdet(x)", "cholesky(x)",
            "cholesky(x, upper=True)", "solve(x, x)", "solve(x, x[..., :50])", "qr(x)",
            "pinv(x)", "norm(x, 2)" , "cond(x)", "matrix_power(x, -2)",
        )
        for dtype in ("float32", "float64", "complex64", "complex128")
        for shape in ((SQUARE,) if call[:2] in ("no", "co") else (SQUARE, STACK))
    ],
    *[("det(x)", dtype, "800,800") for dtype in ("float64", "complex128")],
    *[("eig(x)", dtype, shape) for dtype in ("complex64", "complex128")
      for shape in (SQUARE, STACK)],
    *[(f"qr(x, mode={mode!r})", dtype, shape) for mode in ("reduced", "complete")
      for dtype in ("float32", "float64", "complex128") for shape in ("900,600", WIDE)],
    *[("qr(x, mode='r')", dtype, "900,600") for dtype in ("float32", "float64", "complex128")],
    *[
        (call, dtype, shape)
        for call, dtypes in {
            "fft(x)": "fdFD", "ifft(x)": "fdFD", "rfft(x)": "fd", "irfft(x)": "FD",
            "fft(x, axis=0)": "FD", "rfft(x, axis=0)": "fd", "irfft(x, axis=0)": "FD",
            "fft(x, norm='ortho')": "fdFD", "rfft(x, norm='ortho')": "fd",
            "ifft(x, norm='forward')": "FD", "irfft(x, norm='ortho')": "fFD",
            "fft(x, 1500)": "fD", "rfft(x, 1500, axis=0)": "fd", "irfft(x, 900)": "FD",
            "fft2(x)": "fdFD", "ifft2(x)": "FD", "rfft2(x)": "fd", "irfft2(x)": "FD",
        }.items()
        for dtype in dtypes for shape in ("601,1201", "600,1200")
    ],
    *[(call, dtype, shape) for call in ("fft(x)", "ifft(x)") for dtype in "fD"
      for shape in ("1048576", "1000003", "999999", "3,300007", "4,262144", "2,300007")],
    *[(call, "d", shape) for call in ("rfft(x)", "ihfft(x)")
      for shape in ("1048576", "1000003", "999999", "3,300007")],
    *[(call, "D", "500002") for call in ("irfft(x)", "irfft(x, 1000003)", "hfft(x)")],
    *[(call, "F", "60,100,128") for call in ("fftn(x)", "fftn(x, axes=(0, 2))", "ifftn(x)")],
    *[(call, dtype, shape) for call, dtype in (("rfft(x, 1500000)", "d"), ("fft(x, 1500000)", "D"))
      for shape in ("1000003", "1400000", "2,1400000")],
    ("rfftn(x)", "d", "61,101,127"), ("fft2(x)", "D", "2003,1009"),
]  # fmt: skip

CODE = """
import sys
import numpy as np
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.program import execute
from ckpt.studies.given import program_of
from ckpt.witness import named
call, dtype, shape = sys.argv[1], np.dtype(sys.argv[2]), tuple(map(int, sys.argv[3].split(",")))
rng = np.random.default_rng(0)
x = rng.normal(size=shape) + 1j * rng.normal(size=shape) * (dtype.kind == "c")
if "fft" not in call and shape[-1] == shape[-2]:
    x = x @ np.conjugate(np.swapaxes(x, -1, -2))
if "fft" not in call:  # singular values that differ, in single precision too
    x *= 0.01 / np.abs(x).max()
    x[..., np.arange(600), np.arange(600)] += np.arange(1, 601)
x = (x if dtype.kind == "c" else x.real).astype(dtype)
function = eval(f"lambda x: np.{'fft' if 'fft' in call else 'linalg'}.{call}")
parts = lambda made: made if isinstance(made, tuple) else (made,)
loss = lambda x: sum(np.sum(np.abs(part)) for part in parts(function(x)))
args = (x,)
if "plain" in sys.argv:  # no gradient is asked for, so that NumPy's own function is called
    loss, args = lambda w, x: (np.sum(w * w), function(x)), (np.ones(2), x)
program = program_of(loss, args, 0, "plain" in sys.argv, "loss", frozen=True)
schedule = make_schedule(program.graph, "store_all")
told = simulate(program.graph, schedule).columns
if "fft" not in call:
    program.execute(schedule, *args)  # OpenBLAS's own buffers
witness = named("process", program.witness.sample)
run = execute(program, schedule, *args, trace_memory=True, witness=witness)
seen = run.timeline.columns["high"]
own = [p for p, scratch in enumerate(told["scratch"]) if scratch] or range(len(seen))
zeros = x.nbytes if "'r'" in call else 0  # the cotangent of Q, whose pages nobody writes to
print(*max((told["high"][p] + told["scratch"][p], seen[p] + zeros * (told["phase"][p] == 2),
            told["high"][p]) for p in own))
for p, step in enumerate(schedule.instructions):  # what is freed was there before
    most = told["high"][p] + told["scratch"][p]
    if type(step).__name__ != "Free" and seen[p] > 1.1 * most + (1 << 20):
        sys.exit(f"{program.graph.describe(step.node) if hasattr(step, 'node') else step}: "
                 f"{seen[p]} seen, {most} told")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's witness is Linux's")
@pytest.mark.parametrize(
    ("call", "dtype", "shape"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in DEEP)],
)
def test_what_the_process_holds_is_told(call: str, dtype: str, shape: str) -> None:
    """At the instruction with scratch that is highest, forward or back."""
    if TRACED and "fft" not in call:
        pytest.skip(SEEN)
    told, seen, alone = measured(call, dtype, shape)
    assert told == pytest.approx(seen, rel=0.1)
    if "fft" not in call and "," not in shape[4:]:
        assert seen - alone > (told - alone) / 2


def measured(*how: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *how],
        capture_output=True, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(map(int, done.stdout.split()))


@pytest.mark.skipif(TRACED, reason=SEEN)
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's witness is Linux's")
@pytest.mark.parametrize("dtype", ["float64", pytest.param("complex64", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "call", ["eigvalsh(x)", "svd(x, compute_uv=False)", "pinv(x)", "norm(x, 'nuc')", "cond(x)"]
)
def test_scratch_of_plain_arrays(call: str, dtype: str) -> None:
    told, seen, alone = measured(call, dtype, "900,900", "plain")
    assert told == pytest.approx(seen, rel=0.1)
    assert seen > 1.02 * alone


@pytest.mark.parametrize("dtype", "efdFD")
@pytest.mark.parametrize("norm", [None, "backward", "ortho", "forward"])
def test_a_transform_in_single_precision_has_numpy_s_bits(dtype: str, norm: str | None) -> None:
    rng = np.random.default_rng(0)
    made = rng.normal(size=(5, 6, 14)) + 1j * rng.normal(size=(5, 6, 14))
    x = (made if dtype in "FD" else made.real).astype(dtype)
    for name in ("fft", "ifft", "rfft", "irfft"):
        if (name == "rfft") > (dtype in "fd"):
            continue
        function = getattr(np.fft, name)
        for given, axis, n in ((x, -1, None), (x[::2], 1, 9), (np.asfortranarray(x), 0, 3)):
            expected = function(given, n, axis, norm)
            found = function(ckpt.Value(given), n, axis, norm).data
            assert found.dtype == expected.dtype
            assert found.strides == expected.strides
            assert found.tobytes() == expected.tobytes()


def test_lengths_are_planned_as_pocketfft_does() -> None:
    """Its own good sizes; a prime of 47 is passed directly, large ones by convolution."""
    assert [pocketfft._good_size(n) for n in (1, 13, 97, 2001, 10007)] == [1, 14, 98, 2016, 10080]
    assert not pocketfft._is_convolved(47, real=False)
    assert pocketfft._is_convolved(1009, real=False)
    assert not pocketfft._is_convolved(2**20, real=False)
    assert pocketfft.transform(1 << 10, 1, False, 8, False) < 3 * 16 * (1 << 10)
