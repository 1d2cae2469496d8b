"""How a ufunc is called at the least cost, with the bits of any other way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

KEYWORD_OUT = (np.maximum, np.minimum)
"""Ufuncs that warn of an ``out`` that is passed by position, which is quicker."""

ARITHMETIC = (np.add, np.subtract, np.multiply, np.true_divide)
"""Ufuncs by whose dtype a Python number is that of the arrays beside it."""


def out_of(function: Any, name: str) -> str:
    """``out``, the array of that name, as an argument behind a ufunc's operands."""
    positional = isinstance(function, np.ufunc) and function not in KEYWORD_OUT
    return name if positional else f"out={name}"


def as_array(function: Any, number: Any, dtype: np.dtype[Any], others: Iterable[Any]) -> Any:
    """A Python number beside arrays of the result's dtype (``others``: those of the other operands,
    None of what is no array) as one of them: NumPy would convert it at each call."""
    if type(number) not in (int, float) or function not in ARITHMETIC or dtype.kind != "f":
        return number
    dtypes = list(others)
    if not dtypes or any(d != dtype for d in dtypes):
        return number
    with np.errstate(over="ignore"):
        made = np.array(number, dtype)
    return made if np.isfinite(made) else number
