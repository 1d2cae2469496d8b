"""Sorting and partitioning along any axis."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from tests.tape.ops.checking import check_agreement, check_op, layouts

RNG = np.random.default_rng(0)


def distinct(*shape):
    """Numbers with gaps wider than a finite difference."""
    return RNG.permutation(np.arange(float(np.prod(shape)))).reshape(shape)


@pytest.mark.parametrize("axis", [-1, 0, 1, None])
@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 2), (1, 1), (2, 0)])
def test_sort_and_partition(shape, axis):
    x = distinct(*shape)
    check_op(lambda x: np.sort(x, axis=axis), x)
    along = x.size if axis is None else shape[axis]
    if along:
        check_op(lambda x: np.partition(x, along // 2, axis=axis), x, float32=False)
        check_op(lambda x: np.partition(x, [0, -1], axis=axis), x, float32=False)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_partition_without_elements(shape):
    x = np.zeros(shape)
    for kth in (0, -4, [1, 2]):
        assert np.partition(ckpt.Value(x), kth, axis=-1).shape == np.partition(x, kth, -1).shape
        check_agreement(lambda x, kth=kth: np.partition(x, kth), x)
    for part in (np.partition, np.argpartition):
        with pytest.raises(TypeError, match="integer"):
            part(ckpt.Value(np.arange(3.0)), 1.5)


def test_sort_like_hips_autograd():
    check_op(lambda x, np=np: np.sort(x), distinct(7))


@pytest.mark.parametrize("n", [6, 300])
def test_every_layout(n):
    for x in layouts(distinct(n, n)):
        for axis in (0, 1, None):
            check_agreement(lambda x, axis=axis: np.sort(x, axis), x, cotangents=("C",))
            check_agreement(lambda x, axis=axis: np.partition(x, 2, axis), x, cotangents=("C",))


def test_options():
    x = distinct(4, 5)
    check_op(lambda x: np.sort(x, kind="stable"), x)
    check_op(lambda x: np.sort(x, stable=True), x)
    check_op(lambda z: np.sort(z), distinct(4) + 1j * distinct(4))


def test_tied_elements_pass_on_one_cotangent_each():
    x = ckpt.Value(np.array([2.0, 1.0, 2.0, 1.0]))
    (np.sort(x) * np.array([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert sorted(x.grad[[1, 3]]) == [1.0, 2.0]
    assert sorted(x.grad[[0, 2]]) == [3.0, 4.0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex64])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_partition_has_numpys_order(dtype, axis):
    """Of elements on one side of the kth, too, and however many are equal."""
    x = RNG.normal(size=(60, 500)).round(1).astype(dtype)
    for kth in (3, [10, 40]):
        made = np.partition(ckpt.Value(x), kth, axis)
        np.testing.assert_array_equal(made.data, np.partition(x, kth, axis))


def test_an_element_takes_the_cotangent_of_its_place_in_a_partition():
    x = RNG.normal(size=600).round(1)
    weights = np.arange(600.0)
    gradient = ckpt.grad(lambda x: np.sum(np.partition(x, [10, 400]) * weights))(x)
    stand = np.partition(x, [10, 400])
    assert sorted(zip(x, gradient, strict=True)) == sorted(zip(stand, weights, strict=True))


def test_argsort_and_argpartition_have_no_gradient():
    x = ckpt.Value(distinct(4, 5))
    for axis in (0, 1, None):
        order = np.argsort(x, axis=axis)
        assert not order.requires_grad
        np.testing.assert_array_equal(order.data, np.argsort(x.data, axis=axis))
    places = np.argpartition(x, 2, axis=1)
    assert (np.take_along_axis(x.data, places.data, 1)[:, 2] == np.sort(x.data, 1)[:, 2]).all()
    check_agreement(lambda x: np.take_along_axis(x, np.argsort(x, axis=0), 0), x.data)


def test_what_is_wrong_is_said():
    x = ckpt.Value(distinct(4))
    with pytest.raises(ValueError, match="out of bounds"):
        np.partition(x, 4)
    with pytest.raises(ValueError, match="order"):
        np.sort(x, order="f")
    with pytest.raises(np.exceptions.AxisError):
        np.sort(x, axis=1)
