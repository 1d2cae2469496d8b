"""Embedding: rows of a table, by integer."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.nn.blocks import copied_nbytes
from ckpt.tape.core.abstract import AbstractArray
from ckpt.tape.core.op import op


def _workspace(out: Any, table: Any, indices: Any) -> int:
    """`np.take` copies a table, and indices, that aren't contiguous; and other integers than its
    own."""
    cast = 0 if indices.dtype == np.intp else indices.size * np.dtype(np.intp).itemsize
    return copied_nbytes(table) + (cast or copied_nbytes(indices))


@op(
    infer=lambda table, i: AbstractArray((*i.shape, *table.shape[1:]), table.dtype),
    workspace=_workspace,
)
def embedding(table: Any, indices: Any) -> Any:
    """``table[indices]``: (rows, d) and integers of any shape give (..., d).

    The table's gradient is added up in place, row by row, in the order of the indices.
    """
    return np.take(table, indices, axis=0)


def _add_rows(target: Any, g: Any, indices: Any) -> None:
    np.add.at(target, indices, g)


@op(
    infer=lambda dy, indices, *, shape, dtype: AbstractArray(shape, dtype),
    flops=lambda out, dy, indices, **_: dy.size,
)
def embedding_backward(dy: Any, indices: Any, *, shape: tuple[int, ...], dtype: Any) -> Any:
    """Zeros of the table's shape, each row of dy added in at its index."""
    out = np.zeros(shape, dtype)
    _add_rows(out, dy, indices)
    return out


embedding.vjp(
    table=lambda g, indices, table_shape, table_dtype: embedding_backward(
        g, indices, shape=table_shape, dtype=table_dtype
    ),
    indices=None,
)
embedding.accumulate(table=_add_rows)
embedding_backward.vjp(dy=lambda g, indices: embedding(g, indices), indices=None)
