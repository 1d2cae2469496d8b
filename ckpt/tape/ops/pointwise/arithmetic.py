"""Elementwise arithmetic: ufuncs, comparisons, casts. One FLOP per function per element.

A ufunc's op forward is the ufunc itself. Of complex numbers the rules hold as they stand, for the
gradient is dL/dx - i dL/dy of z = x + iy, as in HIPS autograd: where f is holomorphic, a cotangent
g becomes g f'(z). The functions that aren't holomorphic are in `complex`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.tape.core.abstract import elementwise, fresh
from ckpt.tape.core.op import Op, adapt, op
from ckpt.tape.ops.pointwise.buffers import buffers

LN2 = float(np.log(2.0))
LN10 = float(np.log(10.0))
DEGREE = float(np.pi / 180)


def size(out: Any, *operands: Any, **params: Any) -> int:
    """One FLOP per element of the result."""
    return int(out.size)


def anywhere(k: int, out: Any, *operands: Any, **params: Any) -> int:
    """Element by element: the result may be written over any operand."""
    return 0


def ufunc(function: np.ufunc, *, flops: Callable[..., int] | None = size) -> Op:
    """The op of a NumPy ufunc; ``flops=None``: moving data costs none."""
    declare = op(
        function,
        name=function.__name__,
        infer=elementwise(function),
        flops=flops,
        workspace=buffers,
        writes=function,
        over=anywhere,
    )
    return declare(function)  # type: ignore[no-any-return]


# -- operands x and y ------------------------------------------------------------------------------

ufunc(np.add).vjp(x=lambda g: g, y=lambda g: g)
ufunc(np.subtract).vjp(x=lambda g: g, y=lambda g: -g)
ufunc(np.multiply).vjp(x=lambda g, y: g * y, y=lambda g, x: g * x)
ufunc(np.true_divide).vjp(x=lambda g, y: g / y, y=lambda g, out, y: -g * out / y)
ufunc(np.arctan2).vjp(
    x=lambda g, x, y: g * (y / (x * x + y * y)), y=lambda g, x, y: -g * (x / (x * x + y * y))
)
ufunc(np.hypot).vjp(x=lambda g, out, x: g * (x / out), y=lambda g, out, y: g * (y / out))
ufunc(np.logaddexp).vjp(
    x=lambda g, out, x: g * np.exp(x - out), y=lambda g, out, y: g * np.exp(y - out)
)
ufunc(np.logaddexp2).vjp(
    x=lambda g, out, x: g * np.exp2(x - out), y=lambda g, out, y: g * np.exp2(y - out)
)
ufunc(np.remainder).vjp(x=lambda g: g, y=lambda g, x, y: -g * np.floor(x / y))
ufunc(np.fmod).vjp(x=lambda g: g, y=lambda g, x, y: -g * np.trunc(x / y))
ufunc(np.copysign).vjp(x=lambda g, x, y: g * (np.sign(x) * np.copysign(1.0, y)), y=None)
ufunc(np.ldexp).vjp(x=lambda g, y: np.ldexp(g, y), y=None)
ufunc(np.heaviside).vjp(x=None, y=lambda g, x: np.where(np.equal(x, 0), g, 0))


def _power_x(g: Any, x: Any, y: Any) -> Any:
    if isinstance(y, (int, float, complex)):  # weak: a float32 program stays one
        if y in (0, 1, 2):
            return g * (2 * x) if y == 2 else g * y
        return g * (y * np.power(x, y - 1))
    return g * (y * np.power(x, np.where(np.equal(y, 0), 1, y - 1)))


def _power_y(g: Any, out: Any, x: Any) -> Any:
    return g * (out * np.log(np.where(np.equal(x, 0), 1, x)))


ufunc(np.power).vjp(x=_power_x, y=_power_y)


@adapt(np.float_power)
def _float_power(x: Any, y: Any) -> Any:
    dtype = np.result_type(np.float64, *(v.dtype for v in (x, y) if hasattr(v, "dtype")))
    return np.power(*(np.astype(v, dtype) if hasattr(v, "dtype") else v for v in (x, y)))


# -- operand x -------------------------------------------------------------------------------------

ufunc(np.negative).vjp(x=lambda g: -g)
ufunc(np.positive, flops=None).vjp(x=lambda g: g)
ufunc(np.fabs).vjp(x=lambda g, x: g * np.sign(x))
ufunc(np.reciprocal).vjp(x=lambda g, out: -g * (out * out))
ufunc(np.square).vjp(x=lambda g, x: g * (2 * x))
ufunc(np.sqrt).vjp(x=lambda g, out: g * 0.5 / out)
ufunc(np.cbrt).vjp(x=lambda g, out: g / (3 * (out * out)))
ufunc(np.exp).vjp(x=lambda g, out: g * out)
ufunc(np.exp2).vjp(x=lambda g, out: g * (LN2 * out))
ufunc(np.expm1).vjp(x=lambda g, out: g * (out + 1))
ufunc(np.log).vjp(x=lambda g, x: g / x)
ufunc(np.log2).vjp(x=lambda g, x: g / (LN2 * x))
ufunc(np.log10).vjp(x=lambda g, x: g / (LN10 * x))
ufunc(np.log1p).vjp(x=lambda g, x: g / (x + 1))
ufunc(np.sin).vjp(x=lambda g, x: g * np.cos(x))
ufunc(np.cos).vjp(x=lambda g, x: -g * np.sin(x))
ufunc(np.tan).vjp(x=lambda g, out: g * (1 + out * out))
ufunc(np.arcsin).vjp(x=lambda g, x: g / np.sqrt(1 - x * x))
ufunc(np.arccos).vjp(x=lambda g, x: -g / np.sqrt(1 - x * x))
ufunc(np.arctan).vjp(x=lambda g, x: g / (1 + x * x))
ufunc(np.sinh).vjp(x=lambda g, x: g * np.cosh(x))
ufunc(np.cosh).vjp(x=lambda g, x: g * np.sinh(x))
ufunc(np.tanh).vjp(x=lambda g, out: g * (1 - out * out))
ufunc(np.arcsinh).vjp(x=lambda g, x: g / np.sqrt(x * x + 1))
ufunc(np.arccosh).vjp(x=lambda g, x: g / (np.sqrt(x - 1) * np.sqrt(x + 1)))
ufunc(np.arctanh).vjp(x=lambda g, x: g / (1 - x * x))
for _to_radians in (np.deg2rad, np.radians):
    ufunc(_to_radians).vjp(x=lambda g: g * DEGREE)
for _to_degrees in (np.rad2deg, np.degrees):
    ufunc(_to_degrees).vjp(x=lambda g: g * (1 / DEGREE))


@op(np.sinc)
def sinc(x: Any) -> Any:
    """sin(pi x) / (pi x), as NumPy computes it: 1e-20 stands for 0."""
    y = np.pi * np.where(np.equal(x, 0), 1e-20, x)
    return np.sin(y) / y


def _sinc_x(g: Any, x: Any) -> Any:
    zero = np.equal(x, 0)
    z = np.pi * np.where(zero, 1, x)
    return g * np.where(zero, 0, np.pi * (z * np.cos(z) - np.sin(z)) / (z * z))


sinc.vjp(x=_sinc_x)

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


@op(np.round, np.around, infer=lambda x, *, decimals=0: fresh(np.round, x.shape, x), flops=size)
def round(x: Any, *, decimals: int = 0) -> Any:  # noqa: A001
    return np.round(x, decimals)


round.no_gradient()


adapt(np.fix)(lambda x: np.trunc(x))
adapt(np.divmod)(lambda x, y: (np.floor_divide(x, y), np.remainder(x, y)))


@adapt(np.modf)
def _modf(x: Any) -> Any:
    """The fraction, through which the gradient flows, and the whole number."""
    whole = np.trunc(x)
    return x - whole, whole


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
    return (_to_floats if dtype.kind in "fc" else _to_integers)(x, dtype=dtype)
