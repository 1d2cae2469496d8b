"""Joining arrays into one, and splitting one into views. No FLOPs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ckpt.errors import UnsupportedError
from ckpt.tape.core.abstract import AbstractArray, abstract, fresh
from ckpt.tape.core.dispatch import operand
from ckpt.tape.core.op import adapt, op
from ckpt.tape.ops.reducing.reductions import axes_of, reduced


def _infer_join(*parts: Any, axis: int) -> AbstractArray:
    shapes = [abstract(p).shape for p in parts]
    first = shapes[0]
    for shape in shapes:
        if len(shape) != len(first) or reduced(shape, axis, True) != reduced(first, axis, True):
            raise ValueError(f"np.concatenate along axis {axis}: shapes {first} and {shape}")
    total = sum(shape[axis] for shape in shapes)
    return fresh(concatenate.forward, (*first[:axis], total, *first[axis + 1 :]), *parts, axis=axis)


@op(infer=_infer_join)
def concatenate(*parts: Any, axis: int = 0) -> Any:
    return np.concatenate(parts, axis=axis)


def _part_of(g: Any, k: int, parts_shapes: Any, axis: int) -> Any:
    start = sum(shape[axis] for shape in parts_shapes[:k])
    stop = start + parts_shapes[k][axis]
    return g[(*[slice(None)] * axis, slice(start, stop))]


concatenate.vjp(parts=_part_of)


def _parts(arrays: Any, name: str) -> list[Any]:
    parts = [operand(x) for x in arrays]
    if not parts:
        raise ValueError(f"np.{name}: need at least one array")
    for x, part in zip(arrays, parts, strict=True):
        if part is NotImplemented:
            raise UnsupportedError(f"np.{name} of Values can't take a {type(x).__name__}")
    return parts


@adapt(np.concatenate)
def _concatenate(
    arrays: Any, axis: int | None = 0, *, dtype: Any = None, casting: Any = "same_kind"
) -> Any:
    parts = _parts(arrays, "concatenate")
    if dtype is not None:
        for part in parts:
            if not np.can_cast(np.result_type(part), dtype, casting):
                raise TypeError(f"np.concatenate can't cast {part.dtype} to {np.dtype(dtype)}")
    if axis is None:
        parts, axis = [np.ravel(p) for p in parts], 0
    if np.ndim(parts[0]) == 0:
        raise ValueError("np.concatenate: numbers can't be concatenated; use np.stack")
    (axis,) = axes_of(axis, np.ndim(parts[0]))
    joined = concatenate(*parts, axis=axis)
    return joined if dtype is None else np.astype(joined, dtype)


adapt(np.append)(
    lambda arr, values, axis=None: np.concatenate(_parts((arr, values), "append"), axis=axis)
)


@adapt(np.stack)
def _stack(arrays: Any, axis: int = 0, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    parts = _parts(arrays, "stack")
    if len({np.shape(p) for p in parts}) > 1:
        raise ValueError(f"np.stack: shapes differ: {[np.shape(p) for p in parts]}")
    (axis,) = axes_of(axis, np.ndim(parts[0]) + 1)
    return np.concatenate(
        [np.expand_dims(p, axis) for p in parts], axis=axis, dtype=dtype, casting=casting
    )


@adapt(np.vstack)
def _vstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    parts = [np.atleast_2d(p) for p in _parts(tup, "vstack")]
    return np.concatenate(parts, axis=0, dtype=dtype, casting=casting)


@adapt(np.hstack)
def _hstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    parts = [np.atleast_1d(p) for p in _parts(tup, "hstack")]
    return np.concatenate(
        parts, axis=0 if np.ndim(parts[0]) == 1 else 1, dtype=dtype, casting=casting
    )


adapt(np.dstack)(
    lambda tup: np.concatenate([np.atleast_3d(p) for p in _parts(tup, "dstack")], axis=2)
)


@adapt(np.column_stack)
def _column_stack(tup: Any) -> Any:
    parts = _parts(tup, "column_stack")
    columns = [p if np.ndim(p) > 1 else np.reshape(p, (-1, 1)) for p in parts]
    return np.concatenate(columns, axis=1)


@adapt(np.block)
def _block(arrays: Any) -> Any:
    """Nested lists, the innermost joined along the last axis."""

    def depth(item: Any) -> int:
        return 1 + depth(item[0]) if isinstance(item, list) else 0

    def leaves(item: Any) -> Any:
        for part in item:
            yield from leaves(part) if isinstance(part, list) else (part,)

    levels = depth(arrays)
    if not levels:
        return arrays
    ndim = max(levels, *(np.ndim(leaf) for leaf in leaves(arrays)))

    def join(item: Any, level: int) -> Any:
        if not isinstance(item, list):
            return np.expand_dims(operand(item), tuple(range(ndim - np.ndim(item))))
        return np.concatenate([join(part, level + 1) for part in item], axis=level - levels)

    return join(arrays, 0)


# -- splitting -------------------------------------------------------------------------------------


def _cut(ary: Any, cuts: list[int], axis: int) -> list[Any]:
    before = (slice(None),) * axes_of(axis, np.ndim(ary))[0]
    ends = [0, *cuts, np.shape(ary)[axis]]
    return [ary[(*before, slice(a, b))] for a, b in pairwise(ends)]


@adapt(np.array_split)
def _array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    if np.ndim(indices_or_sections):
        return _cut(ary, [int(i) for i in indices_or_sections], axis)
    sections, length = int(indices_or_sections), np.shape(ary)[axis]
    if sections <= 0:
        raise ValueError("number sections must be larger than 0.")
    each, rest = divmod(length, sections)
    return _cut(ary, [k * each + min(k, rest) for k in range(1, sections)], axis)


@adapt(np.split)
def _split(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
    length = np.shape(ary)[axis]
    if not np.ndim(indices_or_sections) and length % int(indices_or_sections):
        raise ValueError(
            f"np.split: {length} elements don't divide into {indices_or_sections} equal parts; "
            "use np.array_split"
        )
    return _array_split(ary, indices_or_sections, axis)


adapt(np.vsplit)(lambda ary, indices_or_sections: _split(ary, indices_or_sections, 0))
adapt(np.hsplit)(
    lambda ary, indices_or_sections: _split(ary, indices_or_sections, 1 if np.ndim(ary) > 1 else 0)
)
adapt(np.dsplit)(lambda ary, indices_or_sections: _split(ary, indices_or_sections, 2))
adapt(np.unstack)(lambda x, *, axis=0: tuple(np.moveaxis(x, axis, 0)))
