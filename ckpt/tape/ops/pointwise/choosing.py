"""Choosing between elements. Moving data costs no FLOPs, a comparison one an element."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np

from ckpt.errors import UnsupportedError
from ckpt.tape.core.abstract import elementwise
from ckpt.tape.core.dispatch import operand
from ckpt.tape.core.op import adapt, op
from ckpt.tape.core.value import Value
from ckpt.tape.ops.pointwise.arithmetic import size, ufunc
from ckpt.tape.ops.pointwise.buffers import buffer, buffers


def _where_buffers(out: Any, condition: Any, x: Any, y: Any) -> int:
    taken_as = (condition, np.dtype(bool)), (x, out.dtype), (y, out.dtype)
    return sum(buffer(out, a, dtype) for a, dtype in taken_as if hasattr(a, "shape"))


@op(infer=elementwise(np.where), workspace=_where_buffers)
def where(condition: Any, x: Any, y: Any) -> Any:
    return np.where(condition, x, y)


where.vjp(
    condition=None,
    x=lambda g, condition: np.where(condition, g, 0),
    y=lambda g, condition: np.where(condition, 0, g),
)


@adapt(np.where)
def _where(condition: Any, *branches: Any) -> Any:
    if not branches:
        return np.nonzero(condition)
    return where(operand(condition), *map(operand, branches))


def _to_winner(loses: np.ufunc) -> dict[str, Callable[..., Any]]:
    """To the winner; half where they are equal, and to both where one is NaN, as in PyTorch."""

    def share(g: Any, x: Any, y: Any) -> Any:
        return np.where(np.equal(x, y), 0.5 * g, np.where(loses(x, y), 0, g))

    return {"x": lambda g, x, y: share(g, x, y), "y": lambda g, x, y: share(g, y, x)}


def _to_number(wins: np.ufunc) -> dict[str, Callable[..., Any]]:
    """To the winner, the first where they are equal, and to what isn't NaN, as in PyTorch."""
    return {
        "x": lambda g, x, y: np.where(wins(x, y) | np.isnan(y), g, 0),
        "y": lambda g, x, y: np.where(wins(x, y) | np.isnan(y), 0, g),
    }


ufunc(np.maximum).vjp(**_to_winner(np.less))
ufunc(np.minimum).vjp(**_to_winner(np.greater))
ufunc(np.fmax).vjp(**_to_number(np.greater_equal))
ufunc(np.fmin).vjp(**_to_number(np.less_equal))


@op(infer=elementwise(np.clip), flops=size, workspace=buffers)
def clip(x: Any, low: Any, high: Any) -> Any:
    return np.clip(x, low, high)


clip.vjp(  # at a bound to x, as in PyTorch
    x=lambda g, x, low, high: np.where(np.greater_equal(x, low) & np.less_equal(x, high), g, 0),
    low=lambda g, x, low, high: np.where(np.less(x, low) & np.less(low, high), g, 0),
    high=lambda g, x, low, high: np.where(np.greater(x, high) | np.less(high, low), g, 0),
)


@adapt(np.clip)
def _clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:  # noqa: A002
    # An infinity is a weak Python float; what it can't reach costs nothing.
    low, high = (
        next((operand(v) for v in given if v is not None and v is not np._NoValue), limit)
        for *given, limit in ((a_min, min, -inf), (a_max, max, inf))
    )
    return clip(operand(a), low, high)


@adapt(np.nan_to_num)
def _nan_to_num(
    x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None
) -> Any:
    """No gradient flows to what is replaced."""
    if not copy:
        raise UnsupportedError("np.nan_to_num of a Value can't work in place; drop copy=False")
    if x.dtype.kind == "c":
        given = {"nan": nan, "posinf": posinf, "neginf": neginf}
        return np.nan_to_num(np.real(x), **given) + 1j * np.nan_to_num(np.imag(x), **given)
    limits = np.finfo(x.dtype)
    y = np.where(np.isnan(x), nan, x)
    y = np.where(np.equal(x, np.inf), float(limits.max) if posinf is None else posinf, y)
    return np.where(np.equal(x, -np.inf), float(limits.min) if neginf is None else neginf, y)


@adapt(np.select)
def _select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    if len(condlist) != len(choicelist):
        raise ValueError("np.select: list of cases must be same length as list of conditions")
    result = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        result = np.where(condition, choice, result)
    return result


@adapt(np.choose)
def _choose(a: Any, choices: Any, mode: str = "raise") -> Any:
    """Where ``a`` is k, the k-th choice."""
    if mode not in ("raise", "wrap", "clip"):
        raise ValueError(f"np.choose: mode is raise, wrap or clip, not {mode!r}")
    count = len(choices)
    index = a.data if isinstance(a, Value) else np.asarray(a)
    is_real = isinstance(index, (np.ndarray, np.generic))
    if mode == "raise" and is_real and ((index < 0) | (index >= count)).any():
        raise ValueError(f"np.choose: an index is out of range of the {count} choices")
    wrapped = np.remainder(a, count) if mode == "wrap" else np.clip(a, 0, count - 1)
    result = choices[-1]
    for k in range(count - 2, -1, -1):
        result = np.where(np.equal(wrapped, k), choices[k], result)
    return result
