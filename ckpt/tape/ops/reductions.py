"""Reductions along axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.tape.abstract import AbstractArray, fresh
from ckpt.tape.op import op

Axis = int | tuple[int, ...] | None


def axes_of(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes reduced over, as numbers from 0."""
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple) else (axis,)
    return tuple(
        np.lib.array_utils.normalize_axis_index(a, ndim)  # type: ignore[attr-defined]
        for a in axes
    )


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


@op(np.sum, infer=reduction(np.sum), flops=every)
def sum(x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:  # noqa: A001
    return np.sum(x, axis=axis, keepdims=keepdims)


sum.vjp(x=lambda g, x_shape, axis: np.broadcast_to(expand(g, x_shape, axis), x_shape))


@op(np.mean, infer=reduction(np.mean), flops=every)
def mean(x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:
    return np.mean(x, axis=axis, keepdims=keepdims)


mean.vjp(
    x=lambda g, x_shape, axis: np.broadcast_to(
        expand(g / count(x_shape, axis), x_shape, axis), x_shape
    )
)


def _extremum(g: Any, out: Any, x: Any, axis: Axis) -> Any:
    """Shared equally among the elements that attain it, as HIPS autograd does."""
    hit = np.equal(x, expand(out, x.shape, axis))
    return hit * expand(g, x.shape, axis) / np.sum(hit, axis=axis, keepdims=True)


@op(np.max, np.amax, infer=reduction(np.max), flops=every)
def max(x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:  # noqa: A001
    return np.max(x, axis=axis, keepdims=keepdims)


max.vjp(x=_extremum)


@op(np.min, np.amin, infer=reduction(np.min), flops=every)
def min(x: Any, *, axis: Axis = None, keepdims: bool = False) -> Any:  # noqa: A001
    return np.min(x, axis=axis, keepdims=keepdims)


min.vjp(x=_extremum)
