"""The pieces that NumPy's iterator copies operands into, where it can't run over them in one line.

A ufunc runs over all its operands in one order of axes, that of its result. An operand whose
strides aren't those of one line in that order (a broadcast row, a C array beside an F one), or that
has to be cast, is copied piece by piece into a buffer of up to 8192 elements: 64 KiB for float64.
Measured on NumPy 2.4.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import numpy as np

from ckpt.tape.core.abstract import REMEMBERED, AbstractArray, abstract, fresh

ELEMENTS = 8192


def update(target: Any, g: Any) -> int:
    """The workspace of ``target += g``: the target is buffered as it is read and written.

    The axes are walked in the order of both operands' strides, and backwards where both run so."""
    return _update(abstract(target), abstract(g))


@lru_cache(REMEMBERED)
def _update(target: AbstractArray, g: AbstractArray) -> int:
    target, g = both = _forwards(target, g)
    walk = fresh(np.add, target.shape, *both)
    return 2 * buffer(walk, target, target.dtype) + buffer(walk, g, target.dtype)


def _forwards(x: AbstractArray, y: AbstractArray) -> tuple[AbstractArray, AbstractArray]:
    """``x``, and ``y`` broadcast to it, with the axes turned round along which neither goes
    forwards."""
    missing = x.ndim - y.ndim
    beside = (0,) * missing + tuple(
        0 if n == 1 else stride for n, stride in zip(y.shape, y.strides, strict=True)
    )
    pairs = [
        (-a, -b) if a <= 0 and b <= 0 else (a, b) for a, b in zip(x.strides, beside, strict=True)
    ]
    return (
        AbstractArray(x.shape, x.dtype, tuple(a for a, _ in pairs)),
        AbstractArray(x.shape, y.dtype, tuple(b for _, b in pairs)),
    )


def buffers(out: Any, *operands: Any, **params: Any) -> int:
    """The ``workspace`` of an elementwise op: bytes of its operands' buffers."""
    arrays = [x for x in operands if hasattr(x, "shape")]
    if not out.size or not arrays:
        return 0
    dtypes = (x.dtype if hasattr(x, "shape") else x for x in operands)
    common = arrays[0].dtype if len(arrays) == len(operands) == 1 else np.result_type(*dtypes)
    return sum(buffer(out, x, common) for x in arrays)


def casts(function: np.ufunc) -> Callable[..., int]:
    """The ``workspace`` of a ufunc, which may take its operands as another dtype than their own:
    np.sqrt takes integers as float64."""

    def workspace(out: Any, *operands: Any, **params: Any) -> int:
        if not out.size:
            return 0
        kinds: list[Any] = [getattr(x, "dtype", type(x)) for x in operands]
        taken = _taken(function, *kinds)
        return sum(
            buffer(out, x, dtype)
            for x, dtype in zip(operands, taken, strict=False)
            if hasattr(x, "shape")
        )

    return workspace


@cache
def _taken(function: np.ufunc, *dtypes: Any) -> tuple[np.dtype[Any], ...]:
    """What a ufunc takes operands of these dtypes as; Python's numbers are given by their type."""
    weak = (np.dtype(bool) if kind is bool else kind for kind in dtypes)
    return function.resolve_dtypes((*weak, *[None] * function.nout))


def buffer(out: Any, x: Any, dtype: Any) -> int:
    """Bytes of the buffer that one operand, taken as ``dtype``, needs."""
    x = abstract(x)
    if not x.shape or not out.size or (x.dtype == dtype and is_line(x, out)):
        return 0
    return int(min(out.size, ELEMENTS) * dtype.itemsize)


def is_line(x: Any, out: Any) -> bool:
    """Are ``x``'s elements, broadcast to ``out`` and in the order of its axes, evenly spaced?"""
    missing = len(out.shape) - len(x.shape)
    expected = None
    for k in sorted(range(len(out.shape)), key=lambda k: (abs(out.strides[k]), -k)):
        length = out.shape[k]
        if length == 1:
            continue
        broadcast = k < missing or x.shape[k - missing] == 1
        stride = 0 if broadcast else x.strides[k - missing]
        if expected is not None and stride != expected:
            return False
        expected = stride * length
    return True
