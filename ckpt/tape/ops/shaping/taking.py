"""`np.take` and its kin: copies of elements by index along one axis.

Taking costs no FLOPs; adding a cotangent back costs one an element, as for indices in brackets.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.errors import UnsupportedError
from ckpt.tape.core.abstract import AbstractArray, abstract, contiguous
from ckpt.tape.core.dispatch import operand
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import adapt, op
from ckpt.tape.ops.reducing.reductions import axes_of
from ckpt.tape.ops.shaping.indexing import HERE, added, gathered_strides, index_buffers, plain_index


def _infer_take(x: Any, indices: Any, *, axis: int, mode: str) -> AbstractArray:
    x, i = abstract(x), abstract(indices)
    return AbstractArray((*x.shape[:axis], *i.shape, *x.shape[axis + 1 :]), x.dtype)


def _take_workspace(out: Any, x: Any, indices: Any, **params: Any) -> int:
    """NumPy copies an operand, and an array of indices, that isn't contiguous."""
    arrays = (abstract(x), abstract(indices))
    copied = (a.nbytes for a in arrays if a.strides != contiguous(a.shape, a.itemsize))
    return int(sum(copied))


@op(infer=_infer_take, workspace=_take_workspace)
def take(x: Any, indices: Any, *, axis: int = 0, mode: str = "raise") -> Any:
    return np.take(x, indices, axis=axis, mode=mode)  # type: ignore[call-overload]


def _take_x(g: Any, x_shape: Any, indices: Any, axis: int, mode: str) -> Any:
    return put_taken(g, indices, shape=x_shape, axis=axis, mode=mode)


def _add_taken(target: Any, g: Any, indices: Any, axis: int, mode: str) -> None:
    if mode == "wrap":
        indices = np.remainder(indices, target.shape[axis])
    elif mode == "clip":
        indices = np.clip(indices, 0, target.shape[axis] - 1)
    place: Any = (*[slice(None)] * axis, np.asarray(indices))
    np.add.at(target, place, g)


@op(
    name="put_taken",
    infer=lambda g, indices, *, shape, axis, mode: AbstractArray(shape, g.dtype),
    flops=added,
    workspace=lambda out, g, indices, **params: index_buffers(indices),
)
def put_taken(g: Any, indices: Any, *, shape: Any, axis: int, mode: str) -> Any:
    """Zeros of ``shape`` to which ``g`` is added at the indices along ``axis``."""
    whole = np.zeros(shape, g.dtype)
    _add_taken(whole, g, indices, axis, mode)
    return whole


put_taken.vjp(g=lambda g, indices, axis, mode: take(g, indices, axis=axis, mode=mode))


def _taken_update(target: Any, g: Any, node: TapeNode) -> int:
    return index_buffers(indices_of(node))


take.vjp(x=_take_x).accumulate(_taken_update, x=_add_taken)


def indices_of(node: TapeNode) -> Any:
    """What the trace knows of the second operand."""
    assert node.inputs is not None
    indices = node.inputs[1]
    return indices.value if type(indices) is TapeNode else indices


@adapt(np.take)
def _take(a: Any, indices: Any, axis: int | None = None, mode: str = "raise") -> Any:
    if mode not in ("raise", "wrap", "clip"):
        raise ValueError(f"np.take: mode is raise, wrap or clip, not {mode!r}")
    a = operand(a)
    if axis is None:
        a, axis = np.ravel(a), 0
    (axis,) = axes_of(axis, np.ndim(a))
    return take(a, _whole(indices), axis=axis, mode=mode)


def _whole(indices: Any) -> Any:
    i = plain_index(operand(indices), "the indices")
    if isinstance(i, int):
        return i
    if i.dtype.kind == "b":
        raise UnsupportedError("indices must be whole numbers; of a mask, use np.compress")
    return i


@adapt(np.compress)
def _compress(condition: Any, a: Any, axis: int | None = None) -> Any:
    return np.take(a, np.flatnonzero(condition), axis=axis)


@adapt(np.extract)
def _extract(condition: Any, arr: Any) -> Any:
    return np.take(np.ravel(arr), np.flatnonzero(condition))


def _along(shape: Any, indices: Any, axis: int) -> tuple[Any, ...]:
    """Indices of all axes: ``indices`` along ``axis``, counting along the others."""
    ndim = len(shape)
    return tuple(
        indices if k == axis else np.arange(n).reshape([-1 if j == k else 1 for j in range(ndim)])
        for k, n in enumerate(shape)
    )


def _grids(shape: Any, indices: Any, axis: int) -> list[AbstractArray]:
    """The same, abstractly."""
    ndim = len(shape)
    return [
        abstract(indices)
        if k == axis
        else AbstractArray(tuple(n if j == k else 1 for j in range(ndim)), np.intp)
        for k, n in enumerate(shape)
    ]


def _infer_along(x: Any, indices: Any, *, axis: int) -> AbstractArray:
    x, i = abstract(x), abstract(indices)
    if len(i.shape) != len(x.shape):
        raise ValueError("`indices` and `arr` must have the same number of dimensions")
    shape = np.broadcast_shapes(
        i.shape, tuple(1 if k == axis else n for k, n in enumerate(x.shape))
    )
    grids = _grids(x.shape, i, axis)
    strides = gathered_strides(x, grids, (HERE,) * len(x.shape), shape)
    return AbstractArray(shape, x.dtype, strides)


def _along_workspace(shape: Any, indices: Any, axis: int) -> int:
    """The indices of the other axes, and buffers for all that aren't in line."""
    grids = [i for k, i in enumerate(_grids(shape, indices, axis)) if k != axis]
    return int(sum(i.nbytes for i in grids)) + index_buffers(indices, *grids)


@op(
    infer=_infer_along,
    workspace=lambda out, x, indices, *, axis: _along_workspace(x.shape, indices, axis),
)
def take_along_axis(x: Any, indices: Any, *, axis: int = -1) -> Any:
    return np.take_along_axis(x, indices, axis)


def _along_x(g: Any, x_shape: Any, indices: Any, axis: int) -> Any:
    return put_along_axis(g, indices, shape=x_shape, axis=axis)


def _add_along(target: Any, g: Any, indices: Any, axis: int) -> None:
    np.add.at(target, _along(target.shape, indices, axis), g)


@op(
    name="put_along_axis",
    infer=lambda g, indices, *, shape, axis: AbstractArray(shape, g.dtype),
    flops=added,
    workspace=lambda out, g, indices, *, shape, axis: _along_workspace(shape, indices, axis),
)
def put_along_axis(g: Any, indices: Any, *, shape: Any, axis: int) -> Any:
    """Zeros of ``shape`` to which ``g`` is added at the indices along ``axis``."""
    whole = np.zeros(shape, g.dtype)
    _add_along(whole, g, indices, axis)
    return whole


put_along_axis.vjp(g=lambda g, indices, axis: take_along_axis(g, indices, axis=axis))


def _along_update(target: Any, g: Any, node: TapeNode) -> int:
    assert node.params is not None
    return _along_workspace(target.shape, indices_of(node), node.params["axis"])


take_along_axis.vjp(x=_along_x).accumulate(_along_update, x=_add_along)


@adapt(np.take_along_axis)
def _take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Any:
    if axis is None:
        arr, axis = np.ravel(arr), 0
    (axis,) = axes_of(axis, np.ndim(arr))
    return take_along_axis(operand(arr), _whole(indices), axis=axis)
