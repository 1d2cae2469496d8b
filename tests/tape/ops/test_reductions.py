"""Reductions over every choice of axes, layouts, ties, zeros and empty arrays."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from ckpt.errors import AbstractError, MutationError, UnsupportedError
from tests.tape.ops.checking import check_agreement, check_dtype, check_op, check_peer, layouts

RNG = np.random.default_rng(1)
X = RNG.uniform(0.5, 2, (3, 4, 2))
AXES = [None, 0, 1, -1, (0, 2), (1, -1), (0, 1, 2), ()]
SMOOTH = ["sum", "mean", "prod", "var", "std"]
EXTREMA = ["max", "min", "amax", "amin"]


@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("name", SMOOTH + EXTREMA)
def test_axes(name, axis):
    def f(x, np=np):
        return getattr(np, name)(x, axis=axis)

    if axis == () and name in ("var", "std"):
        return  # of one element each: zero, and not differentiable
    check_op(f, X, peer=axis != (), double=axis in (None, 0))
    check_op(lambda x: getattr(np, name)(x, axis=axis, keepdims=True), X, double=False)


@pytest.mark.parametrize("name", [*SMOOTH, "max", "min"])
@pytest.mark.parametrize("side", [100, 300])
def test_memory_is_as_declared(name, side):
    x = RNG.uniform(0.99, 1.01, (side, side))
    for a in layouts(x):
        for axis in (None, 0, 1):
            exact = side < 300 or name in ("sum", "mean")
            check_agreement(lambda x, axis=axis: getattr(np, name)(x, axis=axis), a, exact=exact)
    check_agreement(lambda x: getattr(np, name)(x, axis=1), x.astype(np.float32))


@pytest.mark.parametrize("name", ["var", "std"])
@pytest.mark.parametrize("ddof", [0, 1, 2])
def test_ddof(name, ddof):
    check_op(lambda x, np=np: getattr(np, name)(x, axis=1, ddof=ddof), X)


@pytest.mark.parametrize("name", SMOOTH + EXTREMA)
def test_numbers(name):
    if name in ("var", "std"):
        return
    check_op(lambda x: getattr(np, name)(x) * x, np.float64(1.5))


@pytest.mark.parametrize("name", EXTREMA)
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_ties_are_shared(name, axis):
    x = np.array([[1.0, 2.0, 2.0], [2.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    check_op(lambda x, np=np: getattr(np, name)(x, axis=axis), x, differences=False)


def test_products_with_zeros():
    x = np.array([[1.0, 0.0, 3.0], [0.0, 2.0, 0.0], [2.0, 3.0, 4.0]])
    check_op(lambda x: np.prod(x, axis=1), x, double=False)
    check_op(lambda x: np.prod(x, axis=0), x, double=False)
    check_op(lambda x: np.prod(x), x, double=False)


def test_empty():
    x = np.zeros((0, 3))
    for name in ("sum", "prod"):
        check_op(lambda x: getattr(np, name)(x), x)  # noqa: B023
        check_op(lambda x: getattr(np, name)(x, axis=0), x)  # noqa: B023
    with pytest.raises(ValueError, match="zero-size"):
        np.max(ckpt.Value(x))
    with pytest.raises(ValueError, match="zero-size"):
        ckpt.trace(lambda x: np.max(x), x)


def test_nan_goes_through():
    x = ckpt.Value(np.array([1.0, np.nan]))
    assert np.isnan(np.sum(x).data)
    assert np.isnan(np.max(x).data)
    assert np.isnan(ckpt.grad(lambda x: np.var(x))(x.data)).all()


def test_methods_and_ufunc_reduce():
    x = ckpt.Value(X)
    for name in ("sum", "mean", "prod", "var", "std", "max", "min"):
        for options in ({}, {"axis": 1}, {"axis": (0, 1), "keepdims": True}):
            mine = getattr(x, name)(**options)
            assert np.array_equal(mine.data, getattr(X, name)(**options))
    assert np.array_equal(np.add.reduce(x).data, np.add.reduce(X))
    assert np.array_equal(np.maximum.reduce(x, axis=1).data, np.maximum.reduce(X, axis=1))


def test_sums_in_another_dtype():
    half = RNG.uniform(size=(5, 3)).astype(np.float32)
    check_dtype(lambda x: np.sum(x, axis=0, dtype=np.float64), half)
    check_agreement(lambda x: np.sum(x, axis=0, dtype=np.float64), half)
    check_dtype(lambda x: np.mean(x, dtype=np.float64), half)


@pytest.mark.parametrize("name", ["all", "any", "argmax", "argmin", "count_nonzero"])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_what_has_no_gradient(name, axis):
    f = getattr(np, name)
    made = f(ckpt.Value(X), axis=axis)
    assert not made.requires_grad
    assert np.array_equal(made.data, f(X, axis=axis))
    for a in layouts(RNG.normal(size=(60, 70))):
        check_agreement(lambda x: x.sum(axis=axis) * f(x, axis=axis), a)


def test_argmax_of_large_arrays_in_every_layout():
    for a in layouts(RNG.normal(size=(300, 301))):
        for axis in (None, 0, 1):
            check_agreement(lambda x: x.sum(axis=axis) * np.argmax(x, axis=axis), a)  # noqa: B023


def test_averages_and_nans():
    w = RNG.uniform(1, 2, (3, 4, 2))
    check_op(lambda x, w: np.average(x, axis=1, weights=w), X, w)
    check_op(lambda x, w: np.average(x, axis=1, weights=w), X, w[0, :, 0])
    check_op(lambda x: np.ptp(x, axis=0), X)
    holes = np.where(X > 1.6, np.nan, X)
    for f, axis in ((np.nansum, None), (np.nansum, 1), (np.nanmean, 0)):
        value, grad = ckpt.value_and_grad(lambda x: np.sum(f(x, axis=axis)))(holes)  # noqa: B023
        np.testing.assert_allclose(value, np.sum(f(holes, axis=axis)))
        assert not grad[np.isnan(holes)].any()
        assert np.isfinite(grad).all()


def test_complex():
    z = RNG.normal(size=(3, 4)) + 1j * RNG.normal(size=(3, 4))
    for f in (
        lambda z, np=np: np.sum(z, axis=0),
        lambda z, np=np: np.mean(z, axis=1),
        lambda z, np=np: np.prod(z, axis=1),
        lambda z, np=np: np.var(z, axis=1),
        lambda z, np=np: np.std(z),
    ):
        check_op(f, z)
    check_peer(lambda z, np=np: np.var(z), z)


def test_refusals():
    x = ckpt.Value(X)
    with pytest.raises(UnsupportedError, match="initial"):
        np.sum(x, initial=3.0)
    with pytest.raises(UnsupportedError, match="where"):
        np.sum(x, where=X > 1)
    with pytest.raises(MutationError, match="out="):
        np.sum(x, axis=0, out=np.zeros((4, 2)))
    with pytest.raises(np.exceptions.AxisError):
        np.sum(x, axis=3)
    with pytest.raises(np.exceptions.AxisError):
        ckpt.trace(lambda x: np.sum(x, axis=3), X)
    with pytest.raises(AbstractError):
        ckpt.trace(lambda x: np.sum(x) if np.all(x > 0) else np.mean(x), X)
