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
        rows = zip(x[off], found[off], want[off], strict=True)
        said = [f"at {a!r} {b!r}, right is {c!r}" for a, b, c in rows]
        assert not said, f"{what} derivative of {name}: " + "; ".join(said)


# -- two operands ----------------------------------------------------------------------------------

INF = np.inf
PAIRS = {
    "arctan2": [
        (0.0, 0.0, 0, 0), (0.0, -0.0, 0, 0), (1e-200, 1e-200, 5e199, -5e199),
        (1e200, 1e200, 5e-201, -5e-201), (0.0, 2.0, 0.5, 0), (1.0, INF, 0, 0), (-INF, 1.0, 0, 0),
        (INF, INF, 0, 0),
    ],
    "hypot": [
        (0.0, 0.0, 0, 0), (-0.0, 0.0, 0, 0), (3e-200, 4e-200, 0.6, 0.8), (5e-324, 0.0, 1, 0),
        (3e200, -4e200, 0.6, -0.8), (INF, 1.0, 1, 0), (-INF, 1.0, -1, 0), (0.0, -2.0, 0, -1),
    ],
    "logaddexp": [
        (0.0, 0.0, 0.5, 0.5), (-INF, 1.0, 0, 1), (1.0, -INF, 1, 0), (-INF, -INF, 0.5, 0.5),
        (INF, 1.0, 1, 0), (1e160, 1e160, 0.5, 0.5), (800.0, -800.0, 1, 0), (-1e300, 1e300, 0, 1),
    ],
    "logaddexp2": [
        (0.0, 0.0, 0.5, 0.5), (-INF, 1.0, 0, 1), (INF, 1.0, 1, 0), (1e160, 1e160, 0.5, 0.5),
    ],
    "power": [
        (0.0, 0.0, 0, 0), (0.0, 1.0, 1, 0), (0.0, 2.0, 0, 0), (0.0, 0.5, INF, 0),
        (0.0, -1.0, -INF, -INF), (2.0, 0.0, 0, np.log(2)), (INF, 0.0, 0, INF),
        (-2.0, 3.0, 12, None), (1e-200, 2.0, 2e-200, 0),
    ],
    "remainder": [(1.0, 0.1, 1, -9), (-1.0, 3.0, 1, 1), (1.0, INF, 1, 0), (5.0, 2.0, 1, -2)],
    "fmod": [(1.0, 0.1, 1, -9), (-1.0, 3.0, 1, 0), (1.0, INF, 1, 0), (-5.0, 2.0, 1, 2)],
    "copysign": [(0.0, 1.0, 0, 0), (2.0, -0.0, -1, 0), (-INF, 1.0, -1, 0), (5e-324, -1.0, -1, 0)],
    "heaviside": [(0.0, 0.5, 0, 1), (-0.0, 0.5, 0, 1), (1.0, 0.5, 0, 0), (-5e-324, 0.5, 0, 0)],
    "maximum": [(1.0, 1.0, 0.5, 0.5), (0.0, -0.0, 0.5, 0.5), (INF, 1.0, 1, 0), (np.nan, 1.0, 1, 1)],
    "minimum": [(1.0, 1.0, 0.5, 0.5), (-INF, 1.0, 1, 0), (np.nan, 1.0, 1, 1)],
    "fmax": [(1.0, 1.0, 1, 0), (np.nan, 1.0, 0, 1), (1.0, np.nan, 1, 0), (-INF, 1.0, 0, 1)],
    "fmin": [(1.0, 1.0, 1, 0), (np.nan, 1.0, 0, 1), (1.0, np.nan, 1, 0), (-INF, 1.0, 1, 0)],
    "true_divide": [(0.0, 2.0, 0.5, 0), (1.0, INF, 0, 0), (1.0, 1e200, 1e-200, 0)],
    "special.xlogy": [
        (0.0, 0.0, 0, 0), (0.0, 2.0, np.log(2), 0), (3.0, 0.0, -INF, INF), (1e-310, 1.0, 0, 1e-310),
    ],
    "special.xlog1py": [(0.0, -1.0, 0, 0), (0.0, 1.0, np.log(2), 0)],
    "special.rel_entr": [(0.0, 0.0, None, 0), (0.0, 2.0, -INF, 0), (1.0, 1.0, 1, -1)],
    "special.kl_div": [(0.0, 0.0, None, 1), (1.0, 1.0, 0, 0)],
    "special.pseudo_huber": [(0.0, 0.0, 0, 0), (0.0, 2.0, None, 0), (1.0, 0.0, 0, 0)],
    "special.huber": [(1.0, 1.0, 0, 1), (1.0, -1.0, 0, -1), (0.0, 0.0, 0, 0)],
}  # fmt: skip
"""Two operands and the derivatives by both; None: by this one there is none worth a word."""


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("name", PAIRS)
def test_two_operands(name, dtype):
    f = function_of(name)
    for x, y, by_x, by_y in PAIRS[name]:
        with np.errstate(all="ignore"):
            x, y, given = *np.array([x, y], dtype), (x, y)
            if tuple(map(float, (x, y))) != given and not np.isnan(given).any():
                continue  # not a number of this dtype
            found = ckpt.grad(lambda x, y: f(x, y), (0, 1))(x, y)
        for got, want in zip(found, (by_x, by_y), strict=True):
            if want is not None:
                np.testing.assert_allclose(
                    got, want, TOLERANCE[dtype][0], 1e-14, err_msg=f"{x} {y}"
                )


@pytest.mark.parametrize("f", [np.logaddexp, np.logaddexp2])
def test_the_second_derivative_of_terms_of_any_distance(f):
    for apart in (0.0, 1.0, 40.0, 800.0, 1e5, -800.0):
        found = ckpt.grad(lambda t: ckpt.grad(lambda s: f(s, 0 * s))(t))(apart)
        base = np.log(2) if f is np.logaddexp2 else 1.0
        p = 1 / (1 + np.exp(-min(abs(apart), 700) * base))
        np.testing.assert_allclose(found, base * p * (1 - p), rtol=1e-6, atol=1e-15)


# -- along axes ------------------------------------------------------------------------------------


def hessian(f, x):
    """The matrix of second derivatives."""
    rows = [
        ckpt.grad(lambda x, k=k: np.ravel(ckpt.grad(f)(x))[k])(x).ravel() for k in range(x.size)
    ]
    return np.array(rows)


def product_hessian(x):
    n = x.size
    return np.array(
        [[0 if i == j else np.prod(np.delete(x, [i, j])) for j in range(n)] for i in range(n)]
    )


@pytest.mark.parametrize("zeros", [(), (1,), (0, 2), (0, 1, 3)])
def test_products_of_zeros_to_every_order(zeros):
    x = np.array([2.0, -3.0, 0.5, 4.0])
    x[list(zeros)] = 0
    others = np.array([np.prod(np.delete(x, k)) for k in range(4)])
    np.testing.assert_allclose(ckpt.grad(np.prod)(x), others)
    np.testing.assert_allclose(hessian(np.prod, x), product_hessian(x))
    np.testing.assert_allclose(hessian(lambda x: np.cumprod(x)[-1], x), product_hessian(x))
    third = ckpt.grad(
        lambda x: ckpt.grad(lambda x: ckpt.grad(lambda x: np.prod(x))(x)[0] * 1.0)(x)[1] * 1.0
    )
    np.testing.assert_allclose(third(x), [0, 0, x[3], x[2]])
    grid = x.reshape(2, 2)
    np.testing.assert_allclose(ckpt.grad(lambda g: np.prod(g, axis=(1, 0)))(grid).ravel(), others)


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 0), (0, 3), (1, 1), (2, 1)])
@pytest.mark.parametrize(
    "f", [np.sum, np.prod, np.mean, np.std, np.var, np.max, np.cumsum, np.cumprod, np.linalg.norm]
)
def test_axes_of_none_and_of_one(f, shape):
    x = np.full(shape, 3.0)
    for axis in range(len(shape)):
        if f is np.max and not shape[axis]:
            continue
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            first = ckpt.grad(lambda x, axis=axis: np.sum(f(x, axis=axis) * 2.0))
            g = first(x)
            again = ckpt.grad(lambda x, first=first: np.sum(first(x)))(x)
        assert g.shape == again.shape == shape
        if shape[axis] == 1:
            one = {np.std: 0.0, np.var: 0.0}.get(f, 2.0)
            np.testing.assert_array_equal(g, np.full(shape, one))


def test_spreads_and_norms_where_they_have_a_kink():
    zeros, ones = np.zeros(4), np.ones(4)
    for f in (
        np.linalg.norm,
        np.std,
        lambda x: np.linalg.norm(x, 3),
        lambda x: np.linalg.norm(x, 1.5),
    ):
        np.testing.assert_array_equal(ckpt.grad(f)(zeros), zeros)
    np.testing.assert_array_equal(ckpt.grad(np.std)(ones), zeros)
    np.testing.assert_array_equal(ckpt.grad(lambda x: np.std(x, ddof=1))(ones), zeros)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isnan(ckpt.grad(lambda x: np.var(x, ddof=4))(ones)).all()
    x = np.array([0.0, -0.0, 3.0, -4.0])
    for order in (1.5, 2, 2.5, 3, 7):
        right = np.sign(x) * (np.abs(x) / np.linalg.norm(x, order)) ** (order - 1)
        np.testing.assert_allclose(ckpt.grad(lambda x, p=order: np.linalg.norm(x, p))(x), right)
    np.testing.assert_allclose(ckpt.grad(lambda x: np.linalg.norm(x, np.inf))(-ones), -ones / 4)
    z = np.array([0j, 3 + 4j])
    np.testing.assert_allclose(ckpt.grad(np.linalg.norm)(z), [0, 0.6 - 0.8j])
    np.testing.assert_allclose(ckpt.grad(lambda z: np.linalg.norm(z, 3))(z), [0, 0.6 - 0.8j])


@pytest.mark.parametrize("f", [np.max, np.min])
def test_ties_share(f):
    np.testing.assert_array_equal(ckpt.grad(f)(np.array([2.0, 2.0, 2.0, 2.0])), np.full(4, 0.25))


def test_clip_at_its_bounds():
    x = np.array([-1.0, -0.5, 1.0, 2.0, np.inf, -np.inf])
    g = ckpt.grad(lambda x, a, b: np.sum(np.clip(x, a, b)), (0, 1, 2))(x, -1.0, 1.0)
    assert [part.tolist() for part in g] == [[1, 1, 1, 0, 0, 0], 1.0, 2.0]


# -- complex numbers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "z", [1e-310 + 1e-310j, 3e-200 - 4e-200j, 3e200 + 4e200j, -2.0 + 0j, 5e-324j, complex(INF, 1)]
)
def test_the_length_of_a_complex_number(z):
    unit = np.sign(z)
    assert abs(abs(unit) - 1) < 1e-12
    np.testing.assert_allclose(ckpt.grad(np.abs)(np.complex128(z)), np.conjugate(unit), rtol=1e-12)


COMPLEX: dict[str, list[tuple[complex, complex, complex]]] = {}
for line in (Path(__file__).parent / "complex_points.txt").read_text().splitlines():
    name, *numbers = line.split()
    COMPLEX.setdefault(name, []).append(tuple(map(complex, numbers)))


@pytest.mark.parametrize("dtype", ["c16", "c8"])
@pytest.mark.parametrize("name", COMPLEX)
def test_holomorphic_derivatives_at_special_points(name, dtype):
    """Of the real part of f, whose gradient is f'; of the real part of that, f''."""
    f = getattr(np, name)

    def first(z):
        return ckpt.grad(lambda y: np.sum(np.real(f(y))))(z)

    for z, *right in COMPLEX[name]:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            there = np.array([z], dtype)
            if complex(there[0]) != z:
                continue
            found = first(there), ckpt.grad(lambda z: np.sum(np.real(first(z))))(there)
        for got, want, slack in zip(found, right, (1, 100), strict=True):
            assert got.dtype == there.dtype
            if abs(want) < 0.1 * float(np.finfo(dtype).max):
                rtol, atol = (slack * t for t in TOLERANCE["f8" if dtype == "c16" else "f4"])
                off = abs(complex(got[0]) - want)
                assert off <= rtol * abs(want) + atol, f"at {z}: {got[0]}, right is {want}"


def test_complex_products_and_spreads_with_zeros():
    for zeros in ((), (1,), (0, 2), (0, 1, 3)):
        x = np.array([2.0 + 1j, -3.0, 0.5j, 4.0 - 2j])
        x[list(zeros)] = 0
        others = np.array([np.prod(np.delete(x, k)) for k in range(4)])
        for f in (np.prod, lambda x: np.cumprod(x)[-1]):
            real = lambda x, f=f: np.real(f(x))  # noqa: E731
            np.testing.assert_allclose(ckpt.grad(real)(x), others, atol=1e-15)
            np.testing.assert_allclose(hessian_of_real(real, x), product_hessian(x), atol=1e-15)
    tiny = np.array([3e-150 + 4e-150j, 0j, -0.0 + 0j])
    np.testing.assert_allclose(ckpt.grad(np.linalg.norm)(tiny), [0.6 - 0.8j, 0, 0], rtol=1e-12)
    alike = np.full(3, 1 + 2j)
    for f in (np.std, np.var):
        np.testing.assert_array_equal(ckpt.grad(f)(alike), np.zeros(3))


def hessian_of_real(f, x):
    rows = [ckpt.grad(lambda x, k=k: np.real(ckpt.grad(f)(x)[k]))(x) for k in range(x.size)]
    return np.array(rows)


def test_complex_zeros():
    for f in (np.abs, np.angle, lambda z: np.real(np.sign(z)), lambda z: np.real(z * z)):
        assert ckpt.grad(f)(np.complex128(0)) == 0


def test_the_sign_of_a_complex_number_turns_with_it():
    z = np.array([1 + 2j, -3 + 0.5j])
    assert ckpt.gradcheck(np.sign, z, order=2) < 1


# -- counts in half precision ----------------------------------------------------------------------


@pytest.mark.parametrize("count", [2048, 70_000, 1_000_000])
@pytest.mark.parametrize(
    "f",
    [
        np.mean, np.average, np.nanmean, np.max, np.var, lambda x: np.var(x, ddof=1),
        lambda x: np.mean(x, axis=0), lambda x: np.sum(np.mean(x[None], axis=(0, 1))),
        lambda x: ckpt.nn.mse(x, 0 * x), lambda x: np.std(x[:2048]),
    ],
)  # fmt: skip
def test_counts_of_float16(f, count):
    """The gradient that float64 has, times a scale that keeps it in float16's range."""
    x = np.where(np.arange(count) % 2, 1.0, -1.0)
    scale = 60_000.0
    right = ckpt.grad(lambda x: f(x))(x) * scale
    with np.errstate(over="ignore"):  # NumPy's own sum of squares is infinite
        half = ckpt.grad(lambda x: f(x) * np.float16(scale))(x.astype(np.float16))
    assert half.dtype == np.float16
    np.testing.assert_allclose(half.astype(float), right, rtol=4e-3, atol=2e-7)


@pytest.mark.parametrize("size", [1.0, 300.0, 20_000.0, 1e-4])
@pytest.mark.parametrize(
    "f",
    [
        np.linalg.norm, np.std, lambda x: np.linalg.norm(x, 3), lambda x: np.linalg.norm(x, 1.5),
        lambda x: np.sum(np.linalg.norm(x.reshape(2, 2), axis=1, keepdims=True)),
        lambda x: np.linalg.norm(x.reshape(2, 2)), lambda x: np.std(x, ddof=1, keepdims=True)[0],
        lambda x: np.sum(np.std(x.reshape(2, 2), axis=1, keepdims=True)),
    ],
)  # fmt: skip
def test_lengths_of_float16_whose_squares_overflow_or_vanish(f, size):
    x = np.array([1.0, -2.0, 0.5, 3.0]) * size
    with np.errstate(over="ignore"):  # NumPy's own value is infinite
        half = ckpt.grad(f)(x.astype(np.float16))
    assert half.dtype == np.float16
    np.testing.assert_allclose(half.astype(float), ckpt.grad(f)(x), rtol=4e-3, atol=1e-3)


def test_the_catalogue_says_what_is_chosen():
    pytest.importorskip("scipy.special")
    from ckpt.tape.core.op import BY_NAME
    from ckpt.tape.ops.conventions import CONVENTIONS
    from ckpt.tape.ops.pointwise.special import learn

    learn()
    assert set(CONVENTIONS) <= set(BY_NAME)
    for f in (np.abs, np.fabs, np.sign, ckpt.nn.relu):
        assert ckpt.grad(f)(0.0) == 0 if f is not np.sign else not f(ckpt.Value(0.0)).requires_grad
    assert ckpt.grad(lambda x: ckpt.nn.leaky_relu(x, 0.25))(0.0) == 0.25
