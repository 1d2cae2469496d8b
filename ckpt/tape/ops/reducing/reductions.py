"""Reductions along axes: one FLOP an element of the operand, unless said otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.tape.core.abstract import AbstractArray, abstract, contiguous, fresh
from ckpt.tape.core.op import Op, adapt, op
from ckpt.tape.ops.pointwise.buffers import buffer, buffers

Axis = int | tuple[int, ...] | None


def axes_of(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes reduced over, as numbers from 0."""
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple) else (axis,)
    return tuple(np.lib.array_utils.normalize_axis_index(a, ndim) for a in axes)


def reduced(shape: tuple[int, ...], axis: Axis, keepdims: bool) -> tuple[int, ...]:
    """The shape that a reduction leaves."""
    axes = axes_of(axis, len(shape))
    if keepdims:
        return tuple(1 if k in axes else n for k, n in enumerate(shape))
    return tuple(n for k, n in enumerate(shape) if k not in axes)


def expand(g: Any, shape: tuple[int, ...], axis: Axis) -> Any:
    """A reduction's cotangent with the reduced axes back, of length one."""
    return np.reshape(g, reduced(shape, axis, True))


def count(shape: tuple[int, ...], axis: Axis) -> int:
    """How many elements go into one."""
    total = 1
    for k in axes_of(axis, len(shape)):
        total *= shape[k]
    return total


def reduction(function: Callable[..., Any]) -> Callable[..., AbstractArray]:
    """The ``infer`` of a reduction with ``axis`` and ``keepdims``."""

    def infer(x: Any, *, axis: Axis = None, keepdims: bool = False, **params: Any) -> AbstractArray:
        shape = reduced(x.shape, axis, keepdims)
        return fresh(function, shape, x, axis=axis, keepdims=keepdims, **params)

    return infer


def every(out: Any, x: Any, **params: Any) -> int:
    """One FLOP per element of the operand."""
    return int(x.size)


def whole_buffer(out: Any, x: Any, *, axis: Axis = None, **params: Any) -> int:
    """Over all axes at once NumPy copies the elements, piece by piece, unless they are in line."""
    return buffer(x, x, x.dtype) if len(axes_of(axis, len(x.shape))) == len(x.shape) else 0


# -- sums and products -----------------------------------------------------------------------------


@op(np.sum, infer=reduction(np.sum), flops=every, workspace=whole_buffer)
def sum(x: Any, *, axis: Axis = None, keepdims: bool = False, dtype: Any = None) -> Any:  # noqa: A001
    return np.sum(x, axis=axis, keepdims=keepdims, dtype=dtype)


sum.vjp(x=lambda g, x_shape, axis: np.broadcast_to(expand(g, x_shape, axis), x_shape))


@op(np.mean, infer=reduction(np.mean), flops=every, workspace=whole_buffer)
def mean(x: Any, *, axis: Axis = None, keepdims: bool = False, dtype: Any = None) -> Any:
    return np.mean(x, axis=axis, keepdims=keepdims, dtype=dtype)


def _mean_x(g: Any, x_shape: Any, axis: Axis) -> Any:
    return np.broadcast_to(expand(g / count(x_shape, axis), x_shape, axis), x_shape)


mean.vjp(x=_mean_x)


@op(np.prod, infer=reduction(np.prod), flops=every, workspace=whole_buffer)
def prod(x: Any, *, axis: Axis = None, keepdims: bool = False, dtype: Any = None) -> Any:
    return np.prod(x, axis=axis, keepdims=keepdims, dtype=dtype)


def _prod_x(g: Any, x: Any, axis: Axis) -> Any:
    """The product of the others: zeros are left out, and count where there is another zero.

    A second derivative is right where no element is zero.
    """
    zero = np.equal(x, 0)
    factor = np.where(zero, 1, x)
    rest = expand(g, x.shape, axis) * np.prod(factor, axis=axis, keepdims=True)
    zeros = np.sum(zero, axis=axis, keepdims=True)
    alone = np.equal(zeros, 0) | (np.equal(zeros, 1) & zero)
    return np.where(alone, rest / factor, 0)


prod.vjp(x=_prod_x)

# -- spread ----------------------------------------------------------------------------------------


def _infer_var(x: Any, *, axis: Axis, ddof: float, keepdims: bool) -> AbstractArray:
    return reduction(np.var)(x, axis=axis, keepdims=keepdims)


def _var_flops(out: Any, x: Any, **params: Any) -> int:
    """A sum, a difference, a square, and another sum."""
    return 4 * int(x.size)


def _var_workspace(out: Any, x: Any, *, axis: Axis, **params: Any) -> int:
    """NumPy holds x - mean and the mean, and buffers for both."""
    x = abstract(x)
    mean = AbstractArray(reduced(x.shape, axis, True), x.dtype)
    return int(x.nbytes + mean.nbytes + buffers(x, x, mean))


@op(np.var, infer=_infer_var, flops=_var_flops, workspace=_var_workspace)
def var(x: Any, *, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Any:
    return np.var(x, axis=axis, ddof=ddof, keepdims=keepdims)


def _deviation(x: Any, axis: Axis) -> Any:
    deviation = x - np.mean(x, axis=axis, keepdims=True)
    return np.conjugate(deviation) if x.dtype.kind == "c" else deviation


def _var_x(g: Any, x: Any, axis: Axis, ddof: float) -> Any:
    free = count(x.shape, axis) - ddof
    # Without a degree of freedom the variance is NaN, and so is its gradient.
    scale = 2 / free if free > 0 else float("nan")
    return expand(g * scale, x.shape, axis) * _deviation(x, axis)


var.vjp(x=_var_x)


@op(
    np.std,
    infer=_infer_var,
    flops=lambda out, x, **params: 4 * x.size + out.size,
    workspace=_var_workspace,
)
def std(x: Any, *, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Any:
    return np.std(x, axis=axis, ddof=ddof, keepdims=keepdims)


def _std_x(g: Any, out: Any, x: Any, axis: Axis, ddof: float) -> Any:
    free = count(x.shape, axis) - ddof
    scale = 1 / free if free > 0 else float("nan")
    return expand(g * scale / out, x.shape, axis) * _deviation(x, axis)


std.vjp(x=_std_x)

# -- extrema ---------------------------------------------------------------------------------------


def _extremum(g: Any, out: Any, x: Any, axis: Axis) -> Any:
    """Shared equally among the elements that attain it, as HIPS autograd does."""
    hit = np.equal(x, expand(out, x.shape, axis))
    hits = np.astype(np.sum(hit, axis=axis, keepdims=True), g.dtype)
    return np.where(hit, expand(g, x.shape, axis) / hits, 0)


@op(np.max, np.amax, infer=reduction(np.max), flops=every, workspace=whole_buffer)
def max(x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:  # noqa: A001
    return np.max(x, axis=axis, keepdims=keepdims)


max.vjp(x=_extremum)


@op(np.min, np.amin, infer=reduction(np.min), flops=every, workspace=whole_buffer)
def min(x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:  # noqa: A001
    return np.min(x, axis=axis, keepdims=keepdims)


min.vjp(x=_extremum)

# -- no gradient -----------------------------------------------------------------------------------


def _plain(function: Callable[..., Any]) -> Op:
    @op(function, name=function.__name__, infer=reduction(function), flops=every)
    def forward(x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:
        return function(x, axis=axis, keepdims=keepdims)

    return forward  # type: ignore[no-any-return]


def _in_line(out: Any, x: Any, *, axis: int | None, **params: Any) -> int:
    """argmax and argmin copy an operand whose elements along the axis aren't next to each other."""
    x = abstract(x)
    axes = list(range(x.ndim))
    if axis is not None:
        axes.append(axes.pop(axes_of(axis, x.ndim)[0]))
    dense = contiguous(tuple(x.shape[k] for k in axes), x.itemsize)
    return 0 if tuple(x.strides[k] for k in axes) == dense else int(x.nbytes)


for _test in (np.all, np.any, np.count_nonzero):
    _plain(_test)
for _place in (np.argmax, np.argmin):
    _plain(_place).workspace = _in_line

# -- made of the others ----------------------------------------------------------------------------


@adapt(np.ptp)
def _ptp(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    return np.max(a, axis=axis, keepdims=keepdims) - np.min(a, axis=axis, keepdims=keepdims)


@adapt(np.average)
def _average(a: Any, axis: Axis = None, weights: Any = None, *, keepdims: bool = False) -> Any:
    if weights is None:
        return np.mean(a, axis=axis, keepdims=keepdims)
    if np.shape(weights) != np.shape(a):
        (k,) = axes_of(axis, np.ndim(a))
        weights = np.reshape(weights, [-1 if j == k else 1 for j in range(np.ndim(a))])
        weights = np.broadcast_to(weights, np.shape(a))
    total = np.sum(weights, axis=axis, keepdims=keepdims)
    return np.sum(a * weights, axis=axis, keepdims=keepdims) / total


@adapt(np.nansum)
def _nansum(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    return np.sum(np.where(np.isnan(a), 0, a), axis=axis, keepdims=keepdims)


@adapt(np.nanmean)
def _nanmean(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    missing = np.isnan(a)
    present = np.sum(~missing, axis=axis, keepdims=keepdims)
    return np.sum(np.where(missing, 0, a), axis=axis, keepdims=keepdims) / present.astype(a.dtype)
