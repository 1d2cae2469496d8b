"""Ops with several results."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from ckpt.errors import AbstractError, UnsupportedError
from ckpt.tape.core.cotangents import owner
from tests.tape.ops.checking import check_agreement, check_op, layouts


def normal(*shape, seed=0, dtype=float):
    rng = np.random.default_rng(seed)
    made = rng.normal(size=shape)
    return made + 1j * rng.normal(size=shape) if dtype is complex else made


def adjoint(x):
    return np.conjugate(np.swapaxes(x, -1, -2))


def hermitian(x):
    return x + adjoint(x)


BOTH = pytest.mark.parametrize("dtype", [float, complex])
STACKS = pytest.mark.parametrize("shape", [(3, 3), (1, 1), (2, 4, 4), (0, 3, 3)])


def test_results_are_named_as_numpy_names_them():
    x = ckpt.Value(hermitian(normal(3, 3)))
    for function in (np.linalg.eigh, np.linalg.eig, np.linalg.svd, np.linalg.qr, np.linalg.slogdet):
        ours, theirs = function(x), function(x.data)
        assert type(ours) is type(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert isinstance(a, ckpt.Value)
            np.testing.assert_array_equal(a.data, b)
    assert np.linalg.eigh(x).eigenvalues.shape == (3,)


@BOTH
@STACKS
def test_slogdet(shape, dtype):
    x = normal(*shape, dtype=dtype) + 2 * np.eye(shape[-1])
    check_op(lambda x: np.linalg.slogdet(x)[1], x)
    check_op(lambda x: np.linalg.slogdet(x)[0] * np.linalg.slogdet(x)[1], x)
    check_op(lambda x, np=np: np.linalg.slogdet(x)[1], x.real, peer=0 not in shape)


@BOTH
@STACKS
@pytest.mark.parametrize("uplo", ["L", "U"])
def test_eigh(shape, dtype, uplo):
    """Vectors have an arbitrary sign or phase; what is built of them must not depend on it."""

    def projector(x):
        w, v = np.linalg.eigh(x, uplo)
        first = v[..., :1]
        return (first @ adjoint(first)) * w[..., None, -1:]

    x = hermitian(normal(*shape, dtype=dtype))
    if dtype is float:
        check_op(projector, x, exact=False)
        check_op(lambda x: np.linalg.eigvalsh(x, uplo), x, exact=False)
    check_op(lambda x: projector(hermitian(x)), x, exact=False)


def test_eigh_like_hips_autograd():
    x = hermitian(normal(4, 4))
    check_op(lambda x, np=np: np.linalg.eigh(x)[0], x)
    check_op(lambda x, np=np: np.linalg.eigh(x)[1] ** 2, x)
    check_op(lambda x, np=np: np.linalg.eigh(x, "U")[1] ** 2, x)


def test_equal_eigenvalues_have_a_gradient():
    grad = ckpt.grad(lambda x: np.sum(np.exp(np.linalg.eigh(x)[0])))(np.eye(3))
    np.testing.assert_allclose(grad, np.e * np.eye(3))


@BOTH
@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 3)])
def test_eig(shape, dtype):
    x = (normal(*shape, dtype=dtype) + np.diag([1.0, 4.0, 8.0])).astype(complex)
    check_op(lambda x: np.linalg.eigvals(x), x, exact=False)

    def moduli(x):
        return np.abs(np.linalg.eig(x)[1])

    check_op(moduli, x, exact=False)


def test_eig_of_a_real_matrix_runs_but_cannot_be_traced():
    x = normal(3, 3) + np.diag([1.0, 4.0, 8.0])
    ckpt.gradcheck(lambda x: np.real(np.linalg.eig(x)[0]), x)
    turning = np.array([[0.0, 1.0], [-1.0, 0.1]])
    ckpt.gradcheck(lambda x: np.abs(np.linalg.eig(x)[0]), turning)
    with pytest.raises(AbstractError, match="depending on its values"):
        ckpt.trace(lambda x: np.sum(np.linalg.eig(x)[0]), x)


@BOTH
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (3, 4), (5, 2), (2, 5), (2, 4, 3)])
def test_svd(shape, full, dtype):
    x = normal(*shape, dtype=dtype)

    def invariant(x):
        u, s, vh = np.linalg.svd(x, full_matrices=full)
        k = s.shape[-1]
        # Of the vectors that complete a basis only their span is determined.
        left, right = u[..., :1] @ vh[..., :1, :], u[..., k:] @ adjoint(u[..., k:])
        other = adjoint(vh[..., k:, :]) @ vh[..., k:, :]
        weights = [normal(*part.shape[-2:], seed=7) for part in (left, right, other)]
        parts = [
            np.sum(w * p, axis=(-2, -1)) for w, p in zip(weights, (left, right, other), strict=True)
        ]
        return s[..., 0] * parts[0] + parts[1] + parts[2]

    check_op(invariant, x, exact=False, atol=5e-6)
    check_op(lambda x: np.linalg.svd(x, full_matrices=full)[1], x, exact=False)
    check_op(lambda x: np.linalg.svdvals(x), x, exact=False)


@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (3, 4)])
def test_svd_like_hips_autograd(shape):
    x = normal(*shape)
    check_op(lambda x, np=np: np.linalg.svd(x, full_matrices=False)[0] ** 2, x)
    check_op(lambda x, np=np: np.linalg.svd(x, full_matrices=False)[2] ** 2, x)
    check_op(lambda x, np=np: np.linalg.svd(x, compute_uv=False), x, exact=False)


@BOTH
@pytest.mark.parametrize("mode", ["reduced", "complete", "r"])
@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (3, 5), (2, 4, 3)])
def test_qr(shape, mode, dtype):
    x = normal(*shape, dtype=dtype)

    def both(x):
        if mode == "r":
            return np.linalg.qr(x, mode)
        q, r = np.linalg.qr(x, mode)
        k = min(shape[-2:])
        beyond = q[..., k:] @ adjoint(q[..., k:])  # any basis of what A doesn't span completes Q
        return np.sum(q[..., :k] * 2) + np.sum(r * r) + np.sum(beyond * normal(*beyond.shape[-2:]))

    check_op(both, x, exact=False)


@pytest.mark.parametrize("n", [8, 200])
@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
def test_workspace_in_every_layout(n, dtype):
    x = (normal(n, n) / n**0.5 + np.diag(np.arange(1.0, n + 1))).astype(dtype)
    functions = {
        "slogdet": lambda x: np.linalg.slogdet(x)[1],
        "eigh": lambda x: np.linalg.eigh(x)[1],
        "svd": lambda x: np.linalg.svd(x)[0],
        "qr": lambda x: np.linalg.qr(x)[1],
    }
    for name in functions:
        for a in layouts(x, ("C", "F", "columns")):
            check_agreement(functions[name], a, cotangents=("C",))
    half = x[:, : n // 2]
    for a in (half, np.ascontiguousarray(half), half.T):
        check_agreement(lambda x: np.linalg.svd(x, full_matrices=False)[2], a, cotangents=("C",))
        check_agreement(lambda x: np.linalg.qr(x)[0], a, cotangents=("C",))
        check_agreement(lambda x: np.linalg.qr(x, "complete")[0], a, cotangents=("C",))


def test_each_result_has_a_buffer_of_its_own():
    """In the graph and in memory: one can be let go of while another is kept."""
    program = ckpt.trace(lambda x: np.sum(np.linalg.eigh(x).eigenvalues), np.eye(4))
    node = next(n for n in program.graph if n.op == "eigh")
    assert node.call
    assert node.flops == 9 * 4**3
    results = [n for n in program.graph if n.op == "item"]
    assert [(n.alias_of, n.nbytes) for n in results] == [(None, 8 * 4), (None, 8 * 16)]
    values, vectors = np.linalg.eigh(ckpt.Value(np.eye(4)))
    assert not np.shares_memory(values.data, vectors.data)
    assert owner(values.data).nbytes == 8 * 4


def test_flops_of_a_thin_svd():
    program = ckpt.trace(
        lambda x: np.sum(np.linalg.svd(x, full_matrices=False)[1]), np.ones((20, 10))
    )
    assert next(n.flops for n in program.graph if n.op == "svd") == 14 * 20 * 100 + 8 * 1000


def test_what_is_wrong_is_said():
    x = ckpt.Value(normal(3, 4))
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.eigh(x)
    with pytest.raises(UnsupportedError, match="raw"):
        np.linalg.qr(x, "raw")
    with pytest.raises(np.linalg.LinAlgError, match="two axes"):
        ckpt.trace(lambda x: np.linalg.svd(x)[1], normal(3))


@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 5, 2), (3, 2, 5), (2, 2, 3, 3), (3, 5, 1)])
@pytest.mark.parametrize("mode", ["reduced", "complete"])
def test_qr_of_a_stack_lies_as_numpy_lays_it(shape, mode):
    """R lies as NumPy's copy of the stack does that it is taken out of."""
    a = np.random.default_rng(0).standard_normal(shape)
    for x in (
        np.broadcast_to(a[:1].copy(), shape), np.asfortranarray(a), a[::-1],
        np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 0, -1)), -1, 0),
    ):  # fmt: skip

        def loss(w, x):
            q, r = np.linalg.qr(x, mode)
            return np.sum(w * w), [q, r, np.sum(np.sin(r**2)), np.sum(np.sin(q), axis=0)]

        w = np.ones(2)
        right = ckpt.value_and_grad(loss, 0, has_aux=True)(w, x)[0][1]
        made = ckpt.plan(loss, w, x, argnums=0, has_aux=True, planner="store_all")(w, x)[0][1]
        for ours, theirs in zip(made, right, strict=True):
            assert np.array_equal(ours, theirs)
            lengths = np.array(np.shape(ours))
            assert np.array_equal(
                np.array(ours.strides)[lengths > 1], np.array(theirs.strides)[lengths > 1]
            )
