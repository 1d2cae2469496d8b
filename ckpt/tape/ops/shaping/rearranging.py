"""Elements moved, repeated, framed by others, or kept along a diagonal only. No FLOPs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.errors import UnsupportedError
from ckpt.tape.core.abstract import AbstractArray, contiguous, dummy, fresh, view
from ckpt.tape.core.dispatch import operand
from ckpt.tape.core.op import adapt, op
from ckpt.tape.ops.pointwise.buffers import update
from ckpt.tape.ops.reducing.reductions import along, axes_of
from ckpt.tape.ops.shaping.indexing import infer_whole, whole
from ckpt.tape.ops.shaping.shapes import viewing

# -- moved and repeated ----------------------------------------------------------------------------


@op(infer=lambda x, *, shift, axis: fresh(np.roll, x.shape, x, shift=shift, axis=axis))
def roll(x: Any, *, shift: Any, axis: Any) -> Any:
    return np.roll(x, shift, axis)


roll.vjp(x=lambda g, shift, axis: np.roll(g, tuple(-s for s in shift), axis))


@adapt(np.roll)
def _roll(a: Any, shift: Any, axis: Any = None) -> Any:
    if axis is None:
        return np.reshape(np.roll(np.ravel(a), int(np.sum(shift)), 0), np.shape(a))
    shifts, axes = zip(*((int(s), int(k)) for s, k in np.broadcast(shift, axis)), strict=True)
    return roll(a, shift=shifts, axis=axes_of(axes, np.ndim(a)))


@adapt(np.tile)
def _tile(A: Any, reps: Any) -> Any:
    """A copy of a view in which each axis is preceded by one that repeats it."""
    counts = [int(r) for r in np.atleast_1d(reps)]
    ndim = max(len(counts), np.ndim(A))
    counts = [1] * (ndim - len(counts)) + counts
    shape = (1,) * (ndim - np.ndim(A)) + np.shape(A)
    apart = np.reshape(A, [n for length in shape for n in (1, length)])
    spread = np.broadcast_to(apart, [n for pair in zip(counts, shape, strict=True) for n in pair])
    return np.reshape(spread, [r * n for r, n in zip(counts, shape, strict=True)])


@adapt(np.repeat)
def _repeat(a: Any, repeats: Any, axis: int | None = None) -> Any:
    """Likewise for a number of repeats; by index where each element has its own."""
    a, axis = along(a, axis, number=True)
    shape = np.shape(a)
    if np.size(repeats) != 1:
        return np.take(a, np.repeat(np.arange(shape[axis]), repeats), axis=axis)
    count = int(np.ravel(repeats)[0])
    apart = np.expand_dims(a, axis + 1)
    spread = np.broadcast_to(apart, (*shape[: axis + 1], count, *shape[axis + 1 :]))
    return np.reshape(spread, (*shape[:axis], shape[axis] * count, *shape[axis + 1 :]))


# -- framed ----------------------------------------------------------------------------------------


def _infer_pad(x: Any, *, width: Any, value: Any) -> AbstractArray:
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, width, strict=True))
    backwards = tuple(reversed(range(len(shape)))) if _is_fortran(x) else None
    return AbstractArray(shape, x.dtype, contiguous(shape, x.itemsize, backwards))


def _is_fortran(x: Any) -> bool:
    """Does `np.pad` lay out its result with the first axis innermost, as ``x`` is?"""
    return bool(dummy(AbstractArray(x.shape, x.dtype, x.strides)).flags.fnc)


@op(infer=_infer_pad)
def pad(x: Any, *, width: Any, value: Any = 0) -> Any:
    return np.pad(x, width, constant_values=value)


def inside(shape: Any, width: Any) -> tuple[slice, ...]:
    """Where in the frame the framed elements are."""
    return tuple(slice(before, before + n) for n, (before, _) in zip(shape, width, strict=True))


pad.vjp(x=lambda g, x_shape, width: g[inside(x_shape, width)])


@adapt(np.pad)
def _pad(array: Any, pad_width: Any, mode: str = "constant", **options: Any) -> Any:
    """Modes other than "constant" repeat elements, and so are indices along each axis."""
    ndim = np.ndim(array)
    if isinstance(pad_width, dict):
        widths = {axes_of(k, ndim)[0]: np.broadcast_to(n, 2) for k, n in pad_width.items()}
        pad_width = [widths.get(k, (0, 0)) for k in range(ndim)]
    pairs = np.broadcast_to(np.asarray(pad_width, int), (ndim, 2))
    width = tuple((a, b) for a, b in pairs.tolist())
    if min((n for pair in width for n in pair), default=0) < 0:
        raise ValueError("np.pad: widths can't be negative")
    if mode == "constant":
        value = options.pop("constant_values", 0)
        if options or isinstance(value, np.ndarray) or not np.isscalar(value):
            raise UnsupportedError("np.pad of a Value takes one number as constant_values")
        return pad(array, width=width, value=value)
    if mode not in ("edge", "reflect", "symmetric", "wrap") or options:
        raise UnsupportedError(
            f"np.pad of a Value has modes constant, edge, reflect, symmetric and wrap, without "
            f"options, and not {mode!r} {options or ''}"
        )
    if turned := _is_fortran(array):
        array, width = np.transpose(array), width[::-1]
    for axis, pair in enumerate(width):
        if pair != (0, 0):
            index = np.pad(np.arange(np.shape(array)[axis]), pair, mode=mode)  # type: ignore[call-overload]
            array = np.take(array, index, axis=axis)
    return np.transpose(array) if turned else array


# -- triangles -------------------------------------------------------------------------------------


def _mask_nbytes(out: Any, x: Any, *, k: int) -> int:
    """Which elements lie in the triangle: a bool each, of one matrix."""
    return int(np.prod(x.shape[-2:]))


def _infer_triangle(x: Any, *, k: int) -> AbstractArray:
    shape = x.shape if len(x.shape) > 1 else (x.shape[0], x.shape[0])
    return fresh(np.tril, shape, x)


def _triangle(function: Callable[..., Any]) -> None:
    @op(function, name=function.__name__, infer=_infer_triangle, workspace=_mask_nbytes)
    def triangle(x: Any, *, k: int = 0) -> Any:
        return function(x, k)

    triangle.vjp(x=lambda g, k: function(g, k))


_triangle(np.tril)
_triangle(np.triu)

# -- diagonals -------------------------------------------------------------------------------------

diagonal = viewing(
    np.diagonal,
    lambda x, *, offset=0, axis1=0, axis2=1: np.diagonal(x, offset, axis1, axis2),
)


def _add_diagonal(target: Any, g: Any, offset: int, axis1: int, axis2: int) -> None:
    place = np.diagonal(target, offset, axis1, axis2)
    place.setflags(write=True)
    place += g


@op(infer=infer_whole)
def on_diagonal(g: Any, *, shape: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """Zeros of ``shape`` with ``g`` on a diagonal."""
    return whole(shape, _add_diagonal, g, offset, axis1, axis2)


on_diagonal.vjp(g=lambda g, offset, axis1, axis2: np.diagonal(g, offset, axis1, axis2))
diagonal.vjp(
    x=lambda g, x_shape, offset, axis1, axis2: on_diagonal(
        g, shape=x_shape, offset=offset, axis1=axis1, axis2=axis2
    )
)
diagonal.accumulate(
    lambda target, g, node: update(view(diagonal.forward, target, **node.params).array, g),
    x=_add_diagonal,
)


@adapt(np.diag)
def _diag(v: Any, k: int = 0) -> Any:
    if np.ndim(v) == 2:
        return np.diagonal(v, k)
    if np.ndim(v) != 1:
        raise ValueError("np.diag: the input must be 1-d or 2-d")
    n = np.shape(v)[0] + abs(k)
    return on_diagonal(operand(v), shape=(n, n), offset=k)


adapt(np.diagflat)(lambda v, k=0: np.diag(np.ravel(v), k))
adapt(np.trace)(
    lambda a, offset=0, axis1=0, axis2=1: np.sum(np.diagonal(a, offset, axis1, axis2), axis=-1)
)
