"""Products of stacks of small matrices, by several threads.

NumPy hands the matrices of a stack to BLAS one by one, and BLAS takes one thread for each of them
where they are small. So they can be shared out: which thread multiplies which makes no difference
to its bits, nor to memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ckpt.tape.ops.tiles import LANES, share, threads

SMALL = 1 << 18
"""Multiply-adds of one product up to which OpenBLAS uses one thread, whatever it may."""

LANE_FLOPS = 1 << 23
"""A stack has a thread for each so many. Of less, waking one (40 us) takes too much of the time."""


def lanes_of_stack(x: Any, w: Any, out: Any) -> int:
    """How many threads may share ``out = np.matmul(x, w)``, by shapes and dtypes; 1 where BLAS has
    threads of its own for it, or little to do."""
    if len(out.shape) < 3 or min(len(x.shape), len(w.shape)) < 2:
        return 1
    if not (x.dtype == w.dtype == out.dtype and out.dtype.char in "fdFD"):
        return 1
    k = x.shape[-1]
    if prod(out.shape[-2:]) * k > SMALL:
        return 1
    return int(max(1, min(LANES, out.shape[0], 2 * prod(out.shape) * k // LANE_FLOPS)))


def product_of_stacks(x: Any, w: Any, out: Any) -> Any:
    """``np.matmul(x, w, out)``, its matrices shared among the threads that there are."""
    lanes = min(lanes_of_stack(x, w, out), threads())
    if lanes < 2:
        return np.matmul(x, w, out)
    count = len(out)
    length = -(-count // (4 * lanes))

    def cut(operand: Any, part: slice) -> Any:
        own = operand.ndim == out.ndim and len(operand) == count
        return operand[part] if own else operand

    def work(lane: int, numbers: Iterator[int]) -> None:
        for number in numbers:
            part = slice(number * length, (number + 1) * length)
            np.matmul(cut(x, part), cut(w, part), out[part])

    share(work, -(-count // length), lanes)
    return out
