"""What a Value is to the Python and the NumPy around it."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import threading
import weakref

import numpy as np
import pytest

import ckpt
from ckpt import Value
from ckpt.errors import AbstractError, CkptError, MutationError, TapeError, UnsupportedError

X = np.array([1.0, 2.0, 3.0])


def test_numbers_and_dtypes():
    assert Value(3).dtype == Value(True).dtype == np.float64
    half = Value(np.ones(2, np.float32))
    for made in (half * 2.0, 2 / half, half**2, half + 1, np.mean(half * math.pi), 2**half):
        assert made.dtype == np.float32
    assert Value(1 + 2j).dtype == np.complex128
    loss, g = ckpt.value_and_grad(lambda p: np.mean(np.tanh(p) ** 2 / 3))(X.astype(np.float32))
    assert loss.dtype == g.dtype == np.float32


@pytest.mark.parametrize("data", [np.arange(3), np.array([None]), "abc", None, [Value(1.0)]])
def test_what_has_no_gradient_is_refused(data):
    with pytest.raises(TapeError):
        Value(data)


@pytest.mark.parametrize(
    ("use", "error", "says"),
    [
        (lambda w: math.sqrt(w[0]), UnsupportedError, "NumPy's functions"),
        (lambda w: float(w[0]), UnsupportedError, "item"),
        (lambda w: [1, 2][w[0]], UnsupportedError, "lose its gradient"),
        (lambda w: np.array([w[0], w[1]]), UnsupportedError, "np.stack"),
        (lambda w: np.full(3, w[0]), UnsupportedError, "np.broadcast_to"),
        (lambda w: np.zeros((3, 3)).__setitem__(0, w), UnsupportedError, "np.stack"),
        (lambda w: w.__setitem__(0, 1.0), MutationError, "np.where"),
        (lambda w: np.zeros(3).__iadd__(w), MutationError, "x = x"),
        (lambda w: np.add(w, w, out=np.zeros(3)), MutationError, "drop out="),
        (lambda w: np.sum(w, out=np.zeros(())), MutationError, "drop it"),
        (lambda w: setattr(w * 2, "data", X), MutationError, "only a leaf"),
        (lambda w: setattr(w, "data", np.ones(7)), TapeError, "shape"),
        (lambda w: setattr(w, "grad", np.ones(7)), TapeError, "shape"),
        (lambda w: (w * 2).zero_grad(), TapeError, "retain_grad"),
        (lambda w: (w * w).backward(), TapeError, "np.sum"),
        (lambda w: (w * w).backward(np.ones(2)), TapeError, "shape"),
        (lambda w: ckpt.stop_gradient(w).sum().backward(), TapeError, "ckpt.Value"),
        (lambda w: ckpt.stop_gradient(w).retain_grad(), TapeError, "no gradient flows"),
        (lambda w: copy.deepcopy(w * w), TapeError, "computed"),
        (lambda w: pickle.dumps(w * w), TapeError, "computed"),
        (lambda w: w + [w[0]] * 3, UnsupportedError, "np.stack"),
        (lambda w: np.i0(w), UnsupportedError, "@ckpt.op"),
        (lambda w: np.sum(w, where=X > 1), UnsupportedError, "where"),
    ],
)  # fmt: skip
def test_errors_are_one_line_with_a_way_out(use, error, says):
    with pytest.raises(error, match=says) as raised:
        use(Value(X))
    assert isinstance(raised.value, CkptError)
    assert "\n" not in str(raised.value)


def test_python_around_it():
    w = Value(X)
    x = y = Value(X)
    x += 1
    assert x is not y
    np.testing.assert_array_equal(y.data, X)
    assert {w: 1}[w] == 1
    assert len(w) == 3
    assert [float(v.data) for v in w] == [1.0, 2.0, 3.0]
    assert sum(w).data == 6.0
    assert max(w).data == 3.0
    assert f"{w[0]:.2f}" == "1.00"
    assert bool(w[0] < w[1])
    assert (w[0] * 2).item() == 2.0
    with pytest.raises(TypeError):
        len(Value(1.0))
    with pytest.raises(ValueError, match="ambiguous"):
        bool(w > 1)


def test_copies_are_leaves_of_their_own():
    w = Value(X.copy())
    np.sum(w * w).backward()
    for other in (copy.deepcopy(w), pickle.loads(pickle.dumps(w)), copy.copy(w)):
        np.sum(other * 2).backward()
        np.testing.assert_array_equal(other.grad, 2 * X + 2)
    np.testing.assert_array_equal(w.grad, 2 * X)


def test_gradients_own_their_memory():
    x, y, z, t = Value(X), Value(X), Value(X.reshape(3, 1)), Value(X.reshape(1, 3))
    (np.sum(x + y) + np.sum((x + z.reshape(3)) * 1.0) + np.sum(t.T)).backward()
    grads = [v.grad for v in (x, y, z, t)]
    for k, g in enumerate(grads):
        assert g.flags.writeable
        assert not any(np.shares_memory(g, other) for other in grads[:k])
    start = np.ones(3)
    v = Value(X)
    v.backward(start)
    start[:] = 7
    np.testing.assert_array_equal(v.grad, np.ones(3))


def test_gradients_accumulate_until_zeroed():
    w = Value(X)
    h = (w * 2).retain_grad()
    loss = np.sum(h * h)
    loss.backward(retain_graph=True)
    loss.backward()
    np.testing.assert_array_equal(h.grad, 8 * X)
    np.testing.assert_array_equal(w.grad, 16 * X)
    w.zero_grad()
    assert w.grad is None


def test_structures_and_argnums():
    def loss(p, x, q):
        return np.sum(p["a"] * q * x) + 0 * np.sum(p["unused"])

    p = {"a": X, "none": None, "unused": X}
    gp, gq = ckpt.grad(loss, (0, 2))(p, X, X)
    assert gp["none"] is None
    np.testing.assert_array_equal(gp["unused"], 0 * X)
    np.testing.assert_array_equal(gq, X * X)
    np.testing.assert_array_equal(ckpt.grad(loss, -1)(p, X, X), X * X)


@pytest.mark.parametrize(
    "use",
    [
        lambda w: np.sum(w) if np.sum(w) > 0 else w[0],
        lambda w: np.sum(w) * np.sum(w).item(),
        lambda w: np.sum(w[w > 0]),
        lambda w: np.sum(w * np.max(w.data)),
        lambda w: np.sum(w * (w.data + 1)),
        lambda w: np.sum(w * (2 * w.data)),
    ],
)
def test_asking_for_values_while_tracing(use):
    with pytest.raises(AbstractError):
        ckpt.trace(use, X)


def test_a_hundred_thousand_operations():
    def chain(x):
        for _ in range(100_000):
            x = x * 1.00001
        return x

    x = Value(1.0)
    y = chain(x)
    y.backward()
    del y
    assert x.grad == pytest.approx(math.e, rel=1e-4)
    x.zero_grad()
    y = ckpt.checkpoint(chain)(x)
    y.backward()
    del y
    assert x.grad == pytest.approx(math.e, rel=1e-4)
    del x


def test_memory_goes_without_the_garbage_collector():
    held = []

    def loss(w):
        h = np.tanh(w)
        held.append(weakref.ref(h.data))
        h = ckpt.checkpoint(lambda v: np.sin(np.tanh(v)))(h)
        held.append(weakref.ref(h.data))
        return np.sum(h)

    gc.disable()
    try:
        w = Value(np.ones((50, 50)))
        loss(w).backward()
        loss(w)  # without a backward
        ckpt.grad(loss)(np.ones((50, 50)))
        assert [r() for r in held] == [None] * 6
    finally:
        gc.enable()


def test_threads_do_not_meet():
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((32, 32)) / 6, rng.standard_normal((8, 32))

    def loss(w):
        h = x
        for _ in range(10):
            h = ckpt.checkpoint(lambda h: np.tanh(h @ w) * np.cos(h))(h)
        return np.sum(h * h)

    expected = ckpt.grad(loss)(w)
    found = []
    threads = [
        threading.Thread(target=lambda: found.extend(ckpt.grad(loss)(w) for _ in range(20)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    for g in found:
        np.testing.assert_array_equal(g, expected)
