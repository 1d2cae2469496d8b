"""The pieces that NumPy's iterator copies operands into, where it can't run over them in one line.

A ufunc runs over all its operands in one order of axes, that of its result. An operand whose
strides aren't those of one line in that order (a broadcast row, a C array beside an F one), or that
has to be cast, is copied piece by piece into a buffer of up to 8192 elements: 64 KiB for float64.
Measured on NumPy 2.4.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.tape.core.abstract import abstract

ELEMENTS = 8192


def update(target: Any, g: Any) -> int:
    """The workspace of ``target += g``: the target is buffered as it is read and written."""
    return 2 * buffer(target, target, target.dtype) + buffer(target, g, target.dtype)


def buffers(out: Any, *operands: Any, **params: Any) -> int:
    """The ``workspace`` of an elementwise op: bytes of its operands' buffers."""
    arrays = [x for x in operands if hasattr(x, "shape")]
    if not out.size or not arrays:
        return 0
    dtypes = (x.dtype if hasattr(x, "shape") else x for x in operands)
    common = arrays[0].dtype if len(arrays) == len(operands) == 1 else np.result_type(*dtypes)
    return sum(buffer(out, x, common) for x in arrays)


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
