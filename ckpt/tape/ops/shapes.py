"""Views and copies: the same elements in another shape. No FLOPs."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.tape.abstract import AbstractArray, Shared, abstract, dummy, view
from ckpt.tape.op import op


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
    new = (shape,) if isinstance(shape, (int, np.integer)) else tuple(map(int, shape))
    known = 1
    for n in new:
        known *= n if n >= 0 else 1
    if new.count(-1) == 1 and known and size % known == 0:
        new = tuple(size // known if n == -1 else n for n in new)
        known = size
    if known != size or min(new, default=0) < 0:
        raise ValueError(f"cannot reshape array of size {size} into shape {shape}")
    return new


@op(np.reshape, infer=infer_reshape, view=True)
def reshape(x: Any, *, shape: Any = (), order: Any = "C") -> Any:
    return np.reshape(x, shape, order=order)


reshape.vjp(x=lambda g, x_shape, order: np.reshape(g, x_shape, order=order))


@op(np.transpose, infer=lambda x, *, axes=None: view(np.transpose, x, axes), view=True)
def transpose(x: Any, *, axes: Any = None) -> Any:
    return np.transpose(x, axes)


def _inverse(axes: Any) -> Any:
    return None if axes is None else tuple(int(k) for k in np.argsort([a % len(axes) for a in axes]))


transpose.vjp(x=lambda g, axes: np.transpose(g, _inverse(axes)))


@op(np.swapaxes, infer=lambda x, *, axis1, axis2: view(np.swapaxes, x, axis1, axis2), view=True)
def swapaxes(x: Any, *, axis1: int = 0, axis2: int = 1) -> Any:
    return np.swapaxes(x, axis1, axis2)


swapaxes.vjp(x=lambda g, axis1, axis2: np.swapaxes(g, axis1, axis2))


@op(np.broadcast_to, infer=lambda x, *, shape: view(np.broadcast_to, x, shape), view=True)
def broadcast_to(x: Any, *, shape: Any = ()) -> Any:
    return np.broadcast_to(x, shape)


broadcast_to.vjp(x=lambda g: g)  # the tape sums it down


@op(np.expand_dims, infer=lambda x, *, axis: view(np.expand_dims, x, axis), view=True)
def expand_dims(x: Any, *, axis: Any = 0) -> Any:
    return np.expand_dims(x, axis)


expand_dims.vjp(x=lambda g, x_shape: np.reshape(g, x_shape))


@op(np.squeeze, infer=lambda x, *, axis=None: view(np.squeeze, x, axis), view=True)
def squeeze(x: Any, *, axis: Any = None) -> Any:
    return np.squeeze(x, axis)


squeeze.vjp(x=lambda g, x_shape: np.reshape(g, x_shape))
