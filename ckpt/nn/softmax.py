"""softmax, log_softmax and logsumexp along an axis, and the softmax that attention needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.nn.blocks import float_dtype, infer_float
from ckpt.tape.core.abstract import AbstractArray
from ckpt.tape.core.op import op
from ckpt.tape.ops.pointwise.buffers import ELEMENTS, buffers
from ckpt.tape.ops.reducing.reductions import Axis, expand, reduced


def row_sums(x: Any, y: Any, axis: int) -> Any:
    """sum(x * y) along one axis, kept with length one, without the product in memory.

    ``y`` may be one row for all.
    """
    axes: Any = [axis, axis if y.ndim > 1 else 0, ()]
    return np.expand_dims(np.vecdot(x, y, axes=axes), axis)


def _row_numbers(out: Any, axis: int) -> AbstractArray:
    """One number a row."""
    return AbstractArray(reduced(out.shape, axis, True), out.dtype)


def _workspace(out: Any, x: Any, *, axis: int, scale: float, causal: bool) -> int:
    mask = _future_nbytes(*out.shape[-2:]) if causal else 0
    rows = _row_numbers(out, axis)
    ones = out.shape[axis] * out.itemsize
    return int(max(mask, 2 * rows.nbytes + max(ones, buffers(out, x, rows))))


@op(
    name="softmax",
    infer=infer_float,
    flops=lambda out, x, *, scale, **_: (5 if scale == 1 else 6) * out.size,
    workspace=_workspace,
)
def _softmax(x: Any, *, axis: int = -1, scale: float = 1.0, causal: bool = False) -> Any:
    out = np.empty(x.shape, float_dtype(x))
    if scale != 1 or causal or x.dtype != out.dtype:
        x = np.multiply(x, scale, out=out)
    if causal:
        np.copyto(out, -np.inf, where=_future(x.shape[-2], x.shape[-1]))
    np.subtract(x, np.max(x, axis=axis, keepdims=True, initial=-np.inf), out=out)
    np.exp(out, out=out)
    out /= row_sums(out, np.ones(out.shape[axis], out.dtype), axis)
    return out


def _future(queries: int, keys: int) -> Any:
    """Where a key comes after the query, the last query being at the last key."""
    past = np.tri(queries, keys, keys - queries, dtype=bool)
    return np.logical_not(past, out=past)


def _future_nbytes(queries: int, keys: int) -> int:
    """A byte each, and the buffers of the numbers that `np.tri` compares."""
    size = queries * keys
    return size + 2 * min(size, ELEMENTS) * np.min_scalar_type(-max(queries, keys)).itemsize


@op(
    infer=infer_float,
    flops=lambda out, dy, y, *, scale, **_: (4 if scale == 1 else 5) * out.size,
    workspace=lambda out, dy, y, *, axis, **_: (
        (rows := _row_numbers(out, axis)).nbytes + buffers(out, dy, rows)
    ),
    over=lambda k, *_, **__: 0 if k == 0 else None,
)
def softmax_backward(
    dy: Any, y: Any, *, axis: int = -1, scale: float = 1.0, out: Any = None
) -> Any:
    """scale y (dy - sum(dy y)): what the cotangent of y = softmax(scale x) gives for x."""
    out = np.empty(y.shape, float_dtype(dy, y)) if out is None else out
    np.subtract(dy, row_sums(dy, y, axis), out=out)
    out *= y
    if scale != 1:
        out *= scale
    return out


def _softmax_second(g: Any, dy: Any, y: Any, axis: int, scale: float) -> Any:
    mean = np.sum(dy * y, axis=axis, keepdims=True)
    return (g * (dy - mean) - dy * np.sum(g * y, axis=axis, keepdims=True)) * scale


_softmax.vjp(x=lambda g, out, axis, scale: softmax_backward(g, out, axis=axis, scale=scale))
softmax_backward.vjp(
    dy=lambda g, y, axis, scale: softmax_backward(g, y, axis=axis, scale=scale), y=_softmax_second
)


def softmax(x: Any, axis: int = -1) -> Any:
    """exp(x) / sum(exp(x)) along an axis. Keeps its output."""
    return _softmax(x, axis=axis)


def masked_softmax(x: Any, *, scale: float, causal: bool) -> Any:
    """softmax(scale x) along the last axis; ``causal``: 0 where the column comes after the row."""
    return _softmax(x, scale=scale, causal=causal)


@op(
    name="log_softmax",
    infer=infer_float,
    flops=lambda out, x, *, axis: 5 * out.size,
    workspace=lambda out, x, *, axis: (
        (rows := _row_numbers(out, axis)).nbytes + max(out.nbytes, buffers(out, x, rows))
    ),
)
def _log_softmax(x: Any, *, axis: int = -1) -> Any:
    out = np.empty(x.shape, float_dtype(x))
    np.subtract(x, np.max(x, axis=axis, keepdims=True), out=out)
    out -= np.log(np.sum(np.exp(out), axis=axis, keepdims=True))
    return out


_log_softmax.vjp(x=lambda g, out, axis: g - np.exp(out) * np.sum(g, axis=axis, keepdims=True))


def log_softmax(x: Any, axis: int = -1) -> Any:
    """x - log(sum(exp(x))) along an axis. Keeps its output."""
    return _log_softmax(x, axis=axis)


@op(name="logsumexp")
def _logsumexp(x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    out = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return out if keepdims else np.squeeze(out, axis=axis)


_logsumexp.vjp(
    x=lambda g, out, x, axis: expand(g, x.shape, axis) * np.exp(x - expand(out, x.shape, axis))
)


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """log(sum(exp(x))) along axes (default: all), without overflow. Keeps input and output."""
    return _logsumexp(x, axis=axis, keepdims=keepdims)
