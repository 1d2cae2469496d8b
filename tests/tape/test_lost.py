"""No gradient is lost without a word: what could lose one is right, or says what works instead.

Each refusal's advice is followed here, and must succeed.
"""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from ckpt import Value
from ckpt.errors import AbstractError, MutationError, TapeError, UnsupportedError

X = np.array([2.0, 0.3, -1.0, 0.5])
W = np.array([1.0, 10.0, 100.0, 1000.0])
MASKED = np.ma.masked_array([1.0, 2.0, 3.0, 4.0], mask=[False, True, False, False])


def plans(f, *args):
    """A planned step gives the gradient that the plain one gives, bit for bit."""
    value, grad = ckpt.plan(f, *args, budget="100%")(*args)
    right = ckpt.value_and_grad(f)(*args)
    assert np.array_equal(value, right[0]) and np.array_equal(grad, right[1])
    return grad


# -- ops without rules -----------------------------------------------------------------------------


def test_an_op_without_a_rule_is_an_error_when_backward_asks():
    op = ckpt.op(name="cube")(lambda x: x * x * x)

    def loss(x):
        return np.sum(x) + np.sum(op(x))

    said = r"cube has no rule for its operand x.*cube\.vjp"
    for asked in (ckpt.grad(loss), ckpt.grad(ckpt.checkpoint(loss)), lambda x: ckpt.trace(loss, x)):
        with pytest.raises(UnsupportedError, match=said):
            asked(X)
    op.vjp(x=lambda g, x: g * (3 * x * x))  # as advised
    np.testing.assert_allclose(ckpt.grad(lambda x: np.sum(x) + np.sum(op(x)))(X), 1 + 3 * X * X)


def test_a_rule_for_one_of_two_operands():
    op = ckpt.op(name="product")(lambda x, y: np.multiply(x, y))
    op.vjp(x=lambda g, y: g * y)
    np.testing.assert_array_equal(ckpt.grad(lambda x: np.sum(op(x, W)))(X), W)
    with pytest.raises(UnsupportedError, match="operand y"):
        ckpt.grad(lambda x: np.sum(op(W, x)))(X)
    op.vjp(y=None)  # as advised: then no gradient flows to it
    with pytest.raises(TapeError, match="depends on none"):
        ckpt.grad(lambda x: np.sum(op(W, x)))(X)


def test_whole_numbers_need_no_rule():
    op = ckpt.op(name="rank")(lambda x: np.argsort(np.argsort(x)))
    rank = np.argsort(np.argsort(X))
    for f in (lambda x: np.sum(op(x) * x), ckpt.checkpoint(lambda x: np.sum(op(x) * x))):
        np.testing.assert_array_equal(ckpt.grad(f)(X), rank)


# -- classes and libraries that have rules of their own --------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        lambda x: MASKED * x, lambda x: x * MASKED, lambda x: np.ma.exp(x), lambda x: MASKED - x,
        lambda x: np.concatenate([MASKED, x]), lambda x: np.where(MASKED > 1, x, 0.0),
        lambda x: np.ma.sum(x), lambda x: np.matrix(X) * x, lambda x: x * np.matrix(X),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_masked_arrays_and_matrices_are_refused(f):
    with pytest.raises(UnsupportedError):
        ckpt.grad(lambda x: np.sum(f(x)) + np.sum(x))(X)


def test_as_advised_a_mask_is_a_choice():
    with pytest.raises(UnsupportedError, match=r"np\.where\(mask.*np\.asarray"):
        Value(X) * MASKED
    right = np.where(MASKED.mask, 0, MASKED.data)
    f = lambda x: np.sum(np.where(MASKED.mask, 0.0, np.asarray(MASKED) * x))  # noqa: E731
    np.testing.assert_array_equal(ckpt.grad(f)(X), right)


def test_a_subclass_without_rules_of_its_own_is_an_array(tmp_path):
    class Named(np.ndarray):
        pass

    memory = np.memmap(tmp_path / "w", float, "w+", shape=4)
    memory[:] = W
    for array in (W.view(Named), memory):
        for f in (lambda x: np.sum(x * array), lambda x: np.sum(array * np.sin(x) + array)):  # noqa: B023
            value, grad = ckpt.value_and_grad(f)(X)
            assert value == f(X)
            assert type(grad) is np.ndarray


@pytest.mark.parametrize("name", ["logsumexp", "softmax", "log_softmax"])
def test_what_makes_plain_arrays_is_named_and_so_is_what_works(name):
    special = pytest.importorskip("scipy.special")
    with pytest.raises(UnsupportedError, match=rf"special\.{name} .*use ckpt\.nn\.{name}"):
        getattr(special, name)(Value(X))
    ours = getattr(ckpt.nn, name)(Value(X)).data
    np.testing.assert_allclose(ours, getattr(special, name)(X))


def test_a_ufunc_or_its_method_is_named_and_can_be_given_a_rule():
    special = pytest.importorskip("scipy.special")
    with pytest.raises(UnsupportedError, match=r"@ckpt\.op\(scipy\.special\.binom"):
        special.binom(Value(X), 2)
    with pytest.raises(UnsupportedError, match=r"@ckpt\.op\(np\.minimum\.accumulate"):
        np.minimum.accumulate(Value(X))

    @ckpt.op(np.minimum.accumulate, name="running_min")
    def running_min(x, *, axis=0):
        return np.minimum.accumulate(x, axis)

    running_min.vjp(x=lambda g, out, x: g * np.equal(out, x))
    np.testing.assert_array_equal(
        ckpt.grad(lambda x: np.sum(np.minimum.accumulate(x)))(X), [1, 1, 1, 0]
    )
    grid = np.stack([X, -X])
    value = np.minimum.accumulate(Value(grid), axis=1)
    np.testing.assert_array_equal(value.data, np.minimum.accumulate(grid, axis=1))


def test_a_rule_given_to_a_function_that_the_forward_calls():
    """Traced, it needs a shape; the refusal says how to declare it."""

    @ckpt.op(np.unwrap)
    def unwrap(x):
        return np.unwrap(x)

    unwrap.vjp(x=lambda g: 1.0 * g)
    np.testing.assert_array_equal(ckpt.grad(lambda x: np.sum(np.unwrap(x)))(X), np.ones(4))
    with pytest.raises(UnsupportedError, match=r"infer=lambda x: ckpt\.spec"):
        ckpt.trace(lambda x: np.sum(np.unwrap(x)), X)

    @ckpt.op(np.unwrap, infer=lambda x: ckpt.spec(x.shape, x.dtype))
    def declared(x):
        return np.unwrap(x)

    declared.vjp(x=lambda g: 1.0 * g)
    np.testing.assert_array_equal(plans(lambda x: np.sum(np.unwrap(x)), X), np.ones(4))


def test_accumulate_is_a_running_sum_or_product():
    for accumulate, function in (
        (np.add.accumulate, np.cumsum),
        (np.multiply.accumulate, np.cumprod),
    ):
        np.testing.assert_array_equal(
            ckpt.grad(lambda x, f=accumulate: np.sum(f(x) * W))(X),
            ckpt.grad(lambda x, f=function: np.sum(f(x) * W))(X),
        )


@pytest.mark.parametrize(
    "f",
    [
        ckpt.grad(lambda x: np.sum(x * x)), Value, lambda x: ckpt.grad(np.vdot, 1)(X, x),
        lambda x: ckpt.plan(lambda x: np.sum(x * x), x),
        lambda x: ckpt.plan(lambda x: np.sum(x * x), X)(x), lambda x: ckpt.trace(np.sum, x),
    ],
)  # fmt: skip
def test_masked_arguments_are_refused(f):
    """Their masks would be passed over."""
    with pytest.raises(UnsupportedError, match="a MaskedArray has rules of its own"):
        f(MASKED)


def test_a_cast_to_what_has_no_numbers_is_refused():
    for dtype in (object, str, "M8[s]", "V8"):
        with pytest.raises(UnsupportedError, match=r"use x\.data\.astype"):
            ckpt.grad(lambda x, to=dtype: np.sum(x.astype(to).astype(float)) + np.sum(x))(X)
    names = np.array([1, 2, 3, 4], dtype=object)
    with pytest.raises(UnsupportedError, match=r"\.astype\(float\)"):
        ckpt.plan(lambda x: np.sum(x * names), X)
    assert ckpt.plan(lambda x: np.sum(x * names.astype(float)), X)(X)[1].tolist() == [1, 2, 3, 4]


# -- methods ---------------------------------------------------------------------------------------

NOT_OURS = {
    "__array_finalize__", "__array_interface__", "__array_namespace__", "__array_struct__",
    "__array_wrap__", "__class_getitem__", "__copy__", "__deepcopy__", "__dlpack__",
    "__dlpack_device__", "__setstate__",
    "__buffer__", "_set_dtype", "_set_shape",  # of Python 3.12 and NumPy 2.5
    # Without them, x += y rebinds x.
    "__iadd__", "__iand__", "__ifloordiv__", "__ilshift__", "__imatmul__", "__imod__", "__imul__",
    "__ior__", "__ipow__", "__irshift__", "__isub__", "__itruediv__", "__ixor__",
}  # fmt: skip
PLAIN = {
    "T", "flat", "real", "imag", "mT", "shape", "dtype", "ndim", "size", "nbytes", "itemsize",
    "strides", "flags", "data", "item", "tolist", "device",
}  # fmt: skip
IN_PLACE = {
    "sort": (), "partition": (1,), "put": ([0], [1.0]), "fill": (0.0,), "resize": ((2, 2),),
    "setfield": (1.0, float), "setflags": (), "byteswap": (True,), "__setitem__": (0, 1.0),
    "__delitem__": (0,),
}  # fmt: skip
OF_BYTES = {
    "view": (int,),
    "getfield": (int,),
    "tobytes": (),
    "tofile": ("f",),
    "dump": ("f",),
    "dumps": (),
}
OF_MEMORY = {"base", "ctypes"}
SAME = {
    "all": (), "any": (), "argmax": (), "argmin": (), "argpartition": (1,), "argsort": (),
    "astype": (np.float32,), "clip": (0, 1), "compress": ([True, False, True, False],), "conj": (),
    "conjugate": (), "copy": (), "cumprod": (), "cumsum": (), "diagonal": None, "dot": (W,),
    "flatten": (), "max": (), "mean": (), "min": (), "nonzero": (), "prod": (), "ravel": (),
    "repeat": (2,), "reshape": (2, 2), "round": (1,), "searchsorted": None, "squeeze": (),
    "std": (), "sum": (), "swapaxes": (0, 0), "take": ([3, -1],), "trace": None, "transpose": (),
    "var": (), "choose": None, "to_device": ("cpu",),
}  # fmt: skip


def test_every_method_of_an_array_is_decided():
    decided = {*NOT_OURS, *PLAIN, *IN_PLACE, *OF_BYTES, *OF_MEMORY, *SAME}
    missing = {n for n in dir(np.ndarray) if not hasattr(Value(X[None]), n)}
    assert missing <= NOT_OURS | OF_MEMORY
    assert {n for n in dir(np.ndarray) if n[:2] != "__"} <= decided
    assert not [n for n in NOT_OURS if n in dir(Value) and n not in dir(object)]


@pytest.mark.parametrize("name", [n for n, given in SAME.items() if given is not None])
def test_methods_as_numpy_has_them(name):
    right = getattr(X, name)(*SAME[name])
    made = getattr(Value(X), name)(*SAME[name])
    made = made[0] if isinstance(made, tuple) else made
    right = right[0] if isinstance(right, tuple) else right
    np.testing.assert_array_equal(made.data if isinstance(made, Value) else made, right)


def test_methods_of_other_shapes():
    grid, line = X.reshape(2, 2), np.sort(X)
    assert Value(grid).trace().data == grid.trace()
    np.testing.assert_array_equal(Value(grid).diagonal().data, grid.diagonal())
    np.testing.assert_array_equal(Value(line).searchsorted([0.0]), line.searchsorted([0.0]))
    compressed = Value(grid).compress([False, True], axis=1).data
    np.testing.assert_array_equal(compressed, grid.compress([False, True], axis=1))
    assert Value(X).item(1) == 0.3 and (0.3 in Value(X)) and (7.0 not in Value(X))
    assert [v.item() for v in Value(grid).flat] == X.tolist()
    assert Value(X).strides == X.strides and Value(X).flags.c_contiguous


@pytest.mark.parametrize("name", IN_PLACE)
def test_methods_that_write_are_refused(name):
    with pytest.raises(MutationError, match=r"use np|use a new|use x"):
        getattr(Value(X), name)(*IN_PLACE[name])


@pytest.mark.parametrize("name", OF_BYTES)
def test_methods_of_bytes_are_refused(name):
    with pytest.raises(UnsupportedError, match=rf"x\.data\.{name}"):
        getattr(Value(X), name)(*OF_BYTES[name])


@pytest.mark.parametrize("name", sorted(OF_MEMORY))
def test_attributes_of_memory_are_the_datas(name):
    with pytest.raises(AttributeError, match=rf"use x\.data\.{name}"):
        getattr(Value(X), name)
    assert hasattr(Value(X).data, name)


def test_values_are_on_the_cpu():
    assert Value(X).device == X.device == "cpu"
    with pytest.raises(UnsupportedError, match="'cpu' alone"):
        Value(X).to_device("cuda")


@pytest.mark.parametrize(
    "instead",
    [
        lambda x: x.data.view(int), lambda x: x.data.getfield(int), lambda x: x.data.tobytes(),
        lambda x: x.data.dumps(), lambda x: x.data.byteswap(), lambda x: x.astype("f4"),
        lambda x: np.sort(x), lambda x: np.partition(x, 1), lambda x: np.reshape(x, (2, 2)),
        lambda x: np.pad(x, 1), lambda x: x[:2], lambda x: np.where(x > 0, x, 0.0), np.stack,
        lambda x: np.concatenate([x[:1], x]), lambda x: np.broadcast_to(1.0, x.shape),
    ],
)  # fmt: skip
def test_what_is_named_instead_of_a_method_can_be_called(instead):
    instead(Value(X))


def test_what_the_refusals_of_methods_name_works():
    order = np.argsort(X)
    g = ckpt.grad(lambda x: np.sum(np.sort(x) * W))(X)
    np.testing.assert_array_equal(g[order], W)
    assert ckpt.grad(lambda x: np.sum(np.partition(x, 1)[:2]))(X).tolist() == [0, 1, 1, 0]
    assert ckpt.grad(lambda x: np.sum(np.broadcast_to(x[0], x.shape)))(X).tolist() == [4, 0, 0, 0]


# -- indices ---------------------------------------------------------------------------------------

TABLE = np.arange(12.0).reshape(4, 3)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: W[np.argsort(x)] * x, lambda x: W[x > 0.4], lambda x: W[np.argmax(x)] * x,
        lambda x: TABLE[np.argsort(x), (x > 0).astype(int)] * x,
        lambda x: np.take(W, np.argsort(x)) * x,
        lambda x: np.eye(4)[np.argmax(x, keepdims=True)] * x,
        lambda x: W[np.floor(abs(x) + 0.1).astype(int)] * x,
        lambda x: W[np.sum(x) > 0] * np.sum(x),
    ],
)  # fmt: skip
def test_plain_arrays_indexed_by_what_has_no_gradient(f):
    def loss(x):
        return np.sum(f(x)) + np.sum(x)

    value, grad = ckpt.value_and_grad(loss)(X)
    assert value == loss(X)
    assert np.array_equal(grad, ckpt.grad(ckpt.checkpoint(loss))(X))
    assert ckpt.gradcheck(loss, X) < 1


def test_while_tracing_an_index_of_a_plain_array_goes_another_way():
    with pytest.raises(AbstractError, match=r"take_along_axis.*ckpt\.nn\.embedding"):
        ckpt.trace(lambda x: np.sum(W[np.argsort(x)] * x), X)
    right = W[np.argsort(X)]
    for f in (
        lambda x: np.sum(np.take_along_axis(W, np.argsort(x), 0) * x),
        lambda x: np.sum(ckpt.nn.embedding(W, np.argsort(x)) * x),
    ):
        np.testing.assert_array_equal(plans(f, X), right)
    given = ckpt.plan(lambda x, w: np.sum(w[np.argsort(x)] * x), X, W, budget="100%")
    np.testing.assert_array_equal(given(X, W)[1], right)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x[range(2)], lambda x: x[range(3), range(3)], lambda x: x[:, range(1, 3)],
        lambda x: np.take(x, range(2), axis=1), lambda x: x.take(range(2)), lambda x: x[[]],
        lambda x: x[np.ix_(range(2), range(3))], lambda x: x * range(3), lambda x: x[range(0)],
    ],
)  # fmt: skip
def test_ranges_are_lists(f):
    grid = TABLE[:3] + 1
    loss = lambda x: np.sum(f(x) ** 2)  # noqa: E731
    assert np.array_equal(f(Value(grid)).data, f(grid) if f(grid).size else f(Value(grid)).data)
    plans(loss, grid)


@pytest.mark.parametrize("index", [1.0, "a", (0, 1.5), np.array([0.5]), object()])
def test_what_is_no_index(index):
    for take in (lambda x: x[index], lambda x: ckpt.trace(lambda x: np.sum(x[index]), x)):
        with pytest.raises(IndexError):
            take(Value(TABLE))


# -- gradients of gradients, stopped ones, complex ones --------------------------------------------


def test_the_gradient_of_a_constant_gradient_is_zero():
    linear = ckpt.grad(lambda y: np.sum(3 * y))
    np.testing.assert_array_equal(ckpt.grad(lambda x: np.sum(linear(x)))(X), 0 * X)
    third = ckpt.grad(lambda x: np.sum(ckpt.grad(lambda y: np.sum(linear(y)))(x)))
    np.testing.assert_array_equal(third(X), 0 * X)
    both = ckpt.grad(lambda x: np.sum(linear(x) * x))
    np.testing.assert_array_equal(both(X), np.full(4, 3.0))
    part = ckpt.grad(lambda x: ckpt.grad(lambda y: y[0] * 2.0)(x)[1])
    np.testing.assert_array_equal(part(X), 0 * X)
    with pytest.raises(TapeError, match="depends on none"):
        ckpt.grad(lambda x: np.sum(np.floor(x)))(X)


def test_a_stopped_gradient_is_traced_and_rematerialized():
    def loss(x):
        return np.sum(x * ckpt.stop_gradient(np.tanh(x)))

    np.testing.assert_array_equal(plans(loss, X), np.tanh(X))
    np.testing.assert_array_equal(ckpt.grad(ckpt.checkpoint(loss))(X), np.tanh(X))
    scalar = plans(lambda x: np.sum(x) * ckpt.stop_gradient(np.sum(x)), X)
    np.testing.assert_array_equal(scalar, np.full(4, np.sum(X)))


def test_a_complex_loss_is_refused():
    z = X + 1j
    for f in (ckpt.grad, lambda f: lambda z: ckpt.trace(f, z)):
        with pytest.raises(TapeError, match=r"complex.*np\.real"):
            f(lambda z: np.sum(z * z))(z)
        f(lambda z: np.real(np.sum(z * z)))(z)  # as advised


# -- plain arrays in a region ----------------------------------------------------------------------

BLOCKS = {
    "a / h": lambda h: W / np.sin(h), "maximum": lambda h: np.maximum(W, np.sin(h)),
    "arctan2": lambda h: np.arctan2(W, np.sin(h)), "product": lambda h: np.diag(W) @ np.sin(h),
    "where": lambda h: np.where(W > 5, np.sin(h), 0.0), "power": lambda h: W ** np.sin(h),
    "concatenate": lambda h: np.concatenate([W, np.sin(h)]),
}  # fmt: skip


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("nested", [False, True])
def test_plain_arrays_on_the_left_in_a_region(block, nested):
    region = ckpt.checkpoint(
        lambda x: ckpt.checkpoint(block)(np.cos(x)) if nested else block(np.cos(x))
    )
    right = ckpt.grad(lambda x: np.sum(block(np.cos(x))))(X)
    np.testing.assert_array_equal(ckpt.grad(lambda x: np.sum(region(x)))(X), right)


@pytest.mark.parametrize("shape", [(1,), (1, 3), (1, 1), (3, 1)])
def test_over_an_axis_of_one_nothing_is_written_into_what_is_shared(shape):
    x = np.full(shape, 0.5)
    for axis in range(len(shape)):

        def loss(x, axis=axis):
            h = np.sin(x)
            m = np.mean(h, axis=axis)
            return (
                np.sum((h + 1) * 2)
                + np.sum(m * m)
                + np.sum(h - np.mean(h, axis=axis, keepdims=True))
            )

        assert ckpt.gradcheck(loss, x, order=2) < 1
        plans(loss, x)


# -- equal eigenvalues -----------------------------------------------------------------------------


def orthogonal(n):
    return np.linalg.qr(np.random.default_rng(n).normal(size=(n, n)))[0]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_vectors_of_equal_values_are_refused_and_values_are_not(n, dtype):
    q = orthogonal(n)
    x = (q * np.array([2.0, 2.0, *range(3, n + 1)])) @ q.T
    x = ((x + x.T) / 2).astype(dtype)
    rebuilt = {
        "eigh": lambda x: (lambda w, v: np.sum((v * w) @ v.T))(*np.linalg.eigh(x)),
        "svd": lambda x: (lambda u, s, v: np.sum((u * s) @ v))(*np.linalg.svd(x)),
    }
    for name, f in rebuilt.items():
        with pytest.raises(TapeError, match=rf"{name}.*equal.*(eigvalsh|svdvals)"):
            ckpt.grad(f)(x)
    tight = 1e-5 if dtype is np.float64 else 1e-2
    for values in (np.linalg.eigvalsh, np.linalg.svdvals, lambda x: np.linalg.eigh(x)[0]):
        got = ckpt.grad(lambda x, f=values: np.sum(f(x) ** 2))(x)
        symmetric = (got + got.T) / 2
        np.testing.assert_allclose(symmetric, 2 * x, rtol=tight, atol=tight)
    last = lambda x: np.sum(np.linalg.eigh(x)[1][:, -1:] ** 2 * np.arange(n)[:, None])  # noqa: E731
    if n > 2:
        assert np.isfinite(ckpt.grad(last)(x)).all()  # whose value is another's by far


def test_values_alone_of_matrices_without_full_rank():
    tall = np.outer([1.0, 2.0, 3.0], [1.0, 1.0])
    g = ckpt.grad(lambda x: np.sum(np.linalg.svdvals(x) ** 2))(tall)
    np.testing.assert_allclose(g, 2 * tall, atol=1e-12)
    with pytest.raises(TapeError, match="svd: two or more values of a matrix without full rank"):
        ckpt.grad(lambda x: np.sum(np.linalg.svd(x, full_matrices=False)[0] ** 3))(tall)
    with pytest.raises(TapeError, match="qr: columns are linearly dependent"):
        ckpt.grad(lambda x: np.sum(np.linalg.qr(x)[1] ** 2))(tall)
    defective = np.array([[2.0, 1.0], [0.0, 2.0]])
    with pytest.raises(TapeError, match="eig: columns are linearly dependent"):
        ckpt.grad(lambda x: np.sum(np.abs(np.linalg.eigvals(x))))(defective)


def test_the_gradient_of_a_singular_determinant_is_its_cofactors():
    for x in (
        np.zeros((3, 3)),
        np.array([[1.0, 2.0], [2.0, 4.0]]),
        np.ones((3, 3)),
        orthogonal(4) * 1e-60,
    ):
        n = len(x)
        minors = [[np.linalg.det(np.delete(np.delete(x, i, 0), j, 1)) * (-1) ** (i + j)
                   for j in range(n)] for i in range(n)]  # fmt: skip
        np.testing.assert_allclose(ckpt.grad(np.linalg.det)(x), minors, rtol=1e-9, atol=1e-12)


# -- sums by group, paddings -----------------------------------------------------------------------


def test_weights_of_bincount():
    groups = np.array([0, 2, 1, 0])
    for f in (
        lambda x: np.sum(np.bincount(groups, x) ** 2),
        lambda x: np.sum(np.bincount(groups, weights=x, minlength=5) ** 2) + np.sum(x) * 0,
        lambda x: np.sum((np.bincount(groups, x) / np.bincount(groups)) ** 2),
    ):
        assert ckpt.gradcheck(f, X) < 1
        plans(f, X)
    single = ckpt.grad(lambda x: np.sum(np.bincount(groups, x)))(X.astype(np.float32))
    assert single.dtype == np.float32
    assert np.bincount(np.argsort(Value(X))).tolist() == [1, 1, 1, 1]


@pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "2.4.0", reason="no dicts of widths before"
)
@pytest.mark.parametrize("width", [{1: (1, 2)}, {-1: 2}, {-2: 1, -1: (0, 2)}, {0: (0, 1)}])
@pytest.mark.parametrize("mode", ["constant", "edge", "wrap"])
def test_widths_by_axis(width, mode):
    grid = TABLE[:2] + 1
    f = lambda x: np.pad(x, width, mode=mode)  # noqa: E731
    np.testing.assert_array_equal(f(Value(grid)).data, f(grid))
    assert ckpt.gradcheck(f, grid) < 1


def test_a_gradient_depends_on_the_values_that_its_function_captures():
    outer, inner = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    captured = ckpt.Value(outer)
    factor = np.sin(captured)
    found = ckpt.grad(lambda t: np.sum(t * t * factor))(inner)
    np.sum(found**2).backward(retain_graph=True)
    np.testing.assert_allclose(captured.grad, 8 * inner**2 * np.sin(outer) * np.cos(outer))
    captured.grad = None
    np.sum(factor).backward()  # what was captured is whole
    np.testing.assert_allclose(captured.grad, np.cos(outer))
