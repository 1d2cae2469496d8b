"""The same elements in another shape: views, and copies where there is no view. No FLOPs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.errors import UnsupportedError
from ckpt.tape.core.abstract import AbstractArray, Shared, abstract, view
from ckpt.tape.core.dispatch import operand
from ckpt.tape.core.op import adapt, op
from ckpt.tape.ops.reducing.reductions import axes_of


def infer_reshape(x: Any, *, shape: Any, order: str = "C") -> AbstractArray | Shared:
    """A view where the strides allow it, else a copy."""
    x = abstract(x)
    new = complete_shape(x.size, shape)
    try:
        return view(np.reshape, x, new, order=order, copy=False)
    except ValueError:
        if order == "F":
            itemsize, strides = x.itemsize, []
            for n in new:
                strides.append(itemsize)
                itemsize *= n or 1
            return AbstractArray(new, x.dtype, tuple(strides))
        return AbstractArray(new, x.dtype)


def complete_shape(size: int, shape: Any) -> tuple[int, ...]:
    """A target shape with its -1 worked out; ValueError if it doesn't hold ``size`` elements."""
    new = (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(map(int, shape))
    known = 1
    for n in new:
        known *= n if n >= 0 else 1
    if new.count(-1) == 1 and known and size % known == 0:
        new = tuple(size // known if n == -1 else n for n in new)
        known = size
    if known != size or min(new, default=0) < 0:
        raise ValueError(f"cannot reshape array of size {size} into shape {shape}")
    return new


@op(infer=infer_reshape, view=True)
def reshape(x: Any, *, shape: Any = (), order: Any = "C") -> Any:
    return np.reshape(x, shape, order=order)


reshape.vjp(x=lambda g, x_shape, order: np.reshape(g, x_shape, order=order))


@adapt(np.reshape)
def _reshape(a: Any, shape: Any = None, order: str = "C", *, newshape: Any = None) -> Any:
    if order not in ("C", "F"):
        raise UnsupportedError(f"np.reshape of a Value has orders C and F, and not {order!r}")
    return reshape(a, shape=newshape if shape is None else shape, order=order)


@adapt(np.copy)
def _copy(a: Any) -> Any:
    return np.positive(a)


@adapt(np.ravel)
def _ravel(a: Any, order: str = "C") -> Any:
    return np.reshape(a, (-1,), order=order)  # type: ignore[call-overload]


# -- axes in another order -------------------------------------------------------------------------


@op(np.transpose, infer=lambda x, *, axes=None: view(np.transpose, x, axes), view=True)
def transpose(x: Any, *, axes: Any = None) -> Any:
    return np.transpose(x, axes)


def _inverse(axes: Any) -> Any:
    if axes is None:
        return None
    found = [0] * len(axes)
    for to, k in enumerate(axes):
        found[k % len(axes)] = to
    return tuple(found)


transpose.vjp(x=lambda g, axes: np.transpose(g, _inverse(axes)))


@op(np.swapaxes, infer=lambda x, *, axis1, axis2: view(np.swapaxes, x, axis1, axis2), view=True)
def swapaxes(x: Any, *, axis1: int = 0, axis2: int = 1) -> Any:
    return np.swapaxes(x, axis1, axis2)


swapaxes.vjp(x=lambda g, axis1, axis2: np.swapaxes(g, axis1, axis2))


@adapt(np.matrix_transpose)
def _matrix_transpose(x: Any) -> Any:
    return np.swapaxes(x, -1, -2)


@adapt(np.moveaxis)
def _moveaxis(a: Any, source: Any, destination: Any) -> Any:
    ndim = np.ndim(a)
    sources = axes_of(tuple(source) if np.ndim(source) else source, ndim)
    destinations = axes_of(tuple(destination) if np.ndim(destination) else destination, ndim)
    order = [k for k in range(ndim) if k not in sources]
    for to, k in sorted(zip(destinations, sources, strict=True)):
        order.insert(to, k)
    return np.transpose(a, order)


@adapt(np.rollaxis)
def _rollaxis(a: Any, axis: int, start: int = 0) -> Any:
    ndim = np.ndim(a)
    (axis,) = axes_of(axis, ndim)
    start = start + ndim if start < 0 else start
    return np.moveaxis(a, axis, start - 1 if axis < start else start)


# -- axes of length one, and of any ----------------------------------------------------------------


@op(infer=lambda x, *, shape: view(np.broadcast_to, x, shape), view=True)
def broadcast_to(x: Any, *, shape: Any = ()) -> Any:
    return np.broadcast_to(x, shape)


broadcast_to.vjp(x=lambda g: g)  # the tape sums it down


@adapt(np.broadcast_to)
def _broadcast_to(array: Any, shape: Any) -> Any:
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    if shape and not np.shape(array):
        array = np.reshape(array, (1,))  # a number has no memory to take a view of
    return broadcast_to(array, shape=shape)


@adapt(np.broadcast_arrays)
def _broadcast_arrays(*args: Any) -> tuple[Any, ...]:
    shape = np.broadcast_shapes(*map(np.shape, args))
    return tuple(np.broadcast_to(x, shape) for x in args)


@op(np.expand_dims, infer=lambda x, *, axis: view(np.expand_dims, x, axis), view=True)
def expand_dims(x: Any, *, axis: Any = 0) -> Any:
    return np.expand_dims(x, axis)


expand_dims.vjp(x=lambda g, x_shape: np.reshape(g, x_shape))


@op(np.squeeze, infer=lambda x, *, axis=None: view(np.squeeze, x, axis), view=True)
def squeeze(x: Any, *, axis: Any = None) -> Any:
    return np.squeeze(x, axis)


squeeze.vjp(x=lambda g, x_shape: np.reshape(g, x_shape))


def _at_least(x: Any, ndim: int) -> Any:
    """With axes of length one where np.atleast_1d, 2d and 3d put them."""
    x = operand(x)
    missing = ndim - np.ndim(x)
    if missing <= 0:
        return x
    in_front = missing if ndim < 3 else missing - 1
    return np.expand_dims(x, (*range(in_front), *range(2, ndim)))


def _each(ndim: int) -> Any:
    def at_least(*arys: Any) -> Any:
        made = tuple(_at_least(x, ndim) for x in arys)
        return made[0] if len(made) == 1 else made

    return at_least


adapt(np.atleast_1d)(_each(1))
adapt(np.atleast_2d)(_each(2))
adapt(np.atleast_3d)(_each(3))

# -- turned around ---------------------------------------------------------------------------------


@op(np.flip, infer=lambda x, *, axis=None: view(np.flip, x, axis), view=True)
def flip(x: Any, *, axis: Any = None) -> Any:
    return np.flip(x, axis)


flip.vjp(x=lambda g, axis: np.flip(g, axis))


@adapt(np.flipud)
def _flipud(m: Any) -> Any:
    return np.flip(m, 0)


@adapt(np.fliplr)
def _fliplr(m: Any) -> Any:
    return np.flip(m, 1)


@adapt(np.rot90)
def _rot90(m: Any, k: int = 1, axes: Any = (0, 1)) -> Any:
    first, second = axes_of(tuple(axes), np.ndim(m))
    if first == second:
        raise ValueError("np.rot90: the axes must be different")
    turns = k % 4
    if turns == 0:
        return np.positive(m)
    if turns == 2:
        return np.flip(m, (first, second))
    if turns == 1:
        return np.swapaxes(np.flip(m, second), first, second)
    return np.flip(np.swapaxes(m, first, second), second)
