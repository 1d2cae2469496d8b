"""Sorting and partitioning along an axis. One FLOP a comparison: n log2 n for a sort of n, n for a
partition (introselect is linear)."""

from __future__ import annotations

from collections.abc import Callable
from math import log2
from operator import index
from typing import Any

import numpy as np

from ckpt.tape.core.dispatch import operand
from ckpt.tape.core.op import Op, adapt, op
from ckpt.tape.ops.reducing.reductions import along, every, same_shape


def _comparisons(out: Any, x: Any, *, axis: int, **params: Any) -> float:
    return x.size * log2(x.shape[axis]) if x.shape[axis] else 0


def _line(array: Any, axis: int) -> int:
    """NumPy brings each line of elements together, unless they lie so."""
    apart = array.strides[axis] != array.itemsize
    return array.shape[axis] * array.itemsize if apart else 0


def _one_line(out: Any, x: Any, *, axis: int, **params: Any) -> int:
    return _line(out, axis)


def _lines(out: Any, x: Any, *, axis: int, **params: Any) -> int:
    return _line(out, axis) + _line(x, axis)


def _sorting(function: Callable[..., Any], workspace: Callable[..., int]) -> Op:
    """The op along one axis, and what the NumPy function's other arguments mean."""

    @op(
        name=function.__name__,
        infer=same_shape(function),
        flops=_comparisons,
        workspace=workspace,
    )
    def sorting(x: Any, *, axis: int = -1, kind: Any = None) -> Any:
        return function(x, axis, kind)

    @adapt(function)
    def adapter(
        a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: bool | None = None
    ) -> Any:
        x, axis = along(operand(a), axis, number=function is np.argsort)
        if order is not None:
            raise ValueError("cannot specify order when the array has no fields")
        return sorting(x, axis=axis, kind="stable" if stable else kind)

    return sorting  # type: ignore[no-any-return]


def _sort(g: Any, x: Any, axis: int, kind: Any) -> Any:
    """Each element takes the cotangent of the place it was sorted to."""
    places = np.argsort(np.argsort(x, axis, kind), axis)
    return np.take_along_axis(g, places, axis)


_sorting(np.argsort, _lines).no_gradient()
_sorting(np.sort, _one_line).vjp(x=_sort)


@op(infer=same_shape(np.argsort), flops=every, workspace=_lines)
def argpartition(x: Any, *, kth: Any = 0, axis: int = -1) -> Any:
    return np.argpartition(x, kth, axis)


argpartition.no_gradient()


def _places(kth: Any, x: Any, axis: int) -> Any:
    """``kth`` as a hashable option, checked as NumPy does: not of an array without elements."""
    places = tuple(map(index, np.ravel(kth)))
    length = x.shape[axis]
    if x.size and any(not -length <= k < length for k in places):
        raise ValueError(f"kth(={kth}) out of bounds ({length})")
    return places if np.ndim(kth) else places[0]


def _check(kind: str, order: Any) -> None:
    if kind != "introselect" or order is not None:
        raise ValueError(f"np.partition's kind is 'introselect', without order: not {kind!r}")


@adapt(np.argpartition)
def _np_argpartition(
    a: Any, kth: Any, axis: Any = -1, kind: str = "introselect", order: Any = None
) -> Any:
    _check(kind, order)
    x, axis = along(operand(a), axis, number=True)
    return argpartition(x, kth=_places(kth, x, axis), axis=axis)


def _partition(g: Any, out: Any, x: Any, axis: int) -> Any:
    """Each element takes the cotangent of the place that it stands at now, equal ones in turn."""
    ranks = np.argsort(np.argsort(x, axis, "stable"), axis)
    places = np.take_along_axis(np.argsort(out, axis, "stable"), ranks, axis)
    return np.take_along_axis(g, places, axis)


@op(infer=same_shape(np.sort), flops=every, workspace=_one_line)
def partition(x: Any, *, kth: Any = 0, axis: int = -1) -> Any:
    return np.partition(x, kth, axis)


partition.vjp(x=_partition)


@adapt(np.partition)
def _np_partition(
    a: Any, kth: Any, axis: Any = -1, kind: str = "introselect", order: Any = None
) -> Any:
    _check(kind, order)
    x, axis = along(operand(a), axis)
    return partition(x, kth=_places(kth, x, axis), axis=axis)
