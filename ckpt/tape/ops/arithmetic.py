"""Elementwise arithmetic: ufuncs, comparisons, casts. One FLOP per function per element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.tape.abstract import elementwise, fresh
from ckpt.tape.op import Op, op

LN2 = float(np.log(2.0))
LN10 = float(np.log(10.0))


def size(out: Any, *operands: Any, **params: Any) -> int:
    """One FLOP per element of the result."""
    return int(out.size)


def ufunc(function: np.ufunc, *, flops: Callable[..., int] = size, name: str = "") -> Op:
    """The op of a NumPy ufunc."""
    declare = op(
        function,
        name=name or function.__name__,
        infer=elementwise(function),
        flops=flops,
        ufunc=function,
    )
    return declare(function)  # type: ignore[no-any-return]


def free(out: Any, *operands: Any, **params: Any) -> int:
    """Moving data costs no FLOPs."""
    return 0


# -- operands x and y --------------------------------------------------------------------------------

ufunc(np.add).vjp(x=lambda g: g, y=lambda g: g)
ufunc(np.subtract).vjp(x=lambda g: g, y=lambda g: -g)
ufunc(np.multiply).vjp(x=lambda g, y: g * y, y=lambda g, x: g * x)
ufunc(np.true_divide).vjp(x=lambda g, y: g / y, y=lambda g, out, y: -g * out / y)
ufunc(np.maximum).vjp(x=lambda g, x, y: g * _share(x, y), y=lambda g, x, y: g * _share(y, x))
ufunc(np.minimum).vjp(x=lambda g, x, y: g * _share(-x, -y), y=lambda g, x, y: g * _share(-y, -x))


def _share(x: Any, y: Any) -> Any:
    """1 where x is the larger, 1/2 where they are equal: the subgradient HIPS autograd takes."""
    return (x > y) + 0.5 * (x == y)


def _power_x(g: Any, x: Any, y: Any) -> Any:
    if isinstance(y, (int, float)) and y == 2:
        return g * (2 * x)
    return g * (y * np.power(x, np.where(np.equal(y, 0), 1.0, y - 1)))


ufunc(np.power).vjp(
    x=_power_x, y=lambda g, out, x: g * (out * np.log(np.where(np.equal(x, 0), 1.0, x)))
)

# -- operand x ---------------------------------------------------------------------------------------

ufunc(np.negative).vjp(x=lambda g: -g)
ufunc(np.positive, flops=free).vjp(x=lambda g: g)
ufunc(np.absolute).vjp(x=lambda g, x: g * np.sign(x))
ufunc(np.sign).vjp(x=lambda g: g * 0.0)
ufunc(np.exp).vjp(x=lambda g, out: g * out)
ufunc(np.log).vjp(x=lambda g, x: g / x)
ufunc(np.log1p).vjp(x=lambda g, x: g / (x + 1))
ufunc(np.sqrt).vjp(x=lambda g, out: g * 0.5 / out)
ufunc(np.square).vjp(x=lambda g, x: g * (2 * x))
ufunc(np.reciprocal).vjp(x=lambda g, out: -g * (out * out))
ufunc(np.sin).vjp(x=lambda g, x: g * np.cos(x))
ufunc(np.cos).vjp(x=lambda g, x: -g * np.sin(x))
ufunc(np.tanh).vjp(x=lambda g, out: g * (1 - out * out))

# -- no gradient -------------------------------------------------------------------------------------

for _function in (
    np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal,
    np.logical_and, np.logical_or, np.logical_xor, np.logical_not,
    np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.invert,
    np.isnan, np.isfinite, np.isinf, np.signbit, np.floor, np.ceil, np.rint, np.trunc,
    np.floor_divide, np.remainder,
):  # fmt: skip
    ufunc(_function)

# -- choosing and casting ----------------------------------------------------------------------------


@op(np.where, infer=elementwise(np.where), flops=free)
def where(condition: Any, x: Any, y: Any) -> Any:
    return np.where(condition, x, y)


where.vjp(
    x=lambda g, condition: np.where(condition, g, 0),
    y=lambda g, condition: np.where(condition, 0, g),
)


@op(
    np.astype,
    infer=lambda x, *, dtype: fresh(np.astype, x.shape, x, dtype=np.dtype(dtype)),
    flops=free,
)
def astype(x: Any, *, dtype: Any = float) -> Any:
    return np.astype(np.asarray(x), dtype)[()]


astype.vjp(x=lambda g: g)  # the tape casts it back
