"""Elementwise arithmetic: ufuncs, comparisons, casts. One FLOP per function per element.

A ufunc's op forward is the ufunc itself. Of complex numbers the rules hold as they stand, for the
gradient is dL/dx - i dL/dy of z = x + iy, as in HIPS autograd: where f is holomorphic, a cotangent
g becomes g f'(z). The functions that aren't holomorphic are in `complex`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import factorial
from typing import Any

import numpy as np

from ckpt.errors import UnsupportedError
from ckpt.tape.core.abstract import AbstractArray, elementwise, fresh
from ckpt.tape.core.cotangents import fit
from ckpt.tape.core.op import Fill, Op, adapt, op
from ckpt.tape.ops.pointwise.buffers import casts

LN2 = float(np.log(2.0))
LN10 = float(np.log(10.0))
DEGREE = float(np.pi / 180)


def size(out: Any, *operands: Any, **params: Any) -> int:
    """One FLOP per element of the result."""
    return int(out.size)


def anywhere(k: int, out: Any, *operands: Any, **params: Any) -> int:
    """Element by element: the result may be written over any operand."""
    return 0


def ufunc(
    function: np.ufunc,
    forward: Callable[..., Any] | None = None,
    *,
    flops: Callable[..., int] | None = size,
) -> Op:
    """The op of a NumPy ufunc; ``flops=None``: moving data costs none."""
    declare = op(
        function,
        name=function.__name__,
        infer=elementwise(function),
        flops=flops,
        workspace=casts(function),
        writes=function,
        over=anywhere,
        fill=Fill(function),
    )
    return declare(forward or function)  # type: ignore[no-any-return]


# -- operands x and y ------------------------------------------------------------------------------

ufunc(np.add).vjp(x=lambda g: g, y=lambda g: g)


def _summed(g: Any, shape: tuple[int, ...]) -> Any:
    """g for an operand of that shape, which may have been broadcast: what is done with the sum is
    done to fewer elements."""
    return g if g.shape == shape else fit(g, shape, g.dtype)


ufunc(np.subtract).vjp(x=lambda g: g, y=lambda g, y_shape: -_summed(g, y_shape))


def multiply(x: Any, y: Any) -> Any:
    """``x * y``, as rules write it: of two complex numbers the ufunc rounds otherwise."""
    return y * x if type(x) is complex else x * y  # complex * np.float64 is Python's


ufunc(np.multiply, multiply).vjp(x=lambda g, y: g * y, y=lambda g, x: g * x)
ufunc(np.true_divide).vjp(
    x=lambda g, y: g / y, y=lambda g, out, y, y_shape: -_summed(g * out, y_shape) / y
)


def quotient(x: Any, y: Any) -> Any:
    """x / y where y bounds x: 0 where y is 0, and 1 or -1 where both are infinite."""
    limit = x if getattr(x, "dtype", None) == np.bool_ else np.sign(x)
    return np.where(np.isinf(x), limit, x / np.where(np.equal(y, 0), np.inf, y))


def _angle_x(g: Any, x: Any, y: Any) -> Any:
    radius = np.hypot(x, y)  # neither overflows nor underflows, as x * x + y * y does
    return g * quotient(quotient(y, radius), radius)


ufunc(np.arctan2).vjp(x=_angle_x, y=lambda g, x, y: -_angle_x(g, y, x))
ufunc(np.hypot).vjp(
    x=lambda g, out, x: g * quotient(x, out), y=lambda g, out, y: g * quotient(y, out)
)


def _log_share(x: Any, y: Any, exp: Any) -> Any:
    """exp(x) / (exp(x) + exp(y)) without overflow; half where both are the same infinity."""
    endless = np.isinf(x) & np.equal(x, y)
    ahead = np.where(endless, 0, x) - np.where(endless, 0, y)
    larger = np.greater_equal(ahead, 0)
    other = exp(np.where(larger, -ahead, ahead))
    return np.where(larger, 1, other) / (1 + other)


def _of_sum(exp: Any) -> dict[str, Callable[..., Any]]:
    return {
        "x": lambda g, x, y: g * _log_share(x, y, exp),
        "y": lambda g, x, y: g * _log_share(y, x, exp),
    }


ufunc(np.logaddexp).vjp(**_of_sum(np.exp))
ufunc(np.logaddexp2).vjp(**_of_sum(np.exp2))
# The quotient that NumPy took: floor(1 / 0.1) is 10, and 1 % 0.1 is 1 - 9 * 0.1.
ufunc(np.remainder).vjp(x=lambda g: g, y=lambda g, x, y: -g * np.floor_divide(x, y))
ufunc(np.fmod).vjp(x=lambda g: g, y=lambda g, out, x, y: -g * np.rint((x - out) / y))
ufunc(np.copysign).vjp(x=lambda g, x, y: g * (np.sign(x) * np.copysign(1.0, y)), y=None)
ufunc(np.ldexp).vjp(x=lambda g, y: np.ldexp(g, y), y=None)
ufunc(np.heaviside).vjp(x=None, y=lambda g, x: np.where(np.equal(x, 0), g, 0))


def _power_x(g: Any, x: Any, y: Any) -> Any:
    if isinstance(y, (int, float, complex)):  # weak: a float32 program stays one
        if y in (0, 1, 2):
            return 2 * x * g if y == 2 else g * y
        if y == -1:
            return -g * np.square(np.reciprocal(x))
        return np.power(x, y - 1) * y * g
    none = np.equal(y, 0)
    return np.where(none, 0, np.power(np.where(none, 1, x), y - 1) * y) * g


def _power_y(g: Any, out: Any, x: Any, y: Any) -> Any:
    flat = np.equal(x, 0) & np.greater_equal(np.real(y), 0)  # 0 to any power, and to 0
    return np.where(flat, 0, np.log(np.where(flat, 1, x)) * out) * g


ufunc(np.power).vjp(x=_power_x, y=_power_y)


def _wide(*operands: Any) -> Iterator[Any]:
    """What np.float_power makes of its operands: double precision."""
    for x in operands:
        dtype = np.result_type(np.float64, getattr(x, "dtype", np.float64))
        yield np.astype(x, dtype, copy=False) if hasattr(x, "dtype") else x


ufunc(np.float_power).vjp(
    x=lambda g, x, y: _power_x(g, *_wide(x, y)),
    y=lambda g, out, x, y: _power_y(g, out, *_wide(x, y)),
)


# -- operand x -------------------------------------------------------------------------------------

ufunc(np.negative).vjp(x=lambda g: -g)
ufunc(np.positive, flops=None).vjp(x=lambda g: g)
ufunc(np.fabs).vjp(x=lambda g, x: g * np.sign(x))
ufunc(np.reciprocal).vjp(x=lambda g, out: -g * (out * out))
ufunc(np.square).vjp(x=lambda g, x: 2 * x * g)
ufunc(np.sqrt).vjp(x=lambda g, out: g * 0.5 / out)
ufunc(np.cbrt).vjp(x=lambda g, out: g / 3 / out / out)
ufunc(np.exp).vjp(x=lambda g, out: g * out)
ufunc(np.exp2).vjp(x=lambda g, out: LN2 * out * g)
ufunc(np.expm1).vjp(x=lambda g, out: (out + 1) * g)
ufunc(np.log).vjp(x=lambda g, x: g / x)
ufunc(np.log2).vjp(x=lambda g, x: g / (LN2 * x))
ufunc(np.log10).vjp(x=lambda g, x: g / (LN10 * x))
ufunc(np.log1p).vjp(x=lambda g, x: g / (x + 1))
ufunc(np.sin).vjp(x=lambda g, x: np.cos(x) * g)
ufunc(np.cos).vjp(x=lambda g, x: -g * np.sin(x))
ufunc(np.tan).vjp(x=lambda g, out: (1 + out * out) * g)


def _over_product(g: Any, x: Any) -> Any:
    """g / (1 - x * x), of which only a complex x can be so large that its square overflows."""
    return g / (1 - x) / (1 + x) if x.dtype.kind == "c" else g / ((1 - x) * (1 + x))


def _over_root(g: Any, x: Any) -> Any:
    """g / sqrt(1 - x * x), likewise."""
    if x.dtype.kind == "c":
        return g / np.sqrt(1 - x) / np.sqrt(1 + x)
    return g / np.sqrt((1 - x) * (1 + x))


def _far(function: Callable[..., Any], g: Any, x: Any, near: Callable[[Any], Any]) -> Any:
    """``near`` of a complex x, or ``function`` of ix where the square of x overflows."""
    fits = np.absolute(x) < 1e10
    return np.where(fits, near(np.where(fits, x, 0)), function(g, np.where(fits, 0, x) * 1j))


def _arctan_x(g: Any, x: Any) -> Any:
    if x.dtype.kind == "c":
        return _far(_over_product, g, x, lambda x: g / (1 + x * x))
    return g / np.hypot(x, 1) / np.hypot(x, 1)


def _arcsinh_x(g: Any, x: Any) -> Any:
    if x.dtype.kind == "c":
        return _far(_over_root, g, x, lambda x: g / np.sqrt(x * x + 1))
    return g / np.hypot(x, 1)


ufunc(np.arcsin).vjp(x=_over_root)
ufunc(np.arccos).vjp(x=lambda g, x: _over_root(-g, x))
ufunc(np.arctan).vjp(x=_arctan_x)
ufunc(np.arcsinh).vjp(x=_arcsinh_x)
ufunc(np.arctanh).vjp(x=_over_product)
ufunc(np.sinh).vjp(x=lambda g, x: np.cosh(x) * g)
ufunc(np.cosh).vjp(x=lambda g, x: np.sinh(x) * g)
ufunc(np.tanh).vjp(x=lambda g, out: (1 - out * out) * g)
ufunc(np.arccosh).vjp(x=lambda g, x: g / np.sqrt(x - 1) / np.sqrt(x + 1))
for _to_radians in (np.deg2rad, np.radians):
    ufunc(_to_radians).vjp(x=lambda g: g * DEGREE)
for _to_degrees in (np.rad2deg, np.degrees):
    ufunc(_to_degrees).vjp(x=lambda g: g * (1 / DEGREE))


@op(np.sinc)
def sinc(x: Any) -> Any:
    """sin(pi x) / (pi x), as NumPy computes it: the dtype's epsilon stands for 0."""
    y = np.pi * x
    y = np.where(np.equal(y, 0), float(np.finfo(y.dtype).eps), y)
    return np.sin(y) / y


_FEW = 256
"""Elements at a time of a formula with a dozen temporaries, whose bytes are then soon forgotten."""


@op(infer=lambda x, *, n: AbstractArray(x.shape, x.dtype), flops=lambda out, x, *, n: 60 * x.size)
def sinc_derivative(x: Any, *, n: int = 1, out: Any = None) -> Any:
    """The n-th derivative of sinc."""
    made = np.empty(x.shape, x.dtype) if out is None else out
    for start in range(0, x.size, _FEW):
        part = slice(start, start + _FEW)
        made.reshape(-1)[part] = _sinc_derivative(np.asarray(x).flat[part], n)
    return made if x.shape else made[()]


def _sinc_derivative(x: Any, n: int) -> Any:
    """pi**n times f_n(z), z = pi x, of f(z) = sin(z) / z.

    By z f_n + n f_(n-1) = the n-th derivative of sin(z), and where that cancels by f's series.
    """
    z = np.pi * x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    small = np.absolute(z) < n + 1
    far = np.where(small, n + 1, z)
    made = np.sin(far) / far
    for k in range(1, n + 1):
        made = (np.sin(far + k * np.pi / 2) - k * made) / far
    near, squared = np.where(small, z, 0), np.square(np.where(small, z, 0))
    first = n + n % 2  # the lowest power whose n-th derivative isn't zero
    series = np.zeros_like(near)
    for power in range(first + 40, first - 1, -2):
        series = series * squared + (-1) ** (power // 2) / (factorial(power - n) * (power + 1))
    series = series * near ** (n % 2)
    return np.where(small, series, made) * np.pi**n


sinc_derivative.vjp(x=lambda g, x, n: sinc_derivative(x, n=n + 1) * g)
sinc.vjp(x=lambda g, x: sinc_derivative(x, n=1) * g)

# -- no gradient -----------------------------------------------------------------------------------

for _function in (
    np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal,
    np.logical_and, np.logical_or, np.logical_xor, np.logical_not,
    np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.invert, np.left_shift, np.right_shift,
    np.isnan, np.isfinite, np.isinf, np.signbit,
    np.floor, np.ceil, np.rint, np.trunc, np.floor_divide, np.spacing, np.nextafter,
    np.gcd, np.lcm,
):  # fmt: skip
    ufunc(_function).no_gradient()


@op(
    np.round,
    np.around,
    infer=lambda x, *, decimals=0: fresh(np.round, x.shape, x, decimals=decimals),
    flops=size,
)
def round(x: Any, *, decimals: int = 0) -> Any:  # noqa: A001
    return np.round(x, decimals)


round.no_gradient()


adapt(np.fix)(lambda x: np.trunc(x))
adapt(np.divmod)(lambda x, y: (np.floor_divide(x, y), np.remainder(x, y)))


@adapt(np.modf)
def _modf(x: Any) -> Any:
    """The fraction, through which the gradient flows, and the whole number."""
    whole, ends = np.trunc(x), np.isinf(x)
    return np.where(ends, 0, x) - np.where(ends, 0, whole), whole


# -- casting ---------------------------------------------------------------------------------------


def _casting(name: str) -> Op:
    """The op that casts to ``dtype``."""

    def cast(x: Any, *, dtype: Any = float) -> Any:
        return np.asarray(x).astype(dtype)[()]

    declare = op(name=name, infer=lambda x, *, dtype: fresh(cast, x.shape, x, dtype=dtype))
    return declare(cast)  # type: ignore[no-any-return]


_to_floats = _casting("astype").vjp(x=lambda g: g)  # the tape casts it back
_to_integers = _casting("as_integers").no_gradient()  # which no gradient flows through


@adapt(np.astype)
def _astype(x: Any, dtype: Any, *, copy: bool = True) -> Any:
    dtype = np.dtype(dtype)
    if not copy and x.dtype == dtype:
        return x
    if dtype.kind not in "fciub":
        raise UnsupportedError(
            f"astype({dtype}) of a Value would lose its gradient; use x.data.astype if none should "
            "flow"
        )
    return (_to_floats if dtype.kind in "fc" else _to_integers)(x, dtype=dtype)
