"""Elementwise work in blocks that stay in the cache: temporaries don't grow with the array."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from ckpt.tape.core.abstract import AbstractArray, contiguous
from ckpt.tape.core.op import Fill, op
from ckpt.tape.ops.pointwise.buffers import ELEMENTS
from ckpt.tape.ops.tiles import TILE, lanes_of, share

BLOCK = TILE
"""Elements a block."""


def float_dtype(*arrays: Any) -> np.dtype[Any]:
    """The dtype of a function of these arrays that has no integers in its range."""
    dtype = np.result_type(*(getattr(a, "dtype", a) for a in arrays))
    return dtype if dtype.kind in "fc" else np.dtype(float)


def infer_float(x: Any, *others: Any, **static: Any) -> AbstractArray:
    """A C-ordered float array of the first operand's shape."""
    return AbstractArray(x.shape, float_dtype(x, *others))


def copied_nbytes(*arrays: Any) -> int:
    """Bytes of contiguous copies of those arrays that aren't contiguous."""
    return sum(
        a.nbytes
        for a in arrays
        if hasattr(a, "strides")
        and a.size > 1
        and _steps(a.shape, a.strides) != _steps(a.shape, contiguous(a.shape, a.itemsize))
    )


def _steps(shape: tuple[int, ...], strides: tuple[int, ...]) -> list[int]:
    return [s for n, s in zip(shape, strides, strict=True) if n > 1]


def in_blocks(
    *, flops: int, scratch: int = 0, over: tuple[int, ...] = (), name: str = ""
) -> Callable[[Callable[..., None]], Any]:
    """Declare the op of an array of its operands' shape, by what fills it block by block.

    ``fill(out, *scratch, *operands, **static)`` gets one-dimensional blocks and fills ``out``.
    ``flops`` an element; ``scratch``: how many blocks of temporaries; ``over``: the operands that
    ``fill`` reads no more once it has begun, and whose memory ``out`` may be. Several threads may
    share the work, each with temporaries of its own.
    """

    def block_nbytes(out: Any) -> int:
        return int(min(BLOCK, out.size) * out.itemsize * lanes_of(out.nbytes))

    def declare(fill: Callable[..., None]) -> Any:
        called = name or fill.__name__
        parameters = [*inspect.signature(fill).parameters.values()][1 + scratch :]
        count = sum(p.kind is not p.KEYWORD_ONLY for p in parameters)

        def forward(*arrays: Any, out: Any = None, **static: Any) -> Any:
            if len(arrays) != count:
                raise TypeError(f"{called} takes {count} arrays, not {len(arrays)}")
            return _filled(fill, arrays, out, scratch, over, static)

        into = inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None)
        forward.__signature__ = inspect.Signature([*parameters, into])  # type: ignore[attr-defined]
        return op(
            name=called,
            infer=infer_float,
            flops=lambda out, *_, **__: flops * out.size,
            workspace=lambda out, *arrays, **_: (
                scratch * block_nbytes(out) + copied_nbytes(*arrays)
            ),
            over=lambda k, out, *_, **__: 0 if k in over else block_nbytes(out),
            fill=Fill(fill, scratch, over),
        )(forward)

    return declare


def _filled(
    fill: Callable[..., None], arrays: Any, out: Any, scratch: int, over: Any, static: Any
) -> Any:
    """``out``, or a new array; where it is an operand not of ``over``, that is copied by blocks."""
    shape = np.shape(arrays[0])
    if out is None:
        out = np.empty(shape, float_dtype(*arrays))
    copied = [k for k, a in enumerate(arrays) if a is out and k not in over]
    flat = [np.ascontiguousarray(a).reshape(-1) for a in arrays]
    target = out.reshape(-1)
    lanes, length = lanes_of(out.nbytes), min(BLOCK, out.size)
    temporaries = np.empty((lanes, scratch + len(copied), length), out.dtype)

    def work(lane: int, numbers: Iterator[int]) -> None:
        for number in numbers:
            start = number * BLOCK
            part = target[start : start + BLOCK]
            given = [t[: part.size] for t in temporaries[lane]]
            operands = [a[start : start + BLOCK] for a in flat]
            for k, copy in zip(copied, given[scratch:], strict=True):
                copy[...] = part
                operands[k] = copy
            fill(part, *given[:scratch], *operands, **static)

    share(work, -(-out.size // BLOCK), lanes)
    return out if shape else out[()]


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """The first axis in slices of about a block's elements."""
    length = rows_in_block(shape)
    for start in range(0, shape[0] if shape else 0, length):
        yield slice(start, min(start + length, shape[0]))


def rows_in_block(shape: tuple[int, ...]) -> int:
    """How many entries of the first axis make a block: at least one."""
    return max(1, BLOCK // max(prod(shape[1:]), 1))


def block_nbytes(shape: tuple[int, ...], itemsize: int) -> int:
    """Bytes of a block of `row_blocks`."""
    return itemsize * prod(shape[1:]) * min(rows_in_block(shape), shape[0] if shape else 1)


def row_buffer(array: Any, itemsize: int) -> int:
    """Bytes of the buffer for an operand that is broadcast over the rows of a block."""
    return int(min(array.size, ELEMENTS) * itemsize)


def block_scratch(array: Any, dtype: Any) -> Any:
    """Room for the rows of one block of `row_blocks`."""
    return np.empty((min(rows_in_block(array.shape), len(array)), *array.shape[1:]), dtype)


def strided_nbytes(size: int, itemsizes: int) -> int:
    """Bytes of a ufunc's buffers where its operands, of this size, have gaps between their rows.

    Each operand, and the result, has one; their bytes an element are ``itemsizes`` together.
    """
    return min(size, ELEMENTS) * itemsizes
