"""Norms of vectors and matrices, of every order that NumPy knows, and condition numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ckpt.errors import UnsupportedError
from ckpt.tape.core.dispatch import operand
from ckpt.tape.core.op import adapt, op
from ckpt.tape.ops.linear.linalg import real_of
from ckpt.tape.ops.pointwise.complex_numbers import conjugate
from ckpt.tape.ops.reducing.reductions import axes_of, reduced


@op(name="norm")
def power_norm(x: Any, *, ord: float = 2, axis: Any = None, keepdims: bool = False) -> Any:  # noqa: A002
    """``sum(|x| ** ord) ** (1 / ord)`` over the axes."""
    if ord == 2:
        squares = np.square(x) if x.dtype.kind != "c" else np.square(x.real) + np.square(x.imag)
        return np.sqrt(np.sum(squares, axis=axis, keepdims=keepdims))
    return np.power(np.sum(np.power(np.abs(x), ord), axis=axis, keepdims=keepdims), 1 / ord)


def _power_norm(g: Any, out: Any, x: Any, ord: float, axis: Any) -> Any:  # noqa: A002
    """Of a vector of zeros 0, and of a zero whose power has no slope, as in PyTorch."""
    if x.dtype == np.float16:  # whose powers overflow from 256 on
        g, x = np.astype(g, np.float32), np.astype(x, np.float32)
        out = np.reshape(power_norm(x, ord=ord, axis=axis), out.shape)
        return np.astype(_power_norm(g, out, x, ord, axis), np.float16)
    shape = reduced(x.shape, axis, True)
    length = np.reshape(np.where(np.equal(out, 0), np.inf, out), shape)
    if ord == 2:
        return np.reshape(g, shape) / length * conjugate(x)
    share = np.abs(x) / length  # of which powers neither overflow nor underflow
    share = np.power(np.where(np.equal(x, 0), 1, share), ord - 1)
    return np.reshape(g, shape) * (conjugate(np.sign(x)) * share)


power_norm.vjp(x=_power_norm)


@adapt(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:  # noqa: A002
    x = operand(x)
    if axis is None and ord is not None and np.ndim(x) not in (1, 2):
        raise ValueError("norm: with ord and without axis, the array must have 1 or 2 axes")
    axes = axes_of(axis, np.ndim(x))
    if ord is None or (ord, len(axes)) in (("fro", 2), (2, 1)):
        return power_norm(x, axis=axes, keepdims=keepdims)
    if len(axes) == 2:
        return _matrix_norm(x, ord, axes, keepdims)
    if len(axes) != 1 or isinstance(ord, str):
        raise ValueError(f"norm: no norm of order {ord!r} over the axes {axes}")
    if abs(ord) == np.inf:
        return _extreme(np.abs(x), ord, axes, keepdims)
    if ord == 0:
        return np.sum(np.astype(np.not_equal(x, 0), real_of(x.dtype)), axis=axes, keepdims=keepdims)
    if ord == 1:
        return np.sum(np.abs(x), axis=axes, keepdims=keepdims)
    return power_norm(x, ord=float(ord), axis=axes, keepdims=keepdims)


def _extreme(lengths: Any, ord: Any, axes: Any, keepdims: bool = False) -> Any:  # noqa: A002
    """The greatest of some lengths, of none 0; for a negative order the least."""
    empty = not math.prod(lengths.shape[k] for k in axes)
    function = np.min if ord < 0 else np.sum if empty else np.max
    return function(lengths, axis=axes, keepdims=keepdims)


def _matrix_norm(x: Any, ord: Any, axes: tuple[int, ...], keepdims: bool) -> Any:  # noqa: A002
    """The largest, smallest or summed singular value, column sum or row sum."""
    row, column = axes
    if ord in ("nuc", 2, -2):
        values = np.linalg.svd(np.moveaxis(x, axes, (-2, -1)), compute_uv=False)
        made = np.sum(values, axis=-1) if ord == "nuc" else _extreme(values, ord, (-1,))
    elif ord in (1, -1, np.inf, -np.inf):
        inner = column if abs(ord) == np.inf else row
        sums = np.sum(np.abs(x), axis=inner, keepdims=True)
        made = np.squeeze(_extreme(sums, ord, axes, True), axis=axes)
    else:
        raise ValueError(f"norm: no matrix norm of order {ord!r}")
    return np.reshape(made, reduced(x.shape, axes, True)) if keepdims else made


@adapt(np.linalg.matrix_norm)
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:  # noqa: A002
    return norm(x, ord, (-2, -1), keepdims)


@adapt(np.linalg.vector_norm)
def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:  # noqa: A002
    axes = axes_of(axis, np.ndim(x))
    if len(axes) == 1:
        return norm(x, ord, axes, keepdims)
    moved = np.moveaxis(operand(x), axes, range(-len(axes), 0))
    made = norm(np.reshape(moved, (*moved.shape[: -len(axes)], -1)), ord, -1)
    return np.reshape(made, reduced(np.shape(x), axes, True)) if keepdims else made


@adapt(np.linalg.cond)
def cond(x: Any, p: Any = None) -> Any:
    if p is None or p in (2, -2):
        s = np.linalg.svd(operand(x), compute_uv=False)
        above, below = (s[..., 0], s[..., -1]) if p != -2 else (s[..., -1], s[..., 0])
        null = np.equal(s[..., 0], 0)
        return np.where(null, np.inf, above / np.where(null, 1, below))
    return norm(x, p, (-2, -1)) * norm(np.linalg.inv(x), p, (-2, -1))


@adapt(np.linalg.lstsq, np.linalg.matrix_rank)
def _no_rule(*args: Any, **kwargs: Any) -> Any:
    raise UnsupportedError(
        "np.linalg.lstsq and matrix_rank have no rule: their rank depends on the values. Use "
        "np.linalg.pinv(a) @ b, or solve the normal equations with np.linalg.solve"
    )
