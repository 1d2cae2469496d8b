"""Ufuncs: every rule against finite differences and HIPS autograd, in every layout."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt.errors import MutationError, TapeError, UnsupportedError
from ckpt.planners import make_schedule
from ckpt.tape.core.op import NUMPY
from ckpt.tape.eager.gradcheck import gradcheck
from tests.graphs import step_of
from tests.tape.ops.checking import check_agreement, check_dtype, check_op, layouts

RNG = np.random.default_rng(0)
ANY = RNG.uniform(-2, 2, (3, 4))
POSITIVE = RNG.uniform(0.3, 2, (3, 4))
UNIT = RNG.uniform(-0.9, 0.9, (3, 4))
ABOVE_ONE = RNG.uniform(1.2, 3, (3, 4))

UNARY = {
    "negative": ANY, "positive": ANY, "fabs": ANY, "absolute": ANY, "reciprocal": POSITIVE,
    "square": ANY, "sqrt": POSITIVE, "cbrt": POSITIVE, "exp": ANY, "exp2": ANY, "expm1": ANY,
    "log": POSITIVE, "log2": POSITIVE, "log10": POSITIVE, "log1p": POSITIVE, "sin": ANY,
    "cos": ANY, "tan": UNIT, "arcsin": UNIT, "arccos": UNIT, "arctan": ANY, "sinh": ANY,
    "cosh": ANY, "tanh": ANY, "arcsinh": ANY, "arccosh": ABOVE_ONE, "arctanh": UNIT,
    "deg2rad": ANY, "radians": ANY, "rad2deg": ANY, "degrees": ANY, "sinc": ANY,
    "conjugate": ANY,
}  # fmt: skip
NOT_IN_HIPS = {"positive", "cbrt"}

BINARY = {
    "add": (ANY, ANY), "subtract": (ANY, ANY), "multiply": (ANY, ANY), "divide": (ANY, POSITIVE),
    "power": (POSITIVE, ANY), "arctan2": (ANY, POSITIVE), "hypot": (ANY, POSITIVE),
    "logaddexp": (ANY, ANY), "logaddexp2": (ANY, ANY), "maximum": (ANY, ANY),
    "minimum": (ANY, ANY), "fmax": (ANY, ANY), "fmin": (ANY, ANY), "remainder": (ANY, POSITIVE),
    "fmod": (ANY, POSITIVE), "copysign": (ANY, ANY), "float_power": (POSITIVE, ANY),
}  # fmt: skip
BINARY_NOT_IN_HIPS = {"hypot", "fmod", "copysign", "float_power"}


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    def f(x, np=np):
        return getattr(np, name)(x)

    check_op(f, UNARY[name], peer=name not in NOT_IN_HIPS)
    for array in layouts(UNARY[name], ("F", "rows", "columns", "reversed")):
        check_agreement(f, array)
    check_op(f, UNARY[name][0, 0], peer=name not in NOT_IN_HIPS)


@pytest.mark.parametrize("name", BINARY)
def test_binary(name):
    x, y = BINARY[name]
    y = y[::-1, ::-1] * 0.9

    def f(x, y, np=np):
        return getattr(np, name)(x, y)

    options = {
        "peer": name not in BINARY_NOT_IN_HIPS,
        "float32": name != "float_power",
    }
    check_op(f, x, y, **options)
    options["double"] = False
    check_op(f, np.asfortranarray(x), y, **options)
    check_op(f, x, y[0], **options)  # broadcast in front
    check_op(f, x[:, :1], y[:1], **options)  # broadcast both ways
    check_op(f, x, y[0, 0], **options)
    check_op(lambda x: f(x, 1.5), np.abs(x) + 0.1, **options)  # Python scalars
    if name != "copysign":  # whose y has no gradient
        check_op(lambda y: f(1.5, y), np.abs(y) + 0.1, **options)
    check_op(f, x[0, 0], y[0, 0], **options)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)])
def test_zero_size(shape):
    x = np.zeros(shape)
    check_op(lambda x: np.tanh(x) * np.exp(x), x)
    check_op(lambda x, y: np.maximum(x, y), x, np.zeros(shape[-1:]))


@pytest.mark.parametrize(
    "name", ["tanh", "multiply", "power", "maximum", "hypot", "sinc", "arctan2"]
)
@pytest.mark.parametrize("side", [100, 300])
def test_memory_is_as_declared(name, side):
    """On both sides of 256 KiB, above which NumPy reuses the temporaries of an expression."""
    for dtype in (np.float32, np.float64):
        x = RNG.uniform(0.5, 1, (side, side)).astype(dtype)
        for a in layouts(x, ("C", "F", "columns")):
            if name in ("tanh", "sinc"):
                check_agreement(getattr(np, name), a)
            else:
                # Where layouts meet, NumPy's own reuse of large temporaries decides in an eager
                # rule what layout a cotangent has, and so the last bits of sums over it.
                exact = name == "multiply" or side == 100
                check_agreement(getattr(np, name), a, x[::-1], exact=exact)
                check_agreement(getattr(np, name), a, x[0], exact=exact)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 0.5, -1, -2.5, 2.0])
def test_power_of_a_python_number(exponent):
    check_op(lambda x, np=np: x**exponent, POSITIVE + 0.5, double=exponent != 0)
    if exponent > 0:
        check_op(lambda x, np=np: exponent**x, POSITIVE)


def test_power_at_zero():
    x = ckpt.Value(np.zeros(3))
    np.sum(x**2 + x**1 + x**0).backward()
    assert np.array_equal(x.grad, np.ones(3))
    base = ckpt.Value(np.zeros(2))
    np.sum(base ** np.array([0.0, 2.0])).backward()
    assert np.array_equal(base.grad, [0, 0])


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_ties_are_shared(name):
    def f(x, y, np=np):
        return getattr(np, name)(x, y)

    check_op(
        f, np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 3.0]), differences=False
    )  # fmt: skip


@pytest.mark.parametrize("name", ["fmax", "fmin"])
def test_a_tie_of_numbers_goes_to_the_first_as_in_pytorch(name):
    x, y = np.array([2.0, 3.0]), np.array([2.0, 3.0])
    a, b = ckpt.grad(lambda x, y: np.sum(getattr(np, name)(x, y)), (0, 1))(x, y)
    assert np.array_equal(a, [1, 1])
    assert np.array_equal(b, [0, 0])


def test_nan_wins_a_maximum_and_loses_an_fmax():
    x, y = np.array([np.nan, 1.0, 2.0]), np.array([5.0, np.nan, 3.0])
    a, b = ckpt.grad(lambda x, y: np.sum(np.fmax(x, y)), (0, 1))(x, y)
    assert np.array_equal(a, [0, 1, 0])
    assert np.array_equal(b, [1, 0, 1])
    assert np.isnan(ckpt.value_and_grad(lambda x: np.sum(np.maximum(x, 0.0)))(x)[0])


def test_dtypes_are_numpys():
    half = ANY.astype(np.float16)
    single = ANY.astype(np.float32)
    check_dtype(lambda x: x * 2.5 + 1, half)
    check_dtype(lambda x: np.maximum(x, 0.0) ** 2, single)
    check_dtype(lambda x, y: x * y, single, ANY)
    check_dtype(lambda x, n: x * n, single, np.arange(4))
    check_dtype(lambda x, n: np.ldexp(x, n), single, np.arange(4))
    check_dtype(lambda x, n: x + n, single, np.int32(3))
    check_dtype(lambda x: x / np.float64(3.0), single)
    check_dtype(lambda x: x.astype("f8") * 2, single)
    check_dtype(lambda x: x.astype("f4"), ANY)
    check_dtype(lambda x: np.tanh(x), ANY.astype(np.longdouble))


def test_casts():
    check_op(lambda x: x.astype(np.float32).astype(np.float64) * 2, ANY, differences=False)
    x = ckpt.Value(ANY)
    assert x.astype(np.float64, copy=False) is x
    assert (x.astype(int)).dtype == int
    assert not x.astype(int).requires_grad


@pytest.mark.filterwarnings("ignore:numpy.fix is deprecated:DeprecationWarning")  # from 2.5 on
def test_ldexp_modf_and_divmod():
    n = np.array([1, 2, -3, 0])
    check_op(lambda x: np.ldexp(x, n), ANY)
    check_op(lambda x: np.modf(x)[0] * x, ANY)
    check_op(lambda x: np.divmod(x, 0.7)[1] * x, ANY)
    whole = np.modf(ckpt.Value(ANY))[1]
    assert np.array_equal(whole.data, np.modf(ANY)[1])
    assert np.array_equal(np.fix(ckpt.Value(ANY)).data, np.fix(ANY))


@pytest.mark.parametrize(
    "function",
    [
        np.sign, np.floor, np.ceil, np.rint, np.trunc, np.isnan, np.isfinite, np.isinf, np.signbit,
        np.logical_not, np.round, lambda x: np.round(x, 1), lambda x: x > 0.5, lambda x: x == x,
        lambda x: x.__le__(1), lambda x: (x > 0) & (x < 1), lambda x: ~(x > 0), lambda x: x // 0.5,
        lambda x: np.heaviside(x, 0.5), lambda x: np.nextafter(x, 1.0),
    ],
)  # fmt: skip
def test_what_has_no_gradient(function):
    made = function(ckpt.Value(ANY))
    assert not made.requires_grad
    assert np.array_equal(made.data, function(ANY))
    assert made.dtype == function(ANY).dtype
    # As a node it is computed again in a checkpoint, and traced.
    check_agreement(lambda x: x * function(x), ANY)


def test_masks_are_nodes_a_byte_an_element():
    program = ckpt.trace(lambda x: np.sum(np.where(x > 0, x, 0.0)), ckpt.spec((50, 20), "f8"))
    (mask,) = (node for node in program.graph if node.op == "greater")
    assert mask.nbytes == 1000
    reads = step_of(program.graph, "where").reads
    assert [program.graph[r].op for r in reads] == ["greater"]


def test_each_rule_reads_the_least():
    reads = {
        "tanh": ["tanh"], "exp": ["exp"], "sqrt": ["sqrt"], "add": [], "negative": [],
        "sin": ["parameter"], "square": ["parameter"],
    }  # fmt: skip
    for name, expected in reads.items():
        f = getattr(np, name)
        graph = ckpt.trace(lambda x, f=f: np.sum(f(x, x) if f is np.add else f(x)), POSITIVE).graph
        assert [graph[r].op for r in step_of(graph, name).reads] == expected


def test_flops_are_one_a_function_an_element():
    graph = ckpt.trace(lambda x: np.sum(np.tanh(x)), np.ones((10, 10))).graph
    (node,) = (n for n in graph if n.op == "tanh")
    assert node.flops == 100
    assert step_of(graph, "tanh").flops == 300  # out * out, 1 - …, g * …


def test_refusals_say_what_to_do():
    x = ckpt.Value(np.ones(3))
    with pytest.raises(MutationError, match="drop out="):
        np.add(x, 1, out=np.zeros(3))
    with pytest.raises(UnsupportedError, match="where"):
        np.add(x, 1, where=np.array([True, False, True]))
    with pytest.raises(UnsupportedError, match=r"np\.spacing\.reduce|np\.hypot\.reduce"):
        np.hypot.reduce(x)
    plain = np.zeros(3)
    with pytest.raises(MutationError, match="x = x \\+ value"):
        plain += x
    with pytest.raises(TapeError):
        np.sum(np.sign(x)).backward()


def test_gradcheck_finds_a_wrong_rule():
    from ckpt.errors import VerificationError

    @ckpt.op
    def wrong(x):
        return np.sin(x) * 1.0

    wrong.vjp(x=lambda g, x: g * (np.cos(x) + 1e-3))
    with pytest.raises(VerificationError, match=r"argument 0 at \[0\].*off by"):
        gradcheck(wrong, np.ones(3))


def test_gradcheck_finds_a_wrong_second_derivative():
    from ckpt.errors import VerificationError

    @ckpt.op
    def frozen(x):
        return np.sin(x) * 1.0

    frozen.vjp(x=lambda g, x: g * ckpt.stop_gradient(np.cos(x)))
    gradcheck(frozen, np.ones(3))
    with pytest.raises(VerificationError):
        gradcheck(frozen, np.ones(3), order=2)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("function", [np.sinc, np.modf, np.divmod, np.nan_to_num, np.cbrt, np.exp2])
def test_values_at_ends_and_zeros_are_numpys(function: Any, dtype: str) -> None:
    x = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, np.inf, -np.inf, np.nan, 1e-7], dtype)
    others = (x[::-1].copy(),) if function is np.divmod else ()
    with np.errstate(all="ignore"):
        right = function(x, *others)
        found = function(ckpt.Value(x), *others)
    pairs = zip(found, right, strict=True) if isinstance(right, tuple) else [(found, right)]
    for a, b in pairs:
        assert a.data.dtype == b.dtype
        np.testing.assert_array_equal(a.data, b)


@pytest.mark.parametrize("p", [None, 2, -2])
def test_the_condition_of_a_null_matrix_is_infinite(p: Any) -> None:
    x = np.zeros((2, 3, 3))
    x[0] = np.diag([1.0, 2.0, 4.0])
    np.testing.assert_allclose(np.linalg.cond(ckpt.Value(x), p).data, np.linalg.cond(x, p))


COMPLEX = [
    f for f in NUMPY
    if isinstance(f, np.ufunc) and f.signature is None and f"{'D' * f.nin}->D" in f.types
    and NUMPY[f].differentiable
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["c8", "c16"])
@pytest.mark.parametrize("function", [*COMPLEX, np.sinc, partial(np.cumprod, axis=1)])
def test_large_complex_arrays_have_the_same_bits_in_a_plan(function, dtype):
    """From 256 KiB on NumPy multiplies into a temporary, a right one too, and so in other order."""
    rng = np.random.default_rng(0)
    count = getattr(function, "nin", 1)
    draw = [0.5 * rng.standard_normal((2, 70_000)).view("c16").astype(dtype) for _ in range(3)]
    args, weights = draw[:count], draw[2]

    def loss(*args):
        return np.real(np.sum(function(*args) * weights))

    with np.errstate(all="ignore"):
        for k in range(count):
            expected = ckpt.value_and_grad(loss, k)(*args)
            program = ckpt.trace(loss, *args, argnums=k)
            schedule = make_schedule(program.graph, "store_all")
            found = ckpt.execute(program, schedule, *args).result
            step = program.compile(schedule)(*args)
            assert found[1].tobytes() == step[1].tobytes() == expected[1].tobytes()
