"""`np.take` and its kin: copies of elements by index along one axis.

Taking costs no FLOPs; adding a cotangent back costs one an element, as for indices in brackets.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.errors import AbstractError, UnsupportedError
from ckpt.tape.core.abstract import AbstractArray, abstract, contiguous
from ckpt.tape.core.dispatch import operand
from ckpt.tape.core.op import adapt, op
from ckpt.tape.core.value import Value
from ckpt.tape.ops.reducing.reductions import along, every
from ckpt.tape.ops.shaping.indexing import (
    HERE,
    gathered_strides,
    index_buffers,
    index_update,
    index_workspace,
    indices_of,
    infer_whole,
    plain_index,
    whole,
)


def _infer_take(x: Any, indices: Any, *, axis: int, mode: str) -> AbstractArray:
    x, i = abstract(x), abstract(indices)
    return AbstractArray((*x.shape[:axis], *i.shape, *x.shape[axis + 1 :]), x.dtype)


def _take_workspace(out: Any, x: Any, indices: Any, **params: Any) -> int:
    """NumPy copies an operand, and an array of indices, that isn't contiguous."""
    arrays = map(abstract, (x, indices))
    return sum(a.nbytes for a in arrays if a.strides != contiguous(a.shape, a.itemsize))


@op(infer=_infer_take, workspace=_take_workspace)
def take(x: Any, indices: Any, *, axis: int = 0, mode: str = "raise") -> Any:
    return np.take(x, indices, axis=axis, mode=mode)  # type: ignore[call-overload]


def _add_taken(target: Any, g: Any, indices: Any, axis: int, mode: str) -> None:
    if mode == "wrap":
        indices = np.remainder(indices, target.shape[axis])
    elif mode == "clip":
        indices = np.clip(indices, 0, target.shape[axis] - 1)
    place: Any = (*[slice(None)] * axis, np.asarray(indices))
    np.add.at(target, place, g)


@op(infer=infer_whole, flops=every, workspace=index_workspace)
def put_taken(g: Any, indices: Any, *, shape: Any, axis: int, mode: str) -> Any:
    """Zeros of ``shape`` to which ``g`` is added at the indices along ``axis``."""
    return whole(shape, _add_taken, g, indices, axis, mode)


put_taken.vjp(g=lambda g, indices, axis, mode: take(g, indices, axis=axis, mode=mode), indices=None)
take.vjp(
    x=lambda g, x_shape, indices, axis, mode: put_taken(
        g, indices, shape=x_shape, axis=axis, mode=mode
    ),
    indices=None,
)
take.accumulate(index_update, x=_add_taken)


@adapt(np.take)
def _take(a: Any, indices: Any, axis: int | None = None, mode: str = "raise") -> Any:
    if mode not in ("raise", "wrap", "clip"):
        raise ValueError(f"np.take: mode is raise, wrap or clip, not {mode!r}")
    a, axis = along(operand(a), axis, number=True)
    return take(a, _whole(indices), axis=axis, mode=mode)


def _whole(indices: Any) -> Any:
    i = plain_index(operand(indices), "the indices")
    if isinstance(i, int):
        return i
    if i.dtype.kind == "b":
        raise UnsupportedError("indices must be whole numbers; of a mask, use np.compress")
    return i


adapt(np.compress)(lambda condition, a, axis=None: np.take(a, np.flatnonzero(condition), axis=axis))
adapt(np.extract)(lambda condition, arr: np.take(np.ravel(arr), np.flatnonzero(condition)))


# -- sums by group ---------------------------------------------------------------------------------


def _casts(out: Any, groups: Any, weights: Any, *, length: int) -> int:
    """NumPy counts in float64 by intp, and copies what is of another dtype or layout."""
    wanted = (abstract(groups), np.dtype(np.intp)), (abstract(weights), np.dtype(float))
    return sum(
        a.size * 8
        for a, dtype in wanted
        if a.dtype != dtype or a.strides != contiguous(a.shape, a.itemsize)
    )


@op(
    infer=lambda groups, weights, *, length: AbstractArray((length,), float),
    flops=lambda out, groups, weights, *, length: weights.size,
    workspace=_casts,
)
def group_sums(groups: Any, weights: Any, *, length: int) -> Any:
    """The sum of the weights in each of ``length`` groups."""
    made = np.bincount(groups, weights, length)
    if len(made) != length:
        raise ValueError(f"np.bincount: there was no group {len(made) - 1} when this was traced")
    return made


group_sums.vjp(groups=None, weights=lambda g, groups: np.take(g, groups))


@adapt(np.bincount)
def _bincount(x: Any, /, weights: Any = None, minlength: int = 0) -> Any:
    groups = operand(x)
    known = groups.data if isinstance(groups, Value) else groups
    if getattr(known, "abstract", False):
        raise AbstractError(
            "how many groups np.bincount finds depends on values, and only shapes and dtypes are "
            "known while tracing; pass the groups as a plain array, or run it with real data"
        )
    length = max(int(minlength), int(np.max(known, initial=-1)) + 1)
    if not isinstance(weights, Value):
        return np.bincount(known, weights, length)
    if weights.dtype.kind == "c" or weights.ndim != 1 or np.shape(known) != weights.shape:
        raise ValueError("np.bincount: groups and weights are real, of one axis, equally long")
    return group_sums(groups, weights, length=length)


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
    others = tuple(1 if k == axis else n for k, n in enumerate(x.shape))
    shape = np.broadcast_shapes(i.shape, others)
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


def _add_along(target: Any, g: Any, indices: Any, axis: int) -> None:
    np.add.at(target, _along(target.shape, indices, axis), g)


@op(
    infer=infer_whole,
    flops=every,
    workspace=lambda out, g, indices, *, shape, axis: _along_workspace(shape, indices, axis),
)
def put_along_axis(g: Any, indices: Any, *, shape: Any, axis: int) -> Any:
    """Zeros of ``shape`` to which ``g`` is added at the indices along ``axis``."""
    return whole(shape, _add_along, g, indices, axis)


put_along_axis.vjp(g=lambda g, indices, axis: take_along_axis(g, indices, axis=axis), indices=None)
take_along_axis.vjp(
    x=lambda g, x_shape, indices, axis: put_along_axis(g, indices, shape=x_shape, axis=axis),
    indices=None,
)
take_along_axis.accumulate(
    lambda target, g, node: _along_workspace(target.shape, *indices_of(node), **node.params),
    x=_add_along,
)


@adapt(np.take_along_axis)
def _take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Any:
    arr, axis = along(operand(arr), axis)
    return take_along_axis(arr, _whole(indices), axis=axis)
