"""Products of matrices and vectors."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from tests.graphs import step_of
from tests.tape.ops.checking import check_agreement, check_op, layouts

SHAPES = [
    ((3, 4), (4, 5)),
    ((4,), (4,)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((2, 3, 4), (4, 5)),
    ((2, 3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (6, 4, 5)),
    ((6, 3, 4), (2, 1, 4, 5)),
    ((7, 1, 3, 4), (1, 5, 4, 2)),
    ((4,), (2, 4, 5)),
    ((2, 3, 4), (4,)),
    ((1, 3, 4), (2, 4, 5)),
    ((2, 1, 1, 5), (3, 5, 1)),
    ((1, 1), (1, 1)),
    ((0, 4), (4, 5)),
    ((3, 0), (0, 5)),
]


def normal(*shape, seed=0, dtype=float):
    rng = np.random.default_rng(seed)
    made = rng.normal(size=shape)
    return made + 1j * rng.normal(size=shape) if dtype is complex else made


@pytest.mark.parametrize(("x", "w"), SHAPES)
def test_matmul(x, w):
    check_op(lambda x, w, np=np: np.matmul(x, w), normal(*x), normal(*w, seed=1))


def test_matmul_of_complex_numbers():
    check_op(lambda x, w, np=np: np.matmul(x, w), normal(3, 4, dtype=complex), normal(4, 2, seed=1))


@pytest.mark.parametrize("n", [8, 256])
def test_matmul_agrees_in_every_layout(n):
    for x in layouts(normal(n, n)):
        for w in layouts(normal(n, n, seed=1)):
            check_agreement(np.matmul, x, w, cotangents=("C",))


@pytest.mark.parametrize("n", [8, 256])
@pytest.mark.parametrize(
    "dtypes", [("f4", "f8"), ("f8", "f4"), ("f4", "i8"), ("i8", "f8"), ("f8", "c16")]
)
def test_matmul_of_mixed_dtypes_counts_the_casts(n, dtypes):
    x, w = normal(n, n).astype(dtypes[0]), normal(n, n, seed=1).astype(dtypes[1])
    check_agreement(np.matmul, x, w)
    check_agreement(np.matmul, np.stack([x, x]), w)


def test_rule_of_a_shared_matrix_makes_no_stack():
    """x[b] @ w: the sum over b is inside one product, not of a stack of matrices afterwards."""
    batch, n = 64, 32
    program = ckpt.trace(lambda w, x: np.sum(x @ w), np.ones((n, n)), np.ones((batch, 4, n)))
    product = step_of(program.graph, "matmul")
    assert product.flops == 2 * batch * 4 * n * n
    # The cotangent of a sum is one number seen as an array, which a reshape has to write out.
    assert product.during - 8 <= batch * 4 * n * 8


def test_a_frozen_matrix_needs_no_activations():
    program = ckpt.trace(lambda x, w: np.sum(x @ w), np.ones((3, 4)), np.ones((4, 5)))
    reads = step_of(program.graph, "matmul").reads
    assert [program.graph[r].name for r in reads] == ["x1"]


@pytest.mark.parametrize(
    ("a", "b"), [*SHAPES[:5], ((2, 3, 4), (2, 4, 5)), ((4,), (2, 4, 3)), ((), (3,)), ((2, 3), ())]
)
def test_dot(a, b):
    check_op(lambda a, b, np=np: np.dot(a, b), normal(*a), normal(*b, seed=1), exact=False)


@pytest.mark.parametrize(
    ("a", "b"), [((3,), (3,)), ((2, 3), (4, 3)), ((2, 3), (3,)), ((2, 5, 3), (4, 3)), ((), (2, 3))]
)
def test_inner(a, b):
    check_op(lambda a, b, np=np: np.inner(a, b), normal(*a), normal(*b, seed=1), exact=False)


def test_outer():
    check_op(lambda a, b, np=np: np.outer(a, b), normal(3), normal(4))
    check_op(lambda a, b: np.outer(a, b), normal(2, 3), normal(4, 1))
    check_op(lambda a, b: np.linalg.outer(a, b), normal(3), normal(4))
    with pytest.raises(ValueError, match="one axis"):
        np.linalg.outer(ckpt.Value(normal(2, 2)), normal(2))


def test_vdot():
    check_op(lambda a, b: np.vdot(a, b), normal(3, 4), normal(3, 4, seed=1))
    check_op(lambda a, b: np.vdot(a, b), normal(5, dtype=complex), normal(5, seed=1, dtype=complex))


@pytest.mark.parametrize("dtype", [float, complex])
def test_products_of_stacks_of_vectors(dtype):
    m, x, y = normal(2, 3, 4, dtype=dtype), normal(2, 4, dtype=dtype), normal(2, 3, dtype=dtype)
    check_op(lambda m, x: np.matvec(m, x), m, x, exact=False)
    check_op(lambda y, m: np.vecmat(y, m), y, m, exact=False)
    check_op(lambda a, b: np.vecdot(a, b), x, normal(4, seed=1, dtype=dtype), exact=False)
    check_op(
        lambda a, b: np.linalg.vecdot(a, b, axis=0),
        x,
        normal(2, 4, seed=1, dtype=dtype),
        exact=False,
    )
    check_op(lambda a, b: np.linalg.matmul(a, b), m, normal(4, 2, dtype=dtype))


@pytest.mark.parametrize(
    ("a", "b"),
    [((2, 3), (3, 2)), ((3,), (4,)), ((2, 3), (4,)), ((4,), (2, 3)), ((2, 1, 3), (2, 2))],
)
def test_kron(a, b):
    peer = len(a) == len(b)
    check_op(lambda a, b, np=np: np.kron(a, b), normal(*a), normal(*b, seed=1), peer=peer)


@pytest.mark.parametrize(
    ("a", "b"), [((3,), (3,)), ((4, 3), (4, 3)), ((4, 3), (3,)), ((5, 1, 3), (4, 3))]
)
def test_cross(a, b):
    check_op(lambda a, b, np=np: np.cross(a, b), normal(*a), normal(*b, seed=1), peer=a == b)
    check_op(lambda a, b: np.linalg.cross(a, b), normal(*a), normal(*b, seed=1))


@pytest.mark.filterwarnings("ignore:Arrays of 2-dimensional vectors")
def test_cross_of_plane_vectors_and_along_axes():
    if np.lib.NumpyVersion(np.__version__) < "2.5.0":  # which has none of plane vectors
        check_op(lambda a, b: np.cross(a, b), normal(4, 2), normal(4, 2, seed=1))
        check_op(lambda a, b: np.cross(a, b), normal(4, 2), normal(4, 3, seed=1))
    check_op(lambda a, b: np.cross(a, b, axis=0), normal(3, 4), normal(3, 4, seed=1))
    check_op(lambda a, b: np.cross(a, b, 0, 1, 0), normal(3, 4), normal(4, 3, seed=1))
    with pytest.raises(ValueError, match="components"):
        np.cross(ckpt.Value(normal(4)), normal(4))


@pytest.mark.parametrize("power", [-3, -1, 0, 1, 2, 3, 5])
def test_matrix_power(power):
    x = normal(3, 3) + 3 * np.eye(3)
    check_op(lambda x: np.linalg.matrix_power(x, power), x, exact=False)
    check_op(lambda x: np.linalg.matrix_power(x, power), np.stack([x, 2 * x]), exact=False)
    half = x.astype(np.float16)  # whose last bits tell the order of the products
    if power >= 0:
        ours = np.linalg.matrix_power(ckpt.Value(half), power).data
        assert np.array_equal(ours, np.linalg.matrix_power(half, power))


def test_multi_dot_takes_the_cheapest_order():
    shapes = [(10, 100), (100, 5), (5, 50)]
    arrays = [normal(*s, seed=k) for k, s in enumerate(shapes)]
    program = ckpt.trace(lambda a: np.sum(np.linalg.multi_dot(a)), arrays)
    products = [node for node in program.graph if node.op == "matmul"]
    assert sum(node.flops for node in products) == 2 * 7500  # Cormen et al., section 15.2
    check_op(lambda *a: np.linalg.multi_dot(a), *arrays)
    check_op(lambda *a: np.linalg.multi_dot(a), normal(3), normal(3, 4), normal(4))


def test_operands_that_do_not_match():
    x = ckpt.Value(normal(3, 4))
    with pytest.raises(ValueError, match=r"don't match|mismatch"):
        x @ normal(3, 4)
    with pytest.raises(ValueError, match="scalar"):
        ckpt.trace(lambda x: np.matmul(x, 2.0), normal(3, 4))


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize(
    ("function", "x", "w"),
    [
        (np.matvec, (4, 17, 33), (33,)), (np.matvec, (1, 17, 33), (5, 33)),
        (np.vecmat, (33,), (4, 33, 17)), (np.vecmat, (5, 33), (33, 17)),
        (np.vecdot, (4, 1, 33), (7, 33)), (np.vecdot, (33,), (33,)),
    ],
)  # fmt: skip
def test_products_with_vectors_have_numpys_bits_in_every_layout(function, x, w, dtype):
    """In a plain step, whose plain arguments NumPy multiplies, as in a planned one."""

    def loss(p, x, w):
        return np.sum(np.real(function(x, w)) * p)

    for a in layouts(normal(*x, dtype=dtype)):
        for b in layouts(normal(*w, seed=1, dtype=dtype)):
            right = ckpt.value_and_grad(loss)(1.5, a, b)
            assert ckpt.plan(loss, 1.5, a, b)(1.5, a, b) == right
