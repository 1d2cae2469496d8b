"""Taking parts and putting them back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.tape.abstract import AbstractArray, Shared, view
from ckpt.tape.apply import apply
from ckpt.tape.op import op
from ckpt.tape.value import Value


def is_basic(index: Any) -> bool:
    """Slices, integers, None and Ellipsis give views; anything else gives a copy."""
    items = index if isinstance(index, tuple) else (index,)
    return all(
        i is None or i is Ellipsis or isinstance(i, (int, np.integer, slice))
        and not isinstance(i, (bool, np.bool_))
        for i in items
    )  # fmt: skip


def _infer_part(x: Any, *, index: Any) -> Shared:
    return view(lambda d: d[index if isinstance(index, tuple) else (index,)][...], x)


@op(name="getitem", infer=_infer_part, view=True)
def part(x: Any, *, index: Any) -> Any:
    """A view by slices and integers."""
    return x[index]


part.vjp(x=lambda g, x_shape, x_dtype, index: put(g, shape=x_shape, dtype=x_dtype, index=index))


def _add_part(target: Any, g: Any, index: Any) -> None:
    target[index] += g


part.accumulate(x=_add_part)


def _infer_put(g: Any, *, shape: Any, dtype: Any, index: Any) -> AbstractArray:
    return AbstractArray(shape, dtype)


@op(name="put", infer=_infer_put, flops=lambda out, g, **_: g.size)
def put(g: Any, *, shape: Any, dtype: Any, index: Any) -> Any:
    """Zeros of ``shape`` with ``g`` at ``index``: what a part contributes to the whole."""
    whole = np.zeros(shape, dtype)
    whole[index] += g
    return whole


put.vjp(g=lambda g, index: g[index])


def _getitem(self: Value, index: Any) -> Any:
    if is_basic(index):
        return apply(part, (self,), {"index": index})
    raise NotImplementedError


Value.__getitem__ = _getitem  # type: ignore[attr-defined]
