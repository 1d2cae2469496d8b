"""Reductions along axes: one FLOP an element of the operand, unless said otherwise."""

from __future__ import annotations

from collections.abc import Callable
from math import nan, prod
from operator import index
from typing import Any

import numpy as np

from ckpt.tape.core.abstract import AbstractArray, abstract, contiguous, fresh
from ckpt.tape.core.op import Fill, Op, adapt, op
from ckpt.tape.ops.pointwise.buffers import buffer, buffers
from ckpt.tape.ops.pointwise.complex_numbers import conjugate

Axis = int | tuple[int, ...] | None


def axes_of(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes reduced over, as numbers from 0."""
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple) else (axis,)
    return tuple(np.lib.array_utils.normalize_axis_index(a, ndim) for a in axes)


def along(x: Any, axis: int | None, number: bool = False) -> tuple[Any, int]:
    """The operand and the axis, as a number from 0, to work along; None takes all of it, flat.

    ``number``: NumPy's function takes a number for a line of one element.
    """
    if axis is None or (number and not np.ndim(x) and axis in (0, -1)):
        return np.ravel(x), 0
    return x, axes_of(index(axis), np.ndim(x))[0]


def over(axis: Axis, ndim: int) -> tuple[int, ...]:
    """`axes_of` what NumPy's own reductions take, which let a number have an axis 0."""
    return () if not ndim and axis in (0, -1, (0,), (-1,)) else axes_of(axis, ndim)


def reduced(shape: tuple[int, ...], axis: Axis, keepdims: bool) -> tuple[int, ...]:
    """The shape that a reduction leaves."""
    axes = over(axis, len(shape))
    if keepdims:
        return tuple(1 if k in axes else n for k, n in enumerate(shape))
    return tuple(n for k, n in enumerate(shape) if k not in axes)


def expand(g: Any, shape: tuple[int, ...], axis: Axis) -> Any:
    """A reduction's cotangent with the reduced axes back, of length one."""
    return np.reshape(g, reduced(shape, axis, True))


def count(shape: tuple[int, ...], axis: Axis) -> int:
    """How many elements go into one."""
    return prod(shape[k] for k in over(axis, len(shape)))


def _infer_reduced(function: Callable[..., Any]) -> Callable[..., AbstractArray]:
    """The ``infer`` of a reduction with ``axis`` and ``keepdims``."""

    def infer(x: Any, *, axis: Axis = None, keepdims: bool = False, **params: Any) -> AbstractArray:
        shape = reduced(x.shape, axis, keepdims)
        return fresh(function, shape, x, axis=axis, keepdims=keepdims, **params)

    return infer


def same_shape(function: Callable[..., Any]) -> Callable[..., AbstractArray]:
    """The ``infer`` of what works along one axis, and keeps its length."""
    return lambda x, *, axis, **params: fresh(function, x.shape, x, axis=axis)


def every(out: Any, x: Any, *operands: Any, **params: Any) -> int:
    """One FLOP per element of the first operand."""
    return int(x.size)


def whole_buffer(out: Any, x: Any, *, axis: Axis = None, **params: Any) -> int:
    """Over all axes at once NumPy copies the elements, piece by piece, unless they are in line."""
    return buffer(x, x, x.dtype) if len(over(axis, len(x.shape))) == len(x.shape) else 0


REDUCES: dict[Any, Callable[..., Any]] = {
    np.sum: np.add.reduce, np.prod: np.multiply.reduce,
    np.max: np.maximum.reduce, np.min: np.minimum.reduce,
}  # fmt: skip
"""What these do, without what they wrap around it."""


def _reduction(
    *functions: Any, workspace: Callable[..., int] | None = whole_buffer, dtype: bool = False
) -> Op:
    """The op of a NumPy function, and its other names, with axis and keepdims, and maybe dtype."""
    function = functions[0]
    made = REDUCES.get(function, function)
    is_mean = function is np.mean
    reduce = np.add.reduce if is_mean else REDUCES.get(function)

    def forward(x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:
        return made(x, axis=axis, keepdims=keepdims)

    def forward_as(x: Any, *, axis: Axis = None, keepdims: bool = False, dtype: Any = None) -> Any:
        return made(x, axis=axis, keepdims=keepdims, dtype=dtype)

    declare = op(
        *functions,
        name=function.__name__,
        infer=_infer_reduced(function),
        flops=every,
        workspace=workspace,
        fill=Fill(reduce, reduces=True, is_mean=is_mean) if reduce else None,
    )
    return declare(forward_as if dtype else forward)  # type: ignore[no-any-return]


# -- sums and products -----------------------------------------------------------------------------


def _spread(g: Any, shape: Any, axis: Axis) -> Any:
    """To every element of the operand the cotangent of what it went into."""
    return np.broadcast_to(expand(g, shape, axis), shape)


def _shared(g: Any, count: Any) -> Any:
    """g / count; of float16 in single precision, since it has no number above 65504."""
    if g.dtype != np.float16:
        return g / count
    return np.astype(g / np.astype(np.asarray(count), np.float32), np.float16)


def _prod_x(g: Any, x: Any, axis: Axis) -> Any:
    """The product of those before times the product of those after, which holds at zeros too."""
    if not x.size:
        return _spread(g, x.shape, axis)
    axes = over(axis, len(x.shape))
    first = tuple(k for k in range(len(x.shape)) if k not in axes)
    lines = np.reshape(np.transpose(x, (*first, *axes)), (*(x.shape[k] for k in first), -1))
    one = np.ones((*lines.shape[:-1], 1), x.dtype)
    before = np.cumprod(np.concatenate((one, lines[..., :-1]), axis=-1), axis=-1)
    back = np.flip(np.concatenate((lines[..., 1:], one), axis=-1), -1)
    others = before * np.flip(np.cumprod(back, axis=-1), -1)
    moved = np.reshape(others, tuple(x.shape[k] for k in (*first, *axes)))
    order = tuple(np.argsort((*first, *axes)).tolist())
    return expand(g, x.shape, axis) * np.transpose(moved, order)


_reduction(np.sum, dtype=True).vjp(x=lambda g, x_shape, axis: _spread(g, x_shape, axis))
_reduction(np.mean, dtype=True).vjp(
    x=lambda g, x_shape, axis: _spread(_shared(g, count(x_shape, axis)), x_shape, axis)
)
_reduction(np.prod, dtype=True).vjp(x=_prod_x)

# -- spread ----------------------------------------------------------------------------------------


def _infer_var(x: Any, *, axis: Axis, ddof: float, keepdims: bool) -> AbstractArray:
    return _infer_reduced(np.var)(x, axis=axis, keepdims=keepdims)


def _var_workspace(out: Any, x: Any, *, axis: Axis, **params: Any) -> int:
    """NumPy holds x - mean and the mean, and buffers for both."""
    x = abstract(x)
    mean = AbstractArray(reduced(x.shape, axis, True), x.dtype)
    return int(x.nbytes + mean.nbytes + buffers(x, x, mean))


def _deviating(function: Callable[..., Any], flops: Callable[..., int]) -> Op:
    @op(function, name=function.__name__, infer=_infer_var, flops=flops, workspace=_var_workspace)
    def forward(x: Any, *, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> Any:
        return function(x, axis=axis, ddof=ddof, keepdims=keepdims)

    return forward  # type: ignore[no-any-return]


def _share(g: Any, times: float, x: Any, axis: Axis, ddof: float) -> Any:
    """g times a number over the degrees of freedom; without any the variance is NaN, and so is its
    gradient."""
    free = count(x.shape, axis) - ddof
    share = times / free if free > 0 else nan
    return g * share if g.dtype != np.float16 else np.astype(g * np.float32(share), np.float16)


def _deviation(x: Any, axis: Axis) -> Any:
    return conjugate(x - np.mean(x, axis=axis, keepdims=True))


# FLOPs: a sum, a difference, a square and another sum; a root, too, for the standard deviation.
_deviating(np.var, lambda out, x, **_: 4 * x.size).vjp(
    x=lambda g, x, axis, ddof: (
        expand(_share(g, 2, x, axis, ddof), x.shape, axis) * _deviation(x, axis)
    )
)


def _std_x(g: Any, out: Any, x: Any, axis: Axis, ddof: float) -> Any:
    if x.dtype == np.float16:  # whose squares overflow from 256 on
        g, x = np.astype(g, np.float32), np.astype(x, np.float32)
        out = np.reshape(np.std(x, axis=axis, ddof=ddof), out.shape)
        return np.astype(_std_x(g, out, x, axis, ddof), np.float16)
    share = _share(g, 1, x, axis, ddof) / np.where(np.equal(out, 0), np.inf, out)
    return expand(share, x.shape, axis) * _deviation(x, axis)


_deviating(np.std, lambda out, x, **_: 4 * x.size + out.size).vjp(x=_std_x)

# -- extrema ---------------------------------------------------------------------------------------


def _extremum(g: Any, out: Any, x: Any, axis: Axis) -> Any:
    """Shared equally among the elements that attain it, as HIPS autograd does."""
    hit = np.equal(x, expand(out, x.shape, axis))
    wide = np.float32 if g.dtype == np.float16 else g.dtype
    hits = np.astype(np.sum(hit, axis=axis, keepdims=True), wide)
    return np.where(hit, expand(g, x.shape, axis) / hits, 0)


_reduction(np.max, np.amax).vjp(x=_extremum)
_reduction(np.min, np.amin).vjp(x=_extremum)

# -- no gradient -----------------------------------------------------------------------------------


def _in_line(out: Any, x: Any, *, axis: int | None, **params: Any) -> int:
    """argmax and argmin copy an operand whose elements along the axis aren't next to each other."""
    x = abstract(x)
    axes = list(range(x.ndim))
    if axis is not None and axes:
        axes.append(axes.pop(axes_of(axis, x.ndim)[0]))
    dense = contiguous(tuple(x.shape[k] for k in axes), x.itemsize)
    return 0 if tuple(x.strides[k] for k in axes) == dense else int(x.nbytes)


for _test in (np.all, np.any, np.count_nonzero):
    _reduction(_test, workspace=None).no_gradient()
for _place in (np.argmax, np.argmin):
    _reduction(_place, workspace=_in_line).no_gradient()

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
    dtype = np.result_type(a, weights)
    dtype = dtype if dtype.kind in "fc" else np.dtype(float)
    total = np.sum(weights, axis=axis, keepdims=keepdims, dtype=dtype)
    return np.sum(a * weights, axis=axis, keepdims=keepdims) / total


@adapt(np.nansum)
def _nansum(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    return np.sum(np.where(np.isnan(a), 0, a), axis=axis, keepdims=keepdims)


@adapt(np.nanmean)
def _nanmean(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    missing = np.isnan(a)
    present = np.sum(~missing, axis=axis, keepdims=keepdims)
    total = np.sum(np.where(missing, 0, a), axis=axis, keepdims=keepdims)
    return np.astype(total / present, a.dtype)
