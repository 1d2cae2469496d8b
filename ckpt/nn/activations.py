"""Activations. Each rule reads the fewest bytes that will do.

relu, leaky_relu and sigmoid keep their output, which the next layer mostly keeps anyway; gelu, silu
and softplus keep their input. FLOPs: one per arithmetic or transcendental function an element.

A rule that needs several temporaries is an op of its own (``…_backward``), which works in blocks
and in place: one result, one block of scratch. Its own rules make a gradient of a gradient.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from ckpt.errors import UsageError
from ckpt.nn.blocks import in_blocks
from ckpt.tape.core.op import op

# -- relu ------------------------------------------------------------------------------------------


@op()
def relu(x: Any) -> Any:
    """max(x, 0); the derivative at 0 is 0."""
    return np.maximum(x, 0)


@in_blocks(flops=4, scratch=1, over=(1,))
def relu_backward(out: Any, scratch: Any, dy: Any, y: Any, *, slope: float = 0.0) -> None:
    """dy where y > 0, slope * dy elsewhere."""
    positive = scratch.view(np.bool_)[: out.size]
    np.greater(y, 0, out=positive)
    np.copyto(out, positive)  # np.where, and products with booleans, are slower
    if slope:
        out *= 1 - slope
        out += slope
    out *= dy


relu_backward.vjp(dy=lambda g, y, slope: relu_backward(g, y, slope=slope), y=None)
relu.vjp(x=lambda g, out: relu_backward(g, out))


@op(name="leaky_relu")
def _leaky_relu(x: Any, *, slope: float = 0.01) -> Any:
    return np.maximum(x, 0) + slope * np.minimum(x, 0)


_leaky_relu.vjp(x=lambda g, out, slope: relu_backward(g, out, slope=slope))


def leaky_relu(x: Any, slope: float = 0.01) -> Any:
    """x where x > 0, slope * x elsewhere; slope > 0, so that the output tells which it was."""
    if not slope > 0:
        raise UsageError(f"leaky_relu needs a slope above 0, not {slope}; for 0 there is relu")
    return _leaky_relu(x, slope=slope)


# -- sigmoid, silu, softplus -----------------------------------------------------------------------


def _fill_sigmoid(out: Any, scratch: Any, x: Any) -> None:
    """1 / (1 + exp(-x)) as exp(min(x, 0)) / (1 + exp(-|x|)): precise at both ends, and nothing
    overflows."""
    np.absolute(x, out=scratch)
    np.negative(scratch, out=scratch)
    np.exp(scratch, out=scratch)
    scratch += 1
    np.minimum(x, 0, out=out)
    np.exp(out, out=out)
    out /= scratch


sigmoid = in_blocks(flops=7, scratch=1, name="sigmoid")(_fill_sigmoid)
sigmoid.vjp(x=lambda g, out: g * (out * (1 - out)))


@in_blocks(flops=8, scratch=1)
def silu(out: Any, scratch: Any, x: Any) -> None:
    """x sigmoid(x), also known as swish."""
    _fill_sigmoid(out, scratch, x)
    out *= x


@in_blocks(flops=12, scratch=1)
def silu_backward(out: Any, scratch: Any, dy: Any, x: Any) -> None:
    """What silu's cotangent dy gives for x: dy s (1 + x (1 - s)), s = sigmoid(x)."""
    _fill_sigmoid(out, scratch, x)
    np.subtract(1, out, out=scratch)
    scratch *= x
    scratch += 1
    out *= scratch
    out *= dy


def _silu_second(x: Any) -> Any:
    s = sigmoid(x)
    return s * (1 - s) * (2 + x * (1 - 2 * s))


silu.vjp(x=lambda g, x: silu_backward(g, x))
silu_backward.vjp(dy=lambda g, x: silu_backward(g, x), x=lambda g, dy, x: g * dy * _silu_second(x))


@op()
def softplus(x: Any) -> Any:
    """log(1 + exp(x)), without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.absolute(x)))


softplus.vjp(x=lambda g, x: g * sigmoid(x))

# -- gelu ------------------------------------------------------------------------------------------

_A = 0.044715
_C = math.sqrt(2 / math.pi)


@in_blocks(flops=8, name="gelu")
def _gelu(out: Any, x: Any) -> None:
    """x/2 (1 + tanh(u)), u = C (x + A x³)."""
    _fill_tanh(out, np.multiply(x, x, out=out), x)
    out += 1
    out *= x
    out *= 0.5


def _fill_tanh(out: Any, square: Any, x: Any) -> None:
    """tanh(u), with as few calls as will do: u = (C A x² + C) x."""
    np.multiply(square, _C * _A, out=out)
    out += _C
    out *= x
    np.tanh(out, out=out)


@in_blocks(flops=14, scratch=1)
def gelu_backward(out: Any, scratch: Any, dy: Any, x: Any) -> None:
    """What gelu's cotangent dy gives for x: dy (1 + t) (1/2 + (1 - t) x u'/2), t = tanh(u),
    u' = C (1 + 3A x²)."""
    np.multiply(x, x, out=scratch)
    _fill_tanh(out, scratch, x)
    np.subtract(1, out, out=out)  # 1 - t
    scratch *= 1.5 * _C * _A
    scratch += 0.5 * _C
    scratch *= x
    scratch *= out
    scratch += 0.5
    np.subtract(2, out, out=out)  # 1 + t
    out *= scratch
    out *= dy


def _gelu_second(x: Any) -> Any:
    t = np.tanh(_C * (x + _A * (x * x * x)))
    slope = _C * (1 + 3 * _A * (x * x))
    return (1 - t * t) * (slope + x * (3 * _A * _C * x - t * (slope * slope)))


_gelu.vjp(x=lambda g, x: gelu_backward(g, x))
gelu_backward.vjp(dy=lambda g, x: gelu_backward(g, x), x=lambda g, dy, x: g * dy * _gelu_second(x))


@cache
def _erf() -> Any:
    """``erf(x, out=…)``: SciPy's, or without SciPy the standard library's, element by element."""
    try:
        from scipy.special import erf
    except ModuleNotFoundError:
        return _plain_erf
    return erf


_plain = np.frompyfunc(math.erf, 1, 1)
_FEW = 1 << 10


def _plain_erf(x: Any, out: Any) -> None:
    for start in range(0, x.size, _FEW):  # each element is a Python object on its way
        out[start : start + _FEW] = _plain(x[start : start + _FEW])


@in_blocks(flops=5)
def gelu_erf(out: Any, x: Any) -> None:
    """x Φ(x)."""
    np.multiply(x, math.sqrt(0.5), out=out)
    _erf()(out, out=out)
    out += 1
    out *= x
    out *= 0.5


@in_blocks(flops=11, scratch=1)
def gelu_erf_backward(out: Any, scratch: Any, dy: Any, x: Any) -> None:
    """What gelu_erf's cotangent dy gives for x: dy (Φ(x) + x φ(x)), φ the derivative of Φ."""
    np.multiply(x, math.sqrt(0.5), out=scratch)
    _erf()(scratch, out=out)
    out += 1
    out *= 0.5
    np.multiply(x, x, out=scratch)
    scratch *= -0.5
    np.exp(scratch, out=scratch)
    scratch *= x
    scratch *= 1 / math.sqrt(2 * math.pi)
    out += scratch
    out *= dy


gelu_erf.vjp(x=lambda g, x: gelu_erf_backward(g, x))
gelu_erf_backward.vjp(
    dy=lambda g, x: gelu_erf_backward(g, x),
    x=lambda g, dy, x: g * dy * (np.exp(-0.5 * (x * x)) * (2 - x * x) / math.sqrt(2 * math.pi)),
)


def gelu(x: Any, approximate: str = "tanh") -> Any:
    """x Φ(x), Φ the normal distribution (Hendrycks and Gimpel, 2016, arXiv:1606.08415).

    ``approximate="tanh"`` is their x/2 (1 + tanh(sqrt(2/π) (x + 0.044715 x³))), the one in GPT-2;
    ``"none"`` is exact.
    """
    if approximate == "tanh":
        return _gelu(x)
    if approximate == "none":
        return gelu_erf(x)
    raise UsageError(f"gelu's approximate is 'tanh' or 'none', not {approximate!r}")
