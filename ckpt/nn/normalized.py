"""The op behind every norm: (x - mean) / deviation * weight + bias over some axes.

The statistics (mean, and 1 / standard deviation) are small nodes of their own, without a gradient:
the rules of `normalized` are derivatives with respect to x of all that x does, through them too.
The result's dtype is x's, whatever those of weight and bias.
The normalized array isn't kept; the rules make it again from x, block by block. Residuals: x, the
statistics, and the weight.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ckpt.nn.blocks import (
    block_nbytes,
    block_scratch,
    copied_nbytes,
    float_dtype,
    infer_float,
    row_blocks,
    row_buffer,
    rows_in_block,
)
from ckpt.tape.core.abstract import AbstractArray, fresh
from ckpt.tape.core.op import op
from ckpt.tape.ops.reducing.reductions import reduced

Axes = tuple[int, ...]
"""The axes that are normalized over, from 0: trailing ones, perhaps the first one too."""


def _length(shape: tuple[int, ...], axes: Axes) -> int:
    """How many elements share a mean."""
    return max(prod(shape[k] for k in axes), 1)


def _totals(x: Any, y: Any, axes: Axes) -> Any:
    """sum(x * y) over the axes, kept with length one, the product never in memory; y None is 1."""
    spread = axes[0] == 0 and len(axes) < x.ndim  # over the first axis, and not all between
    trailing = len(axes) - spread
    rows = x.shape[: x.ndim - trailing]
    x = x.reshape(*rows, -1)
    found = np.vecdot(x, np.ones(x.shape[-1], x.dtype) if y is None else y.reshape(x.shape))
    if spread:
        found = np.sum(found, axis=0, keepdims=True)
    return found.reshape(*found.shape, *(1,) * trailing)


def _ones_nbytes(x: Any, axes: Axes, itemsize: int) -> int:
    """Of the ones by which `_totals` sums the rows of a block."""
    spread = axes[0] == 0 and len(axes) < x.ndim
    block = (min(rows_in_block(x.shape), x.shape[0]), *x.shape[1:])
    return int(itemsize * prod(block[x.ndim - len(axes) + spread :]))


def _part(operand: Any, part: slice, ndim: int) -> Any:
    """Those rows of an operand that may be a number, or broadcast along the first of ndim axes."""
    if np.ndim(operand) < ndim or operand.shape[0] == 1:
        return operand
    return operand[part]


def _standardize(x: Any, mean: Any, rstd: Any, part: slice, out: Any) -> Any:
    """(x - mean) * rstd of some rows."""
    x = x[part]
    out = out[: len(x)]
    if isinstance(mean, float):
        return np.multiply(x, _part(rstd, part, x.ndim), out=out)
    np.subtract(x, _part(mean, part, x.ndim), out=out)
    out *= _part(rstd, part, x.ndim)
    return out


def _block_nbytes(x: Any, itemsize: int) -> int:
    """A block of scratch, and the buffer of a broadcast operand."""
    return block_nbytes(x.shape, itemsize) + row_buffer(x, itemsize)


# -- the statistics --------------------------------------------------------------------------------


def _infer_statistic(x: Any, *others: Any, axes: Axes, **static: Any) -> AbstractArray:
    return AbstractArray(reduced(x.shape, axes, True), float_dtype(x))


def _mean(x: Any, axes: Axes) -> Any:
    return np.mean(x, axis=axes, keepdims=True, dtype=float_dtype(x))


@op(
    infer=lambda x, *, axes: fresh(_mean, reduced(x.shape, axes, True), x, axes=axes),
    flops=lambda out, x, *, axes: x.size,
    workspace=lambda out, x, *, axes: x.shape[0] * out.nbytes if 0 in axes else 0,
)
def row_mean(x: Any, *, axes: Axes) -> Any:
    """The mean over the axes, kept with length one."""
    return _mean(x, axes)


@op(
    infer=_infer_statistic,
    flops=lambda out, x, mean, **_: 3 * x.size,
    workspace=lambda out, x, mean, **_: _block_nbytes(x, out.itemsize) + copied_nbytes(x),
)
def row_rstd(x: Any, mean: Any, *, axes: Axes, eps: float) -> Any:
    """1 / sqrt(mean((x - mean)²) + eps) over the axes, kept with length one."""
    x = np.ascontiguousarray(x)
    out = np.zeros(reduced(x.shape, axes, True), float_dtype(x))
    scratch = block_scratch(x, out.dtype)
    for part in row_blocks(x.shape):
        rows = _standardize(x, mean, 1.0, part, scratch)
        target = out if 0 in axes else out[part]
        target += _totals(rows, rows, axes)
    out /= _length(x.shape, axes)
    out += eps
    np.sqrt(out, out=out)
    return np.reciprocal(out, out=out)


# -- normalized ------------------------------------------------------------------------------------


@op(
    infer=lambda x, *_, **__: infer_float(x),
    flops=lambda out, x, mean, rstd, weight, bias, **_: (
        out.size * sum(not isinstance(a, float) for a in (mean, rstd, weight, bias))
    ),
    workspace=lambda out, x, *_, **__: row_buffer(x, out.itemsize) + copied_nbytes(x),
)
def normalized(
    x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, *, axes: Axes, eps: float
) -> Any:
    """(x - mean) * rstd * weight + bias; a mean, weight or bias that isn't wanted is a float."""
    x = np.ascontiguousarray(x)
    out = np.empty(x.shape, float_dtype(x))
    for part in row_blocks(x.shape):
        rows = _standardize(x, mean, rstd, part, out[part])
        if not isinstance(weight, float):
            rows *= _part(weight, part, x.ndim)
        if not isinstance(bias, float):
            rows += _part(bias, part, x.ndim)
    return out


@op(
    infer=lambda dy, x, *_, **__: infer_float(x),
    flops=lambda out, *_, **__: 10 * out.size,
    workspace=lambda out, dy, x, mean, rstd, *_, axes, **__: (
        _block_nbytes(x, out.itemsize)
        + _ones_nbytes(x, axes, out.itemsize)
        + 4 * rstd.nbytes
        + copied_nbytes(dy, x)
    ),
    over=lambda k, *_, axes, **__: 0 if k == 0 or (k == 1 and 0 not in axes) else None,
)
def normalized_backward(
    dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, *, axes: Axes, eps: float, out: Any = None
) -> Any:
    """What the cotangent dy of `normalized` gives for x: with d = dy * weight, z normalized x,

    rstd * (d - mean(d) - z * mean(d * z)), without mean(d) where x wasn't centered.
    """
    dy, x = np.ascontiguousarray(dy), np.ascontiguousarray(x)
    out = np.empty(x.shape, float_dtype(x)) if out is None else out
    scratch = block_scratch(x, out.dtype)
    length = _length(x.shape, axes)

    def finish(part: slice, z: Any, along: Any, mean_d: Any) -> None:
        z *= along
        d = out[part]
        d -= z
        if not isinstance(mean, float):
            d -= mean_d
        d *= _part(rstd, part, x.ndim)

    whole_along: Any = 0.0
    whole_mean: Any = 0.0
    for part in row_blocks(x.shape):
        z = _standardize(x, mean, rstd, part, scratch)
        d = np.multiply(dy[part], _part(weight, part, x.ndim), out=out[part])
        along = _totals(d, z, axes) / length
        mean_d = _totals(d, None, axes) / length
        if 0 in axes:
            whole_along = whole_along + along
            whole_mean = whole_mean + mean_d
        else:
            finish(part, z, along, mean_d)
    if 0 in axes:
        for part in row_blocks(x.shape):
            finish(part, _standardize(x, mean, rstd, part, scratch), whole_along, whole_mean)
    return out


@op(
    infer=lambda dy, x, *_, shape, **__: AbstractArray(shape, float_dtype(x)),
    flops=lambda out, dy, x, *_, **__: 4 * x.size,
    workspace=lambda out, dy, x, *_, **__: (
        _block_nbytes(x, out.itemsize) + out.nbytes + copied_nbytes(dy, x)
    ),
)
def normalized_weight(
    dy: Any, x: Any, mean: Any, rstd: Any, *, shape: tuple[int, ...], axes: Axes, eps: float
) -> Any:
    """What the cotangent dy of `normalized` gives for a weight of that shape: sums of dy * z."""
    dy, x = np.ascontiguousarray(dy), np.ascontiguousarray(x)
    full = (1,) * (x.ndim - len(shape)) + shape
    summed = tuple(k for k, n in enumerate(full) if n == 1)
    out = np.zeros(full, float_dtype(x))
    scratch = block_scratch(x, out.dtype)
    for part in row_blocks(x.shape):
        z = _standardize(x, mean, rstd, part, scratch)
        z *= dy[part]
        target = _part(out, part, x.ndim)
        target += np.sum(z, axis=summed, keepdims=True)
    return out.reshape(shape)


normalized.vjp(
    x=lambda g, x, mean, rstd, weight, axes, eps: normalized_backward(
        g, x, mean, rstd, weight, axes=axes, eps=eps
    ),
    weight=lambda g, x, mean, rstd, weight_shape, axes, eps: normalized_weight(
        g, x, mean, rstd, shape=weight_shape, axes=axes, eps=eps
    ),
    bias=lambda g: g,
)


def _unweighted(dy: Any, x: Any, mean: Any, rstd: Any, axes: Axes, eps: float) -> Any:
    return normalized_backward(dy, x, mean, rstd, 1.0, axes=axes, eps=eps)


def _backward_x(
    g: Any, dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, axes: Axes, eps: float
) -> Any:
    """The derivative of sum(g * normalized_backward(dy, x)) with respect to x.

    With d = dy * weight, r = rstd, n the length of a row and P the backward without a weight, it is
    -r² z (mean(g d) - mean(g) mean(d) - mean(g z) mean(d z)) - r (P(g) mean(d z) + P(d) mean(g z)).
    r is made again from x, so that this has a derivative in its turn.
    """
    centered = not isinstance(mean, float)

    def average(a: Any) -> Any:
        return np.sum(a, axis=axes, keepdims=True) / _length(x.shape, axes)

    def backward(a: Any) -> Any:
        return _unweighted(a, x, mean, rstd, axes, eps)

    d = dy * weight
    z = normalized(x, mean, rstd, 1.0, 0.0, axes=axes, eps=eps)
    offset = x - average(x) if centered else x
    r = 1 / np.sqrt(average(offset * offset) + eps)
    g_z, d_z = average(g * z), average(d * z)
    spread = average(g * d) - g_z * d_z
    if centered:
        spread = spread - average(g) * average(d)
    return -(r * r) * z * spread - r * (backward(g) * d_z + backward(d) * g_z)


normalized_backward.vjp(
    dy=lambda g, x, mean, rstd, weight, axes, eps: (
        weight * _unweighted(g, x, mean, rstd, axes, eps)
    ),
    x=_backward_x,
    weight=lambda g, dy, x, mean, rstd, axes, eps: dy * _unweighted(g, x, mean, rstd, axes, eps),
)
normalized_weight.vjp(
    dy=lambda g, x, mean, rstd, axes, eps: (
        g * normalized(x, mean, rstd, 1.0, 0.0, axes=axes, eps=eps)
    ),
    x=lambda g, dy, x, mean, rstd, axes, eps: _unweighted(g * dy, x, mean, rstd, axes, eps),
)
for _op in (row_mean, row_rstd, normalized, normalized_backward, normalized_weight):
    _op.no_gradient()  # to the statistics: the rules of x are derivatives through them, too
