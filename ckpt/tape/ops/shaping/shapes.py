"""The same elements in another shape: views, and copies where there is no view. No FLOPs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from ckpt.errors import UnsupportedError
from ckpt.tape.core.abstract import AbstractArray, Shared, abstract, contiguous, view
from ckpt.tape.core.dispatch import operand
from ckpt.tape.core.op import Op, adapt, op
from ckpt.tape.ops.reducing.reductions import axes_of


def infer_reshape(x: Any, *, shape: Any, order: str = "C") -> AbstractArray | Shared:
    """A view where the strides allow it, else a copy."""
    x = abstract(x)
    new = complete_shape(x.size, shape)
    try:
        return view(np.reshape, x, new, order=order, copy=False)
    except ValueError:
        axes = tuple(range(len(new)))[:: -1 if order == "F" else 1]
        return AbstractArray(new, x.dtype, contiguous(new, x.itemsize, axes))


def complete_shape(size: int, shape: Any) -> tuple[int, ...]:
    """A target shape with its -1 worked out; ValueError if it doesn't hold ``size`` elements."""
    new = (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(map(int, shape))
    known = prod(n for n in new if n >= 0)
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


adapt(np.ravel)(lambda a, order="C": np.reshape(a, (-1,), order=order))
adapt(np.copy)(lambda a: np.positive(a))


def viewing(function: Any, forward: Callable[..., Any]) -> Op:
    """The op of a NumPy function whose result, a view, is read off a dummy."""
    declare = op(function, name=function.__name__, infer=partial(view, forward), view=True)
    return declare(forward)  # type: ignore[no-any-return]


# -- axes in another order -------------------------------------------------------------------------


def _inverse(axes: Any) -> Any:
    if axes is None:
        return None
    return tuple(sorted(range(len(axes)), key=lambda k: axes[k] % len(axes)))


viewing(np.transpose, lambda x, *, axes=None: np.transpose(x, axes)).vjp(
    x=lambda g, axes: np.transpose(g, _inverse(axes))
)
viewing(np.swapaxes, lambda x, *, axis1=0, axis2=1: np.swapaxes(x, axis1, axis2)).vjp(
    x=lambda g, axis1, axis2: np.swapaxes(g, axis1, axis2)
)
adapt(np.matrix_transpose)(lambda x: np.swapaxes(x, -1, -2))


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
    if shape == np.shape(array):
        return operand(array)
    if shape and not np.shape(array):
        array = np.reshape(array, (1,))  # a number has no memory to take a view of
    return broadcast_to(array, shape=shape)


@adapt(np.broadcast_arrays)
def _broadcast_arrays(*args: Any) -> tuple[Any, ...]:
    shape = np.broadcast_shapes(*map(np.shape, args))
    return tuple(np.broadcast_to(x, shape) for x in args)


viewing(np.expand_dims, lambda x, *, axis=0: np.expand_dims(x, axis)).vjp(
    x=lambda g, x_shape: np.reshape(g, x_shape)
)
viewing(np.squeeze, lambda x, *, axis=None: np.squeeze(x, axis)).vjp(
    x=lambda g, x_shape: np.reshape(g, x_shape)
)


def _at_least(x: Any, ndim: int) -> Any:
    """With axes of length one where np.atleast_1d, 2d and 3d put them."""
    x = operand(x)
    missing = ndim - np.ndim(x)
    if missing <= 0:
        return x
    in_front = missing if ndim < 3 else missing - 1
    return np.expand_dims(x, (*range(in_front), *range(2, ndim)))


def _each(ndim: int, *arys: Any) -> Any:
    made = tuple(_at_least(x, ndim) for x in arys)
    return made[0] if len(made) == 1 else made


adapt(np.atleast_1d)(partial(_each, 1))
adapt(np.atleast_2d)(partial(_each, 2))
adapt(np.atleast_3d)(partial(_each, 3))

# -- turned around ---------------------------------------------------------------------------------

viewing(np.flip, lambda x, *, axis=None: np.flip(x, axis)).vjp(x=lambda g, axis: np.flip(g, axis))
adapt(np.flipud)(lambda m: np.flip(m, 0))
adapt(np.fliplr)(lambda m: np.flip(m, 1))


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
