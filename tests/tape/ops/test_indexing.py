"""Indices of every kind: values and layouts are NumPy's, cotangents are added where they belong."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from ckpt.errors import AbstractError, MutationError, UnsupportedError
from ckpt.witness import Tracemalloc
from tests.tape.ops.checking import check_agreement, check_op, layouts

RNG = np.random.default_rng(3)
X = RNG.normal(size=(4, 5, 6))
I = np.array([0, 3, -1, 0])  # noqa: E741
J = np.array([[1], [2]])
MASK = X[:, :, 0] > 0

BASIC = [
    0, -1, slice(1, 3), slice(None, None, -2), Ellipsis, None, (), (1, 2, 3), (slice(None), 2),
    (Ellipsis, 1), (None, 1, Ellipsis, None), (slice(3, 0, -1), slice(None), slice(1, 5, 2)),
    np.int64(2), (np.int32(1), slice(2)), slice(2, 2),
]  # fmt: skip
ADVANCED = [
    I, (I,), [0, 2], (slice(None), I), (Ellipsis, I), (I, I), (I, slice(None), I), (J, I % 5),
    (slice(1, 3), J), (None, I), (I, None, I), (0, slice(None), I), (0, I), (I, 1, slice(2)),
    (slice(None), 1, I), MASK, (MASK, 1), (slice(None), X[0, :, 0] > 0), MASK[:, 0], X > 0,
    (I, Ellipsis), (slice(None, None, 2), [1, 1], slice(None, None, -1)), np.array(2), [],
    (np.array(1), slice(None), I), np.zeros((0,), int), (slice(None), None, J, [0]),
    (MASK[:, 0], slice(None), [1]),
]  # fmt: skip


@pytest.mark.parametrize("k", range(len(BASIC)))
def test_basic_indices_are_views(k):
    index = BASIC[k]
    made = ckpt.Value(X)[index]
    assert np.array_equal(made.data, X[index])
    if X[index].ndim:
        assert np.shares_memory(made.data, X) == bool(X[index].size)
    check_op(lambda x: x[index], X, double=k < 4)
    for a in layouts(X, ("F", "columns", "reversed")):
        check_agreement(lambda x: x[index], a)


@pytest.mark.parametrize("k", range(len(ADVANCED)))
def test_advanced_indices_are_copies(k):
    index = ADVANCED[k]
    for a in layouts(X):
        made, plain = ckpt.Value(a)[index], a[index]
        assert made.shape == plain.shape
        assert np.array_equal(made.data, plain)
        assert not np.shares_memory(made.data, a)
        check_agreement(lambda x: x[index], a)
    check_op(lambda x, np=np: x[index], X, double=k < 4)
    scalars = isinstance(index, tuple) or np.ndim(index)
    if scalars:
        (node,) = (n for n in ckpt.trace(lambda x: np.sum(x[index]), X).graph if n.op == "gather")
        assert node.shape == X[index].shape


def test_large_gathers_cost_what_is_declared():
    x = RNG.normal(size=(500, 200))
    i = RNG.integers(0, 500, 700)
    for a in layouts(x, ("C", "F", "columns")):
        check_agreement(lambda x: x[i], a)
        check_agreement(lambda x: x[:, i % 200], a)
        check_agreement(lambda x: np.take(x, i, axis=0), a)
        check_agreement(lambda x: np.take(x, i % 200, axis=1), a)
        check_agreement(lambda x: np.take(x, i), a)
        check_agreement(lambda x: x[i, i % 200], a)
        along = np.argsort(a, axis=1)[:, :100]
        check_agreement(lambda x: np.take_along_axis(x, along, 1), a)  # noqa: B023


def test_repeated_indices_add_up():
    x = ckpt.Value(np.zeros(3))
    np.sum(x[np.array([0, 0, 2, 0])] * np.array([1.0, 2.0, 3.0, 4.0])).backward()
    assert x.grad.tolist() == [7.0, 0.0, 3.0]


def test_take():
    for index, axis in ((I, 0), (J, 1), (2, 0), (-1, None), ([[1, 2], [0, 0]], 2), (I, None)):
        check_op(lambda x, np=np: np.take(x, index, axis=axis), X, peer=False)  # noqa: B023
        assert np.array_equal(np.take(ckpt.Value(X), index, axis).data, np.take(X, index, axis))
    for mode in ("wrap", "clip"):
        far = np.array([-7, 9, 4, 100])
        check_op(lambda x: np.take(x, far, axis=1, mode=mode), X)  # noqa: B023
    with pytest.raises(IndexError):
        np.take(ckpt.Value(X), [9], axis=0)
    assert np.array_equal(ckpt.Value(X).take([1, 2], axis=1).data, X.take([1, 2], axis=1))


def test_take_along_axis():
    order = np.argsort(X, axis=1)
    check_op(lambda x: np.take_along_axis(x, order, axis=1), X)
    check_op(lambda x: np.take_along_axis(x, order[:, :2], axis=1), X)
    check_op(lambda x: np.take_along_axis(x, np.zeros((1, 5, 1), int), axis=0), X)
    check_op(lambda x: np.take_along_axis(x, np.array([3, 3, 0]), axis=None), X)


def test_indices_that_are_values():
    def best(x):
        return np.take_along_axis(x, np.expand_dims(np.argmax(x, axis=1), 1), axis=1)

    check_op(best, X)
    check_op(lambda x: x[np.argmax(x[:, 0, 0])], X)
    check_op(lambda x: x[:, np.argmax(x[0], axis=0)], X)
    check_op(lambda x: np.take(x, np.argmax(x[0], axis=0), axis=1), X)
    check_op(lambda x: x[np.argmax(x[:, 0, 0]), 1, np.argmin(x[0, 0])] * np.ones(2), X)
    # In a checkpoint they are nodes, and computed again.
    check_agreement(lambda x: np.tanh(x)[np.argmax(np.tanh(x[:, 0, 0]))], X)


def test_masks_that_are_values():
    x = ckpt.Value(X)
    picked = x[x > 0]
    assert np.array_equal(picked.data, X[X > 0])
    np.sum(picked).backward()
    assert np.array_equal(x.grad, X > 0)
    with pytest.raises(AbstractError, match=r"np\.where\(mask, x, 0\)"):
        ckpt.trace(lambda x: np.sum(x[x > 0]), X)


def test_numbers_and_small_dtypes():
    check_op(lambda x: x[None, None], np.float64(2.0))
    check_op(lambda x: x[()] * x, np.float64(2.0))
    check_op(lambda x: x[...] * x, np.float64(2.0))
    for dtype in (np.int8, np.uint16, np.int64):
        check_op(lambda x: x[np.array([1, 2], dtype)], X)  # noqa: B023


def test_iterating_and_unpacking():
    check_op(lambda x: sum(row * k for k, row in enumerate(x)), X)
    first, *rest = ckpt.Value(X)
    assert first.shape == (5, 6)
    assert len(rest) == 3


def test_compress_and_extract():
    check_op(lambda x: np.compress([True, False, True], x, axis=1), X)
    check_op(lambda x: np.extract(X > 0, x), X)


def test_slices_of_one_array_are_linear():
    """Their cotangents are added in place: no array of all is made for any of them."""
    x = ckpt.Value(np.ones((500, 640)))
    total = sum(np.sum(x[k]) for k in range(500))
    _, peak = Tracemalloc().of(total.backward)
    assert (x.grad == 1).all()
    assert peak < 1.2 * x.grad.nbytes


def test_slices_of_one_array_accumulate_in_place():
    graph = ckpt.trace(lambda x: sum(np.sum(x[k] ** 2) for k in range(50)), np.ones((50, 8))).graph
    parts = [step for step in graph.steps if step.label == "getitem"]
    assert {step.flops for step in parts} == {8}
    assert max(step.during for step in parts) < 50 * 8 * 8  # the gradient is there, and no other


def test_refusals():
    x = ckpt.Value(X)
    with pytest.raises(IndexError, match="too many"):
        x[0, 0, 0, 0]
    with pytest.raises(IndexError, match="too many"):
        x[I, 0, 0, 0]
    with pytest.raises(IndexError):
        x[9]
    with pytest.raises(IndexError):
        x[np.array([9])]
    with pytest.raises(IndexError, match="whole numbers"):
        x[np.array([0.5])]
    with pytest.raises(UnsupportedError, match="single bool"):
        x[True]
    with pytest.raises(IndexError, match="mask"):
        x[np.array([True, False])]
    with pytest.raises(MutationError, match=r"np\.where"):
        x[0] = 1.0
    with pytest.raises(UnsupportedError, match=r"np\.stack"):
        X[ckpt.Value(np.ones(2))]
    with pytest.raises(MutationError, match=r"np\.put"):
        np.put(x, [0], [1.0])
    with pytest.raises(UnsupportedError, match=r"np\.compress"):
        np.take(x, MASK)
