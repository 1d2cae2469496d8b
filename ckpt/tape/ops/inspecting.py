"""Questions whose answers carry no gradient: plain results, or refusals that name the way out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ckpt.errors import AbstractError, MutationError, UnsupportedError
from ckpt.tape.core import tree
from ckpt.tape.core.abstract import dummy
from ckpt.tape.core.op import ADAPTERS, adapt
from ckpt.tape.core.value import Value


def _answer(function: Any, plain: Callable[[Any], Any], /, *args: Any, **kwargs: Any) -> Any:
    """NumPy's own answer, with ``plain(v)`` in the place of each Value v."""
    return function(
        *(tree.rebuild(a, plain) for a in args), **{k: plain(v) for k, v in kwargs.items()}
    )


# -- of shapes and dtypes alone: the function never reads its arrays, and may run on dummies -------


def _stand_in(x: Any) -> Any:
    """For a Value, something of its shape, dtype and strides that costs nothing."""
    if not isinstance(x, Value):
        return x
    data = x.data
    return dummy(data) if getattr(data, "abstract", False) else data


for _function in (
    np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.min_scalar_type,
    np.common_type, np.iscomplexobj, np.isrealobj, np.isfortran,
    np.zeros_like, np.ones_like, np.empty_like,
):  # fmt: skip
    ADAPTERS[_function] = partial(_answer, _function, _stand_in)


@adapt(np.full_like)
def _full_like(a: Any, fill_value: Any, *args: Any, **kwargs: Any) -> Any:
    if isinstance(fill_value, Value):
        raise UnsupportedError(_FILL)
    return np.full_like(_stand_in(a), fill_value, *args, **kwargs)


# -- of values, which a trace doesn't have ---------------------------------------------------------


def _data(name: str, x: Any) -> Any:
    if not isinstance(x, Value):
        return x
    if getattr(x.data, "abstract", False):
        raise AbstractError(
            f"what np.{name} gives depends on values, and only shapes and dtypes "
            "are known while tracing; use np.where to choose by values, or run with real data"
        )
    return x.data


for _asked in (
    np.nonzero, np.flatnonzero, np.argwhere, np.searchsorted, np.digitize,
    np.array2string, np.array_repr, np.array_str,
):  # fmt: skip
    ADAPTERS[_asked] = partial(_answer, _asked, partial(_data, _asked.__name__))


@adapt(np.isclose)
def _isclose(
    a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Any:
    same = np.equal(a, b)
    if equal_nan:
        same = same | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        return same | (np.isfinite(b) & (np.absolute(a - b) <= atol + rtol * np.absolute(b)))


@adapt(np.allclose)
def _allclose(
    a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    return bool(np.all(np.isclose(a, b, rtol=rtol, atol=atol, equal_nan=equal_nan)))


@adapt(np.array_equal)
def _array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> bool:
    if np.shape(a1) != np.shape(a2):
        return False
    same = np.equal(a1, a2)
    return bool(np.all(same | (np.isnan(a1) & np.isnan(a2)) if equal_nan else same))


# -- writing ---------------------------------------------------------------------------------------

_FILL = (
    "NumPy can't fill a plain array with a Value (np.full, np.full_like, np.copyto), which would "
    "lose its gradient; use np.broadcast_to(value, shape), or value * np.ones(shape)"
)


@adapt(np.copyto)
def _copyto(dst: Any, src: Any, *args: Any, **kwargs: Any) -> Any:
    raise UnsupportedError(_FILL)


def _refuse(name: str, /, *args: Any, **kwargs: Any) -> Any:
    raise MutationError(
        f"np.{name} writes into an array, which Values don't allow, since a "
        "backward may need what was there; use np.where, np.concatenate or np.stack"
    )


for _writer in (np.put, np.place, np.putmask, np.put_along_axis, np.fill_diagonal):
    ADAPTERS[_writer] = partial(_refuse, _writer.__name__)
