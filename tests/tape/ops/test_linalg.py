"""Linear algebra with one result."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from ckpt.errors import UnsupportedError
from tests.graphs import step_of
from tests.tape.ops.checking import check_agreement, check_op, layouts


def normal(*shape, seed=0, dtype=float):
    rng = np.random.default_rng(seed)
    made = rng.normal(size=shape)
    return made + 1j * rng.normal(size=shape) if dtype is complex else made


def regular(*shape, dtype=float):
    """Far from singular."""
    return normal(*shape, dtype=dtype) + 3 * np.eye(shape[-1])


def definite(x):
    """A positive definite matrix, as a function of any matrix."""
    return x @ np.conjugate(np.swapaxes(x, -1, -2)) + 2 * np.eye(x.shape[-1])


STACKS = [(3, 3), (1, 1), (2, 4, 4), (2, 1, 3, 3), (0, 3, 3), (0, 0)]


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("shape", STACKS)
def test_inv_and_det(shape, dtype):
    x = regular(*shape, dtype=dtype)
    check_op(lambda x, np=np: np.linalg.inv(x), x, peer=0 not in shape)
    check_op(lambda x, np=np: np.linalg.det(x), x, peer=0 not in shape)


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("shape", STACKS[:4])
def test_cholesky(shape, dtype):
    x = regular(*shape, dtype=dtype)
    check_op(lambda x: np.linalg.cholesky(definite(x)), x, exact=False)
    check_op(lambda x: np.linalg.cholesky(definite(x), upper=True), x, exact=False)


def test_cholesky_is_symmetric_in_the_matrix_as_in_hips_autograd():
    a = definite(normal(3, 3))
    check_op(lambda a, np=np: np.linalg.cholesky(a), a, differences=False)
    grad = ckpt.grad(lambda a: np.sum(np.linalg.cholesky(a)))(a)
    np.testing.assert_allclose(grad, grad.T)


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3, 3), (3,)),
        ((3, 3), (3, 2)),
        ((2, 3, 3), (2, 3, 2)),
        ((2, 3, 3), (3, 2)),
        ((3, 3), (2, 3, 1)),
        ((2, 3, 3), (3,)),
        ((2, 1, 3, 3), (4, 3, 2)),
    ],
)
def test_solve(a, b, dtype):
    peer = dtype is float and len(a) == len(b) == 2
    check_op(
        lambda a, b, np=np: np.linalg.solve(a, b), regular(*a, dtype=dtype), normal(*b), peer=peer
    )


def test_solve_for_one_of_the_two_keeps_the_factor_only():
    graph = ckpt.trace(lambda b, a: np.sum(np.linalg.solve(a, b)), normal(4), regular(4, 4)).graph
    assert [graph[r].name for r in step_of(graph, "solve").reads] == ["x1"]


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("shape", [(4, 3), (3, 4), (3, 3), (2, 4, 3)])
def test_pinv(shape, dtype):
    peer = dtype is float and len(shape) == 2
    check_op(
        lambda x, np=np: np.linalg.pinv(x), normal(*shape, dtype=dtype), peer=peer, exact=False
    )


def test_pinv_of_a_matrix_of_lower_rank():
    x = ckpt.Value(normal(4, 2) @ normal(2, 3, seed=1))
    np.testing.assert_allclose(
        np.linalg.pinv(x, rcond=1e-9).data, np.linalg.pinv(x.data, rcond=1e-9)
    )
    np.testing.assert_allclose(np.linalg.pinv(x, rtol=None).data, np.linalg.pinv(x.data, rtol=None))


@pytest.mark.parametrize("n", [8, 256])
@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
def test_workspace_in_every_layout(n, dtype):
    x = (normal(n, n) / n**0.5 + np.eye(n)).astype(dtype)
    b = x.copy()
    for a in layouts(x):
        for function in (np.linalg.inv, np.linalg.det, lambda a: np.linalg.solve(a, b)):
            check_agreement(function, a, cotangents=("C",))
    spd = definite(x)
    check_agreement(np.linalg.cholesky, spd)
    check_agreement(lambda a: np.linalg.solve(a, np.arange(n)), x)


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("order", [None, 1, 2, 3, 2.5, 0.5, np.inf, -np.inf, -2])
def test_norm_of_vectors(order, dtype):
    x = normal(3, 4, dtype=dtype) + 0.5
    check_op(lambda x: np.linalg.norm(x[0], order), x, exact=False)
    check_op(lambda x: np.linalg.norm(x, order, axis=0), x, exact=False)
    check_op(lambda x: np.linalg.norm(x, order, axis=1, keepdims=True), x, exact=False)
    check_op(lambda x: np.linalg.vector_norm(x, ord=2 if order is None else order), x, exact=False)


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("order", [None, "fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf])
def test_norm_of_matrices(order, dtype):
    x = normal(3, 4, 2, dtype=dtype)
    check_op(lambda x: np.linalg.norm(x[0], order), x, exact=False)
    check_op(lambda x: np.linalg.norm(x, order, axis=(2, 0)), x, exact=False)
    check_op(lambda x: np.linalg.norm(x, order, axis=(0, 1), keepdims=True), x, exact=False)
    if order is not None:
        check_op(lambda x: np.linalg.matrix_norm(x, ord=order), x, exact=False)


@pytest.mark.parametrize(
    "options",
    [{}, {"axis": 0}, {"axis": (0, 1)}, {"ord": "nuc"}, {"ord": "fro"}, {"ord": 3, "axis": 1}],
)
def test_norm_like_hips_autograd(options):
    check_op(lambda x, np=np: np.linalg.norm(x, **options), normal(3, 4), exact=False)


def test_norms_of_all_of_an_array():
    check_op(lambda x: np.linalg.norm(x), normal(2, 3, 4), exact=False)
    check_op(
        lambda x: np.linalg.vector_norm(x, axis=(0, 2), keepdims=True), normal(2, 3, 4), exact=False
    )
    assert np.linalg.norm(ckpt.Value(np.array([0.0, 3.0, 4.0])), 0).data == 2


@pytest.mark.parametrize("p", [None, 2, -2, 1, np.inf, "fro"])
def test_cond(p):
    check_op(lambda x: np.linalg.cond(x, p), regular(3, 3), exact=False, atol=1e-5)


def test_tensors_and_diagonals():
    a = np.eye(12).reshape(3, 4, 6, 2) + 0.1 * normal(3, 4, 6, 2)
    check_op(lambda a, b: np.linalg.tensorsolve(a, b), a, normal(3, 4))
    other = np.moveaxis(np.eye(12).reshape(3, 4, 12) + 0.1 * normal(3, 4, 12), 2, 1)
    check_op(lambda a, b: np.linalg.tensorsolve(a, b, (1,)), other, normal(3, 4))
    check_op(lambda a: np.linalg.tensorinv(a), a)
    check_op(lambda x: np.linalg.trace(x, offset=1), normal(2, 3, 4))
    check_op(lambda x: np.linalg.diagonal(x, offset=-1), normal(2, 3, 4))
    check_op(lambda x: np.linalg.matrix_transpose(x), normal(2, 3, 4))


def test_flops_are_the_leading_terms():
    def flops(function, *arrays):
        graph = ckpt.trace(lambda x: np.sum(function(x)), *arrays).graph
        return next(n.flops for n in graph if n.flops and n.op != "sum")

    assert flops(np.linalg.inv, np.ones((2, 30, 30))) == 2 * 2 * 30**3
    assert flops(np.linalg.cholesky, np.ones((30, 30))) == 30**3 / 3
    assert flops(np.linalg.det, np.ones((30, 30))) == 2 * 30**3 / 3
    assert (
        flops(lambda a: np.linalg.solve(a, np.ones((30, 4))), np.ones((30, 30)))
        == 18000 + 2 * 900 * 4
    )


def test_what_is_wrong_is_said():
    x = ckpt.Value(normal(3, 4))
    with pytest.raises(np.linalg.LinAlgError, match=r"must be square|equal length"):
        np.linalg.inv(x)
    with pytest.raises(np.linalg.LinAlgError, match="equal length"):
        ckpt.trace(lambda x: np.linalg.det(x), x.data)
    with pytest.raises(TypeError, match="float16"):
        ckpt.trace(lambda x: np.linalg.det(x), np.ones((3, 3), np.float16))
    with pytest.raises(UnsupportedError, match="pinv"):
        np.linalg.lstsq(x, np.ones(3))
    with pytest.raises(ValueError, match="order"):
        np.linalg.norm(x, "nuc", axis=0)
    with pytest.raises(ValueError, match="order"):
        np.linalg.norm(x, 3)
