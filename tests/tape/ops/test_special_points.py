"""Rules where formulas break: zeros of both signs, infinities, ties, poles' neighbours, subnormals.

``special_points.txt`` holds first and second derivatives by mpmath, to 60 digits
(`make_special_points.py`). What has two operands or axes is written out below.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

import ckpt

POINTS: dict[str, list[tuple[float, float, float]]] = {}
for line in (Path(__file__).parent / "special_points.txt").read_text().splitlines():
    name, *numbers = line.split()
    POINTS.setdefault(name, []).append(tuple(map(float, numbers)))

TOLERANCE = {"f8": (1e-9, 1e-14), "f4": (2e-5, 1e-6), "f2": (1e-2, 2e-3)}


def function_of(name):
    if name.startswith("special."):
        return getattr(pytest.importorskip("scipy.special"), name.partition(".")[2])
    return getattr(np, name)


def derivatives(f, x):
    """The first and second derivative of an elementwise function at each element."""

    def first(x):
        return ckpt.grad(lambda y: np.sum(f(y)))(x)

    return first(x), ckpt.grad(lambda x: np.sum(first(x)))(x)


def differences(got, want, dtype, slack=1.0):
    """Where ``got`` is not what is wanted, in the dtype's precision and range."""
    rtol, atol = (slack * t for t in TOLERANCE[dtype])
    with np.errstate(over="ignore"):
        want = want.astype(dtype).astype(float)
    close = np.isclose(got.astype(float), want, rtol=rtol, atol=atol)
    largest = float(np.finfo(dtype).max)
    beyond = (np.abs(want) > 0.1 * largest) & (np.abs(got) > 0.1 * largest)
    return ~(close | beyond)


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
@pytest.mark.parametrize("name", POINTS)
def test_derivatives_at_special_points(name, dtype):
    f = function_of(name)
    x, first, second = np.array(POINTS[name]).T
    with np.errstate(over="ignore"):
        exact = x == x.astype(dtype)  # elsewhere the table is of another point
        exact &= np.isinf(first) | np.isfinite(first.astype(dtype))
    x, first, second = x[exact], first[exact], second[exact]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got, again = derivatives(f, x.astype(dtype))
    assert got.dtype == again.dtype == np.dtype(dtype)
    for what, found, want, slack in (("first", got, first, 1), ("second", again, second, 100)):
        off = differences(found, want, dtype, slack)
        said = [f"at {a!r} {b!r}, right is {c!r}" for a, b, c in zip(x[off], found[off], want[off])]
        assert not said, f"{what} derivative of {name}: " + "; ".join(said)
