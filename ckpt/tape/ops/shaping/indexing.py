"""Parts in brackets, and putting their cotangents back: views (`part`) and copies (`gather`).

Taking costs no FLOPs, adding back one an element. Cotangents of parts are added into the cotangent
of the whole, repeated indices each with their own, so that ten thousand slices of one array cost
what one pass over it costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.errors import AbstractError, UnsupportedError
from ckpt.tape.core.abstract import (
    AbstractArray,
    Shared,
    abstract,
    contiguous,
    miniature,
    view,
)
from ckpt.tape.core.apply import apply
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import op
from ckpt.tape.core.value import Value
from ckpt.tape.ops.pointwise.buffers import buffer, update
from ckpt.tape.ops.reducing.reductions import every


def infer_whole(g: Any, *indices: Any, shape: Any, **params: Any) -> AbstractArray:
    """What `whole` gives."""
    return AbstractArray(shape, g.dtype)


def whole(shape: Any, add: Callable[..., None], g: Any, *place: Any) -> Any:
    """Zeros of ``shape`` to which ``g`` is added: what a part contributes to the whole."""
    made = np.zeros(shape, g.dtype)
    add(made, g, *place)
    return made


# -- slices and numbers: views ---------------------------------------------------------------------


def is_basic(index: Any) -> bool:
    """Slices, integers, None and Ellipsis give views; anything else gives a copy."""
    return all(map(_is_plain, index if isinstance(index, tuple) else (index,)))


def _is_plain(i: Any) -> bool:
    if isinstance(i, (int, np.integer, slice)):
        return not isinstance(i, bool)
    return i is None or i is Ellipsis


def _infer_part(x: Any, *, index: Any) -> Shared:
    return view(lambda d: d[index if isinstance(index, tuple) else (index,)][...], x)


@op(name="getitem", infer=_infer_part, view=True)
def part(x: Any, *, index: Any) -> Any:
    """A view by slices and integers."""
    return x[index]


def _add_part(target: Any, g: Any, index: Any) -> None:
    target[index] += g


@op(infer=infer_whole, flops=every)
def put(g: Any, *, shape: Any, index: Any) -> Any:
    """Zeros of ``shape`` with ``g`` at ``index``."""
    return whole(shape, _add_part, g, index)


put.vjp(g=lambda g, index: g[index])
part.vjp(x=lambda g, x_shape, index: put(g, shape=x_shape, index=index))
part.accumulate(
    lambda target, g, node: update(_infer_part(target, **node.params).array, g), x=_add_part
)

# -- arrays of indices in brackets -----------------------------------------------------------------

HERE = "index array"
"""Stands in a template for the next array of indices."""


def _filled(template: tuple[Any, ...], indices: Any) -> tuple[Any, ...]:
    """The index of a template and its arrays; numbers become arrays, lest they give views."""
    waiting = iter(indices)
    return tuple(np.asarray(next(waiting)) if i is HERE else i for i in template)


def _infer_gather(x: Any, *indices: Any, template: tuple[Any, ...]) -> AbstractArray:
    """NumPy's rule: indexed axes become those the index arrays broadcast to, in the place of the
    first if they are next to each other, else in front."""
    x = abstract(x)
    arrays = [abstract(i) for i in indices]
    shape = _gathered_shape(x.shape, [a.shape for a in arrays], template)
    return AbstractArray(shape, x.dtype, gathered_strides(x, arrays, template, shape))


def _gathered_shape(shape: Any, indices: list[Any], template: tuple[Any, ...]) -> tuple[int, ...]:
    common = np.broadcast_shapes(*indices)
    left = list(shape)
    made: list[int] = []
    place: int | None = None
    apart = last = False
    for i in template:
        advanced = i is HERE or isinstance(i, (int, np.integer))
        if advanced:
            if place is None:
                place = len(made)
            elif not last:
                apart = True
            if i is not HERE and not -left[0] <= i < left[0]:
                raise IndexError(f"index {i} is out of bounds for an axis of length {left[0]}")
            left.pop(0)
        elif i is None:
            made.append(1)
        else:
            made.append(len(range(*i.indices(left.pop(0)))))
        last = advanced
    assert place is not None
    at = 0 if apart else place
    return (*made[:at], *common, *made[at:], *left)


def gathered_strides(
    x: AbstractArray, arrays: list[AbstractArray], template: tuple[Any, ...], shape: tuple[int, ...]
) -> tuple[int, ...]:
    """In the order of axes that NumPy gives a miniature: its slices first, then the arrays."""
    basic = tuple(i if i is None or isinstance(i, slice) else slice(None) for i in template)
    sliced = view(lambda d: d[basic], x).array
    index = tuple(
        HERE if i is HERE else slice(None) if i is None or isinstance(i, slice) else 0
        for i in template
    )
    made = miniature(sliced)[_filled(index, [miniature(a, np.zeros) for a in arrays])]
    axes = tuple(sorted(range(made.ndim), key=lambda k: (-made.strides[k], k)))
    return contiguous(shape, x.itemsize, axes)


def index_buffers(*indices: Any) -> int:
    """Arrays of indices are buffered as the operands of ufuncs are."""
    arrays = [abstract(i) for i in indices]
    common = AbstractArray(np.broadcast_shapes(*(a.shape for a in arrays)), np.intp)
    return sum(buffer(common, a, common.dtype) for a in arrays)


def index_workspace(out: Any, x: Any, *indices: Any, **params: Any) -> int:
    return index_buffers(*indices)


def indices_of(node: Any) -> list[Any]:
    """What the trace knows of the operands after the first."""
    return [i.value if type(i) is TapeNode else i for i in node.inputs[1:]]


def index_update(target: Any, g: Any, node: Any) -> int:
    return index_buffers(*indices_of(node))


@op(infer=_infer_gather, workspace=index_workspace)
def gather(x: Any, *indices: Any, template: tuple[Any, ...] = (HERE,)) -> Any:
    """A copy of the elements that arrays of indices name."""
    return x[_filled(template, indices)]


def _add_gathered(target: Any, g: Any, indices: Any, template: Any) -> None:
    np.add.at(target, _filled(template, indices), g)


@op(infer=infer_whole, flops=every, workspace=index_workspace)
def scatter(g: Any, *indices: Any, shape: Any, template: tuple[Any, ...]) -> Any:
    """Zeros of ``shape`` to which ``g`` is added at the indices, as often as they occur."""
    return whole(shape, _add_gathered, g, indices, template)


scatter.vjp(g=lambda g, indices, template: gather(g, *indices, template=template), indices=None)
gather.vjp(
    x=lambda g, x_shape, indices, template: scatter(g, *indices, shape=x_shape, template=template),
    indices=None,
)
gather.accumulate(index_update, x=_add_gathered)


def plain_index(i: Any, what: str) -> Any:
    """An index item as slices and numbers leave it, or an array of whole numbers or bools."""
    if _is_plain(i):
        return i
    array = i.data if isinstance(i, Value) else np.asarray(i)
    if not array.size and isinstance(i, (list, tuple, range)):
        array = array.astype(int)
    if array.dtype.kind not in "iub":
        raise IndexError(f"an index is made of whole numbers or bools, and not of {array.dtype}")
    if array.dtype.kind != "b":
        return i if isinstance(i, Value) else array.astype(np.intp, copy=False)
    if getattr(array, "abstract", False):
        raise AbstractError(
            f"the shape of x[mask] depends on the values of {what}, and only shapes and "
            "dtypes are known while tracing; use np.where(mask, x, 0), or run it with real data"
        )
    return array


def _spelled_out(x: Any, items: tuple[Any, ...]) -> list[Any]:
    """Without Ellipsis and bools: one item an axis, or None for a new one."""
    consumed = sum(i.ndim if _is_mask(i) else i is not None and i is not Ellipsis for i in items)
    if consumed > x.ndim:
        raise IndexError(f"too many indices: {consumed} for an array of {x.ndim} axes")
    if not any(i is Ellipsis for i in items):
        items = (*items, Ellipsis)
    made: list[Any] = []
    axis = 0
    for i in items:
        if i is Ellipsis:
            made.extend([slice(None)] * (x.ndim - consumed))
            axis += x.ndim - consumed
        elif _is_mask(i):
            if i.shape != x.shape[axis : axis + i.ndim]:
                raise IndexError(
                    f"a mask of shape {i.shape} doesn't fit axes of {x.shape[axis : axis + i.ndim]}"
                )
            if not i.ndim:
                raise UnsupportedError("a single bool is no index of a Value; use np.where")
            # Copies, for what NumPy gives are columns of one array.
            made.extend(found.copy() for found in np.nonzero(i))
            axis += i.ndim
        else:
            made.append(i)
            axis += i is not None
    return made


def _is_mask(i: Any) -> bool:
    return isinstance(i, (np.ndarray, np.bool_)) and i.dtype.kind == "b"


def _getitem(self: Value, index: Any) -> Any:
    if is_basic(index):
        if not self.shape:  # a number has no memory to take a view of
            return np.reshape(self, np.empty(())[index].shape)
        return apply(part, (self,), {"index": index})
    items = index if isinstance(index, tuple) else (index,)
    given = _spelled_out(self, tuple(plain_index(i, "the mask") for i in items))
    template = tuple(HERE if isinstance(i, (Value, np.ndarray)) else i for i in given)
    arrays = [i for i in given if isinstance(i, (Value, np.ndarray))]
    return apply(gather, (self, *arrays), {"template": template})


Value.__getitem__ = _getitem  # type: ignore[method-assign]
