"""Choosing, running sums, grids, complex numbers, and questions without gradients."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from ckpt.errors import AbstractError, MutationError, TapeError, UnsupportedError
from tests.graphs import step_of
from tests.tape.ops.checking import check_agreement, check_op, layouts

RNG = np.random.default_rng(4)
X = RNG.normal(size=(4, 5))
Y = RNG.normal(size=(4, 5))
Z = RNG.normal(size=(3, 4)) + 1j * RNG.normal(size=(3, 4))

# -- choosing --------------------------------------------------------------------------------------


def test_where():
    for a in layouts(X):
        check_op(lambda x, y, np=np: np.where(X > 0, x, y), a, Y, double=False)
        check_agreement(lambda x: np.where(x > 0, x, 0.0), a)
    check_op(lambda x, y: np.where(X > 0, x, y), X, Y[0])
    check_op(lambda x: np.where(X[0] > 0, x, 1.0), X)
    check_op(lambda x: np.where(True, x, 1.0), np.float64(0.3))
    big = RNG.normal(size=(300, 300))
    check_agreement(lambda x, y: np.where(x > y, x, y), big, big[0])
    check_agreement(lambda x, y: np.where(x > y, x, y), np.asfortranarray(big), big[::-1])
    assert np.array_equal(np.where(ckpt.Value(X) > 0)[0], np.where(X > 0)[0])
    with pytest.raises(AbstractError):
        ckpt.trace(lambda x: np.sum(x) * len(np.where(x > 0)[0]), X)


def test_clip():
    check_op(lambda x, np=np: np.clip(x, -0.5, 0.7), X)
    check_op(lambda x: np.clip(x, None, 0.7), X)
    check_op(lambda x: np.clip(x, a_min=-0.1, a_max=None), X)
    check_op(lambda x: np.clip(x, min=-0.1, max=0.3), X)
    check_op(lambda x: x.clip(-0.5, 0.5), X)
    check_op(lambda x, low, high: np.clip(x, low, high), X, Y[0] - 1, Y[1] + 1)
    check_agreement(lambda x: np.clip(x, -0.5, 0.5), RNG.normal(size=(300, 301)))
    at_bounds = np.array([-1.0, 0.0, 1.0, 1.5])
    assert ckpt.grad(lambda x: np.sum(np.clip(x, -1, 1)))(at_bounds).tolist() == [1, 1, 1, 0]
    graph = ckpt.trace(lambda x: np.sum(np.clip(x, 0, 1)), X).graph
    assert [graph[r].op for r in step_of(graph, "clip").reads] == ["parameter"]  # its input


def test_nan_to_num():
    x = np.array([1.0, np.nan, np.inf, -np.inf, 2.0])
    value, grad = ckpt.value_and_grad(lambda x: np.sum(np.nan_to_num(x, posinf=7, neginf=8)))(x)
    assert value == 18
    assert grad.tolist() == [1, 0, 0, 0, 1]
    assert np.array_equal(np.nan_to_num(ckpt.Value(x)).data, np.nan_to_num(x))
    single = np.nan_to_num(ckpt.Value(x.astype(np.float32)))
    assert np.array_equal(single.data, np.nan_to_num(x.astype(np.float32)))
    check_op(lambda x, np=np: np.nan_to_num(x), X)
    z = np.array([1 + 2j, complex(np.nan, 1), complex(3, np.inf)])
    assert np.array_equal(np.nan_to_num(ckpt.Value(z)).data, np.nan_to_num(z))


def test_select_and_choose():
    check_op(lambda x, y: np.select([X > 1, X > 0], [x, y * y], default=0.5), X, Y)
    k = RNG.integers(0, 3, (4, 5))
    check_op(lambda x, y: np.choose(k, [x, y, x * y]), X, Y)
    check_op(lambda x: np.choose(np.argmax(x, axis=0), [x[0], x[1], x[2], x[3]]), X)
    with pytest.raises(ValueError, match="out of range"):
        np.choose(ckpt.Value(X).astype(int) + 9, [X, X])


# -- running sums, differences, grids --------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_running_sums(axis):
    for a in layouts(X):
        check_op(lambda x, np=np: np.cumsum(x, axis=axis), a, double=False)
    check_op(lambda x: np.cumprod(x, axis=axis), X + 3)
    check_op(lambda x: x.cumsum(axis=axis), X)
    for a in layouts(RNG.normal(size=(200, 201)), ("C", "F", "columns")):
        check_agreement(lambda x: np.cumsum(x, axis=axis), a)
        check_agreement(lambda x: np.cumprod(x * 0.01 + 1, axis=axis), a, exact=False)


def test_differences():
    for axis in (0, 1, -1):
        for n in (0, 1, 2, 3):
            check_op(lambda x, np=np: np.diff(x, n, axis=axis), X, peer=n > 0)  # noqa: B023
    check_op(lambda x, y: np.diff(x, prepend=y, append=0.0), X, Y)
    check_op(lambda x: np.ediff1d(x), X)
    check_op(lambda x: np.trapezoid(x, dx=0.5), X)
    check_op(lambda x: np.trapezoid(x, np.array([0.0, 1, 3, 4, 7])), X)
    check_op(lambda x, y: np.trapezoid(x, y, axis=0), X, Y)
    check_agreement(lambda x: np.diff(x, 2), RNG.normal(size=(300, 301)))


def test_gradient():
    t = np.array([0.0, 1.0, 2.5, 3.0, 5.0])
    for f in (
        lambda x, np=np: np.gradient(x, axis=0),
        lambda x: np.gradient(x, 0.3, axis=1),
        lambda x: np.gradient(x, t, axis=1),
        lambda x: np.gradient(x, t, axis=1, edge_order=2),
        lambda x: np.gradient(x, 0.3, axis=1, edge_order=2),
        lambda x: np.gradient(x)[1],
        lambda x: np.gradient(x, 0.5, t)[0],
        lambda x: np.gradient(x, axis=(1, 0))[1],
    ):
        check_op(f, X, float32=False)
        np.testing.assert_allclose(f(ckpt.Value(X)).data, f(X), rtol=1e-12)
    check_op(lambda x, h: np.gradient(x, h, axis=0), X, np.float64(0.7))
    assert np.gradient(ckpt.Value(X.astype("f4")), t, axis=1).dtype == np.float32
    with pytest.raises(ValueError, match="at least 3"):
        np.gradient(ckpt.Value(X[:2]), axis=0, edge_order=2)


def test_linspace():
    check_op(lambda a, b: np.linspace(a, b, 7), np.float64(1.0), np.float64(3.0))
    check_op(lambda a, b: np.linspace(a, b, 7, endpoint=False), np.float64(1.0), np.float64(3.0))
    check_op(lambda a: np.linspace(a, 5.0, 4), np.float64(1.0))
    check_op(lambda a, b: np.linspace(a, b, 5), X, Y[0])
    check_op(lambda a, b: np.linspace(a, b, 5, axis=-1), X, Y)
    check_op(lambda a: np.linspace(a, 2.0, 1), np.float64(1.0))
    check_agreement(lambda a, b: np.linspace(a, b, 50), RNG.normal(size=1000), np.float64(1.0))
    check_agreement(lambda a: np.linspace(a, 3.0, 100_000), np.float64(1.0))


# -- complex numbers -------------------------------------------------------------------------------

COMPLEX = [
    lambda z, np=np: np.real(z), lambda z, np=np: np.imag(z), lambda z, np=np: np.conj(z),
    lambda z, np=np: np.abs(z), lambda z, np=np: np.angle(z), lambda z: np.angle(z, deg=True),
    lambda z, np=np: z * np.conj(z), lambda z, np=np: np.exp(z), lambda z, np=np: np.log(z),
    lambda z, np=np: np.sin(z) * z, lambda z, np=np: np.tanh(z), lambda z, np=np: np.sqrt(z),
    lambda z, np=np: z**2, lambda z, np=np: z**3.0, lambda z, np=np: 1 / z,
    lambda z, np=np: np.sum(z, axis=0), lambda z, np=np: np.real(z) + 1j * np.imag(z) ** 2,
    lambda z, np=np: z * np.real(z), lambda z, np=np: z + 2.0, lambda z, np=np: np.square(z),
    lambda z: z.real * z.imag, lambda z: z.conj(), lambda z: np.arccosh(z), lambda z: np.arcsin(z),
    lambda z: np.arctan(z), lambda z: np.arctanh(z), lambda z: np.reciprocal(z),
    lambda z: np.where(Z.real > 0, z, 0), lambda z: np.concatenate([z, z.real]),
    lambda z: np.nan_to_num(z), lambda z: z[::2, [1, 1]], lambda z: np.cumsum(z, 1),
    lambda z: np.astype(z.imag, np.complex128) * z,
]  # fmt: skip


@pytest.mark.parametrize("k", range(len(COMPLEX)))
def test_complex(k):
    check_op(COMPLEX[k], Z, float32=False)
    for a in layouts(Z, ("F", "columns")):
        check_agreement(COMPLEX[k], a)
    check_agreement(COMPLEX[k], Z.astype(np.complex64))


def test_complex_of_real():
    for f in (np.real, np.conj, np.absolute, lambda x: x * 1j, lambda x: np.exp(1j * x)):
        check_op(f, X)
    value, grad = ckpt.value_and_grad(lambda x: np.sum(np.imag(x) + x))(X)
    assert value == X.sum()
    assert (grad == 1).all()
    check_op(lambda x, z: x[:3, :4] * z, X, Z)


def test_absolute_at_zero():
    assert ckpt.grad(lambda z: np.sum(np.abs(z)))(np.zeros(2, complex)).tolist() == [0, 0]


def test_real_if_close():
    assert np.real_if_close(ckpt.Value(X + 0j)).dtype == np.float64
    assert np.real_if_close(ckpt.Value(Z)).dtype == np.complex128
    check_op(lambda x, np=np: np.real_if_close(x), X)
    with pytest.raises(AbstractError, match=r"np\.real"):
        ckpt.trace(lambda z: np.sum(np.real_if_close(z)), Z)


# -- questions -------------------------------------------------------------------------------------


def test_plain_answers():
    x = ckpt.Value(X)
    assert np.shape(x) == (4, 5)
    assert np.ndim(x) == 2
    assert np.size(x) == 20
    assert np.result_type(x, np.float32) == np.float64
    assert not np.iscomplexobj(x)
    for f in (np.zeros_like, np.ones_like, np.empty_like):
        made = f(x)
        assert type(made) is np.ndarray
        assert (made.shape, made.dtype) == (X.shape, X.dtype)
    assert np.array_equal(np.full_like(x, 3.0), np.full_like(X, 3.0))
    assert np.array_equal(np.isclose(x, X + 1e-12).data, np.ones((4, 5), bool))
    assert np.allclose(x, X)
    assert not np.allclose(x, X + 1)
    assert np.array_equal(x, X)
    assert not np.array_equal(x, X[0])
    assert np.array_equal(np.argwhere(x > 0), np.argwhere(X > 0))
    assert np.searchsorted(x[0] * 0, 1.0) == 5
    assert np.isreal(x).data.all()
    assert not np.iscomplex(ckpt.Value(X + 0j)).data.any()


def test_plain_answers_while_tracing():
    def loss(x):
        assert np.shape(x) == (4, 5)
        zeros = np.zeros_like(x)
        assert zeros.shape == (4, 5)
        return np.sum(x * (zeros + np.size(x)))

    ckpt.trace(loss, ckpt.spec((4, 5), "f8"))
    for ask in (np.argwhere, np.nonzero, lambda x: np.allclose(x, 0)):
        with pytest.raises(AbstractError):
            ckpt.trace(lambda x: np.sum(x) * len(ask(x)), X)  # noqa: B023


def test_nothing_becomes_a_plain_array():
    x = ckpt.Value(X)
    number = ckpt.Value(2.0)
    with pytest.raises(UnsupportedError, match=r"np\.stack"):
        np.array([number, number])
    with pytest.raises(UnsupportedError, match=r"np\.stack"):
        np.asarray(x)
    with pytest.raises(UnsupportedError, match=r"np\.broadcast_to"):
        np.full((2, 2), number)
    with pytest.raises(UnsupportedError, match=r"np\.broadcast_to"):
        np.full_like(X, number)
    with pytest.raises(TapeError):
        np.zeros(3)[1:] = x[0, :2]
    with pytest.raises((MutationError, UnsupportedError)):
        np.copyto(X.copy(), x)
    with pytest.raises(UnsupportedError, match="has no rule"):
        np.interp(x[0], X[0], X[1])
