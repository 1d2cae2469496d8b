"""Products of matrices and vectors. A multiply-add is 2 FLOPs."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ckpt.errors import UnsupportedError
from ckpt.tape.core.abstract import AbstractArray, fresh
from ckpt.tape.core.dispatch import operand
from ckpt.tape.core.op import Op, adapt, op
from ckpt.tape.core.rules import shape_of
from ckpt.tape.ops.linear.einsum import contract, tensordot
from ckpt.tape.ops.linear.scratch import held
from ckpt.tape.ops.linear.stacks import lanes_of_stack
from ckpt.tape.ops.pointwise.complex_numbers import conjugate


def _infer_matmul(x: Any, w: Any) -> AbstractArray:
    xs, ws = shape_of(x), shape_of(w)
    if not xs or not ws:
        raise ValueError("matmul: a scalar operand is not allowed; use * instead")
    columns = ws[-1:] if len(ws) > 1 else ()
    if xs[-1] != ws[-2 if len(ws) > 1 else 0]:
        raise ValueError(f"matmul: shapes {xs} and {ws} don't match")
    shape = (*np.broadcast_shapes(xs[:-2], ws[:-2]), *xs[-2:-1], *columns)
    return fresh(np.matmul, shape, x, w)


def _matmul_flops(out: Any, x: Any, w: Any) -> int:
    return 2 * int(out.size) * int(x.shape[-1])


def _matmul_casts(out: Any, x: Any, w: Any) -> int:
    """NumPy casts whole operands; transposed and strided ones it takes as they are."""
    return sum(a.size * out.itemsize for a in (x, w) if a.dtype != out.dtype)


def _matmul_copies(out: Any, x: Any, w: Any) -> int:
    """One matrix at a time of those that BLAS can't take: reversed ones, every other column
    (``numpy/_core/src/umath/matmul.c.src``, allocate_buffer)."""
    if out.dtype.char not in "fdFD" or min(x.ndim, w.ndim) < 2:
        return 0
    if min(*x.shape[-2:], *w.shape[-2:]) < 2:
        return 0
    matrices = [a for a in (x, w) if a.dtype == out.dtype and not _fits_blas(a)]
    nbytes = sum(int(prod(a.shape[-2:])) * a.itemsize for a in matrices)
    return int(nbytes * lanes_of_stack(x, w, out))


def _fits_blas(x: Any) -> bool:
    """Does one of the last two axes lie densely, and each row of it apart from the next?"""
    rows, columns = x.shape[-2:]
    by_row, by_column = x.strides[-2:]
    return any(
        inner == x.itemsize and outer % x.itemsize == 0 and outer >= length * x.itemsize
        for inner, outer, length in ((by_column, by_row, columns), (by_row, by_column, rows))
    )


@op(
    np.matmul, infer=_infer_matmul, flops=_matmul_flops, writes=np.matmul,
    **held(_matmul_casts, _matmul_copies),
)  # fmt: skip
def matmul(x: Any, w: Any) -> Any:
    return np.matmul(x, w)


def _matmul_x(g: Any, x_shape: Any, w: Any) -> Any:
    if g.ndim > 1 and w.ndim == 2:
        return np.matmul(g, w.T)
    if len(x_shape) > 1 and len(w.shape) > 1 and g.shape[:-2] == x_shape[:-2]:
        return np.matmul(g, np.swapaxes(w, -1, -2))
    wanted, w_labels, out = _labels(x_shape, w.shape)
    return _adjoint(g, w, out, w_labels, wanted, x_shape)


def _matmul_w(g: Any, x: Any, w_shape: Any) -> Any:
    if g.ndim == 2 and x.ndim == 2:
        return np.matmul(x.T, g)
    if len(x.shape) > 1 and len(w_shape) > 1 and g.shape[:-2] == w_shape[:-2]:
        return np.matmul(np.swapaxes(x, -1, -2), g)
    x_labels, wanted, out = _labels(x.shape, w_shape)
    return _adjoint(g, x, out, x_labels, wanted, w_shape)


def _labels(x_shape: Any, w_shape: Any) -> tuple[Any, Any, Any]:
    """Labels for the axes of x, of w and of their product."""
    ndim = max(len(x_shape), len(w_shape)) - 2
    batch = tuple(range(ndim))
    x = (*batch[ndim - max(len(x_shape) - 2, 0) :], *"ik"[-len(x_shape) :])
    w = (*batch[ndim - max(len(w_shape) - 2, 0) :], *"kj"[: len(w_shape)])
    return x, w, (*batch, *"i"[: len(x_shape) - 1], *"j"[: len(w_shape) - 1])


def _adjoint(g: Any, y: Any, out: Any, y_labels: Any, wanted: Any, shape: Any) -> Any:
    """Contract ``g`` with the other operand, and over the axes along which this one was broadcast.

    In one product: a stack of matrices to sum afterwards would be as many times larger.
    """
    lengths = dict(zip(wanted, shape, strict=True))
    kept = tuple(n for n in wanted if n not in out or lengths[n] == g.shape[out.index(n)])
    short = tuple(
        k for k, n in enumerate(y_labels) if n in out and y.shape[k] != g.shape[out.index(n)]
    )
    if short:
        y = np.squeeze(y, axis=short)
        y_labels = tuple(n for k, n in enumerate(y_labels) if k not in short)
    alone = tuple(k for k, n in enumerate(out) if n not in kept and n not in y_labels)
    if alone:
        g = np.sum(g, axis=alone)
        out = tuple(n for k, n in enumerate(out) if k not in alone)
    made = contract(g, y, out, y_labels, kept)
    return made if kept == wanted else np.reshape(made, shape)


matmul.forward = np.matmul  # the ufunc itself: one call less a product
matmul.vjp(x=_matmul_x, w=_matmul_w)


# -- with vectors ----------------------------------------------------------------------------------
# NumPy adds up the terms of each of these in an order of its own: a matmul of matrices of one row
# or column has other last bits.


def _with_vectors(function: np.ufunc, x_axes: int, y_axes: int) -> Op:
    """The op of a product of arrays whose last one or two axes are those of a vector or matrix."""

    def infer(x: Any, y: Any) -> AbstractArray:
        xs, ys = shape_of(x), shape_of(y)
        if len(xs) < x_axes or len(ys) < y_axes:
            raise ValueError(f"{function.__name__}: {xs} or {ys} has too few axes")
        if xs[-1] != ys[-y_axes]:
            raise ValueError(f"{function.__name__}: shapes {xs} and {ys} don't match")
        stack = np.broadcast_shapes(xs[: len(xs) - x_axes], ys[: len(ys) - y_axes])
        return fresh(function, (*stack, *xs[-x_axes:-1], *ys[len(ys) - y_axes + 1 :]), x, y)

    declare = op(
        function, infer=infer, flops=_matmul_flops, workspace=_matmul_casts, writes=function
    )
    return declare(function)  # type: ignore[no-any-return]


def _row(x: Any) -> Any:
    return np.expand_dims(x, -2)


def _column(x: Any) -> Any:
    return np.expand_dims(x, -1)


_with_vectors(np.matvec, 2, 1).vjp(
    x=lambda g, x_shape, y: _matmul_x(_column(g), x_shape, _column(y)),
    y=lambda g, x, y_shape: np.reshape(_matmul_w(_column(g), x, (*y_shape, 1)), y_shape),
)
_with_vectors(np.vecmat, 1, 2).vjp(
    x=lambda g, x_shape, y: conjugate(
        np.reshape(_matmul_x(_row(g), (*x_shape[:-1], 1, x_shape[-1]), y), x_shape)
    ),
    y=lambda g, x, y_shape: _matmul_w(_row(g), conjugate(_row(x)), y_shape),
)
_vecdot = _with_vectors(np.vecdot, 1, 1).vjp(
    x=lambda g, x_shape, y: conjugate(
        np.reshape(
            _matmul_x(_row(_column(g)), (*x_shape[:-1], 1, x_shape[-1]), _column(y)), x_shape
        )
    ),
    y=lambda g, x, y_shape: np.reshape(
        _matmul_w(_row(_column(g)), conjugate(_row(x)), (*y_shape, 1)), y_shape
    ),
)


@adapt(np.dot)
def dot(a: Any, b: Any) -> Any:
    a, b = operand(a), operand(b)
    if not np.ndim(a) or not np.ndim(b):
        return np.multiply(a, b)
    if np.ndim(b) <= 2:
        return np.matmul(a, b)
    return tensordot(a, b, axes=(-1, -2))


@adapt(np.inner)
def inner(a: Any, b: Any) -> Any:
    a, b = operand(a), operand(b)
    if not np.ndim(a) or not np.ndim(b):
        return np.multiply(a, b)
    return tensordot(a, b, axes=(-1, -1))


adapt(np.linalg.matmul)(lambda x1, x2, /: np.matmul(operand(x1), operand(x2)))
adapt(np.vdot)(
    lambda a, b: np.matmul(conjugate(np.reshape(operand(a), -1)), np.reshape(operand(b), -1))
)
adapt(np.outer)(lambda a, b: np.reshape(operand(a), (-1, 1)) * np.reshape(operand(b), (1, -1)))


@adapt(np.linalg.outer)
def _outer(x1: Any, x2: Any, /) -> Any:
    if np.ndim(x1) != 1 or np.ndim(x2) != 1:
        raise ValueError("linalg.outer: both operands must have one axis; np.outer flattens them")
    return np.reshape(operand(x1), (-1, 1)) * np.reshape(operand(x2), (1, -1))


@adapt(np.vecdot, np.linalg.vecdot)
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    return _vecdot(np.moveaxis(operand(x1), axis, -1), np.moveaxis(operand(x2), axis, -1))


@adapt(np.kron)
def kron(a: Any, b: Any) -> Any:
    """All products, the axes of a and b interleaved and then merged."""
    a, b = operand(a), operand(b)
    ndim = max(np.ndim(a), np.ndim(b))
    a_shape = (1,) * (ndim - np.ndim(a)) + np.shape(a)
    b_shape = (1,) * (ndim - np.ndim(b)) + np.shape(b)
    left = np.reshape(a, tuple(n for length in a_shape for n in (length, 1)))
    right = np.reshape(b, tuple(n for length in b_shape for n in (1, length)))
    return np.reshape(left * right, tuple(m * n for m, n in zip(a_shape, b_shape, strict=True)))


@op(name="cross")
def _cross(x: Any, y: Any) -> Any:
    """The cross product of 3-vectors along the last axis."""
    x1, x2 = np.roll(x, -1, axis=-1), np.roll(x, -2, axis=-1)
    y1, y2 = np.roll(y, -1, axis=-1), np.roll(y, -2, axis=-1)
    return x1 * y2 - x2 * y1


_cross.vjp(x=lambda g, y: _cross.forward(y, g), y=lambda g, x: _cross.forward(g, x))


@adapt(np.cross)
def cross(
    a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None
) -> Any:
    if axis is not None:
        axisa = axisb = axisc = axis
    x, y = np.moveaxis(operand(a), axisa, -1), np.moveaxis(operand(b), axisb, -1)
    lengths = (np.shape(x)[-1], np.shape(y)[-1])
    if not {2, 3}.issuperset(lengths):
        raise ValueError(f"cross: the vectors must have 2 or 3 components, not {lengths}")
    if lengths == (2, 2):
        return x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]
    return np.moveaxis(_cross(_in_space(x), _in_space(y)), -1, axisc)


def _in_space(x: Any) -> Any:
    """A plane vector with a third component, zero."""
    if np.shape(x)[-1] == 3:
        return x
    return np.concatenate((x, np.zeros((*np.shape(x)[:-1], 1), x.dtype)), axis=-1)


@adapt(np.linalg.cross)
def _linalg_cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    if np.shape(x1)[axis] != 3 or np.shape(x2)[axis] != 3:
        raise ValueError("linalg.cross: the vectors must have 3 components")
    return cross(x1, x2, axis=axis)


@adapt(np.linalg.matrix_power)
def matrix_power(a: Any, n: int) -> Any:
    """By repeated squaring, the third power as NumPy has it; a negative one is of the inverse."""
    if n != int(n):
        raise UnsupportedError(f"matrix_power: the exponent must be an integer, not {n!r}")
    if n == 0:
        return np.broadcast_to(np.eye(a.shape[-1], dtype=a.dtype), a.shape) + 0 * a
    if n < 0:
        a, n = np.linalg.inv(a), -n
    if n == 3:
        return np.matmul(np.matmul(a, a), a)
    result = None
    while n:
        n, odd = divmod(n, 2)
        if odd:
            result = a if result is None else np.matmul(result, a)
        if n:
            a = np.matmul(a, a)
    return result


@adapt(np.linalg.multi_dot)
def multi_dot(arrays: Any) -> Any:
    """In the order that needs the fewest multiplications (Cormen et al., section 15.2)."""
    terms = [operand(a) for a in arrays]
    if len(terms) < 2:
        raise ValueError("multi_dot: at least two arrays are needed")
    row, column = np.ndim(terms[0]) == 1, np.ndim(terms[-1]) == 1
    if row:
        terms[0] = np.expand_dims(terms[0], 0)
    if column:
        terms[-1] = np.expand_dims(terms[-1], 1)
    out = _chain(terms, [np.shape(t)[0] for t in terms] + [np.shape(terms[-1])[1]])
    if row:
        out = out[0]
    return out[..., 0] if column else out


def _chain(terms: list[Any], sides: list[int]) -> Any:
    count = len(terms)
    best: dict[tuple[int, int], tuple[int, int]] = {(i, i + 1): (0, i) for i in range(count)}
    for span in range(2, count + 1):
        for i in range(count - span + 1):
            j = i + span
            best[i, j] = min(
                (best[i, k][0] + best[k, j][0] + sides[i] * sides[k] * sides[j], k)
                for k in range(i + 1, j)
            )

    def product(i: int, j: int) -> Any:
        k = best[i, j][1]
        return terms[i] if j == i + 1 else np.matmul(product(i, k), product(k, j))

    return product(0, count)
