"""Questions whose answers carry no gradient: plain results, or refusals that name the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.errors import AbstractError, MutationError, UnsupportedError
from ckpt.tape.core import tree
from ckpt.tape.core.abstract import dummy
from ckpt.tape.core.op import ADAPTERS, adapt
from ckpt.tape.core.value import Value

# -- of shapes and dtypes alone --------------------------------------------------------------------


def _stand_in(x: Any) -> Any:
    """For a Value, something of its shape, dtype and strides that costs nothing."""
    if not isinstance(x, Value):
        return x
    data = x.data
    return dummy(data) if getattr(data, "abstract", False) else data


def _of_stand_ins(function: Callable[..., Any]) -> None:
    """The function never reads its arrays: it may run on dummies."""

    def answer(*args: Any, **kwargs: Any) -> Any:
        return function(
            *(tree.rebuild(a, _stand_in) for a in args),
            **{k: _stand_in(v) for k, v in kwargs.items()},
        )

    ADAPTERS[function] = answer


for _function in (
    np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.min_scalar_type,
    np.common_type, np.iscomplexobj, np.isrealobj, np.isfortran,
    np.zeros_like, np.ones_like, np.empty_like,
):  # fmt: skip
    _of_stand_ins(_function)


@adapt(np.full_like)
def _full_like(a: Any, fill_value: Any, dtype: Any = None) -> Any:
    if isinstance(fill_value, Value):
        raise UnsupportedError(_FILL)
    return np.full_like(_stand_in(a), fill_value, dtype)


# -- of values, while there are any ----------------------------------------------------------------


def _of_values(function: Callable[..., Any]) -> None:
    """The shape of the answer depends on values, which a trace doesn't have."""

    def data(x: Any) -> Any:
        if not isinstance(x, Value):
            return x
        if getattr(x.data, "abstract", False):
            raise AbstractError(
                f"what np.{function.__name__} gives depends on values, and only shapes and dtypes "
                "are known while tracing; use np.where to choose by values, or run with real data"
            )
        return x.data

    def answer(*args: Any, **kwargs: Any) -> Any:
        return function(
            *(tree.rebuild(a, data) for a in args), **{k: data(v) for k, v in kwargs.items()}
        )

    ADAPTERS[function] = answer


for _asked in (
    np.nonzero, np.flatnonzero, np.argwhere, np.searchsorted, np.digitize, np.bincount,
    np.array2string, np.array_repr, np.array_str,
):  # fmt: skip
    _of_values(_asked)


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


def _refuse(function: Callable[..., Any]) -> None:
    def refusal(*args: Any, **kwargs: Any) -> Any:
        raise MutationError(
            f"np.{function.__name__} writes into an array, which Values don't allow, since a "
            "backward may need what was there; use np.where, np.concatenate or np.stack"
        )

    ADAPTERS[function] = refusal


for _writer in (np.put, np.place, np.putmask, np.put_along_axis, np.fill_diagonal):
    _refuse(_writer)
