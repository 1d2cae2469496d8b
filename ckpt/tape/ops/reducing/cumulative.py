"""Along an axis: running sums, differences, grids."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.errors import UnsupportedError
from ckpt.tape.core.abstract import AbstractArray, fresh
from ckpt.tape.core.dispatch import operand
from ckpt.tape.core.op import Op, adapt, op
from ckpt.tape.ops.pointwise.buffers import buffers
from ckpt.tape.ops.reducing.reductions import along, axes_of, every, same_shape

# -- running sums and products ---------------------------------------------------------------------


def _running(function: Any, accumulate: Any) -> Op:
    """The op along one axis, and what the NumPy function does without one: all elements, flat."""

    @op(name=function.__name__, infer=same_shape(function), flops=every)
    def running(x: Any, *, axis: int = 0) -> Any:
        return function(x, axis=axis)

    @adapt(function)
    def flat_or_along(a: Any, axis: int | None = None, dtype: Any = None) -> Any:
        a = operand(a) if dtype is None else np.astype(operand(a), dtype)
        a, axis = along(a, axis, number=True)
        return running(a, axis=axis)

    adapt(accumulate)(lambda array, axis=0, dtype=None: function(array, axis, dtype))
    return running  # type: ignore[no-any-return]


def _sum_from_the_end(x: Any, axis: int) -> Any:
    return np.flip(np.cumsum(np.flip(x, axis), axis=axis), axis)


_running(np.cumsum, np.add.accumulate).vjp(x=lambda g, axis: _sum_from_the_end(g, axis))


@op(
    infer=lambda a, x, *, axis: AbstractArray(a.shape, np.result_type(a.dtype, x.dtype)),
    flops=lambda out, a, x, *, axis: 2 * out.size,
    workspace=lambda out, a, x, *, axis: out.nbytes // max(out.shape[axis], 1),
)
def recurrence(a: Any, x: Any, *, axis: int) -> Any:
    """Along an axis s[0] = a[0], s[i] = a[i] + x[i] s[i - 1]: right whatever x is, zeros too."""
    made = np.array(a, np.result_type(a, x), order="C")
    s, x = np.moveaxis(made, axis, 0), np.moveaxis(x, axis, 0)
    for i in range(1, len(s)):
        s[i] += x[i] * s[i - 1]
    return made


def _from_the_end(g: Any, x: Any, axis: int) -> Any:
    """r[i] = g[i] + x[i + 1] r[i + 1]: what a recurrence's cotangent gives for a."""
    back = np.flip(x, axis)
    factors = np.concatenate((_ends(back, axis)[0], _ends(back, axis)[1]), axis=axis)
    return np.flip(recurrence(np.flip(g, axis), factors, axis=axis), axis)


def _ends(x: Any, axis: int) -> tuple[Any, Any]:
    """The first element along an axis, and all but the last."""
    first, others = _along(axis, np.ndim(x), slice(0, 1), slice(None, -1))
    return x[first], x[others]


def _before(s: Any, axis: int, first: float) -> Any:
    """``first``, and then all of s but the last."""
    start, others = _ends(s, axis)
    return np.concatenate((np.full(start.shape, first, s.dtype), others), axis=axis)


def _from_the_end_times(g: Any, out: Any, x: Any, axis: int, first: float) -> Any:
    made = _from_the_end(g, x, axis)
    return _before(out, axis, first) * made


recurrence.vjp(
    a=lambda g, x, axis: _from_the_end(g, x, axis),
    x=lambda g, out, x, axis: _from_the_end_times(g, out, x, axis, 0),
)
_running(np.cumprod, np.multiply.accumulate).vjp(
    x=lambda g, out, x, axis: _from_the_end_times(g, out, x, axis, 1)
)


# -- differences -----------------------------------------------------------------------------------


def _along(axis: int, ndim: int, *indices: Any) -> tuple[Any, ...]:
    """For each of the indices, one that applies it to this axis."""
    before = (slice(None),) * (axis % ndim)
    return tuple((*before, i) for i in indices)


@adapt(np.diff)
def _diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    (axis,) = axes_of(axis, np.ndim(a))
    if n < 0:
        raise ValueError(f"np.diff: order must be non-negative but got {n}")
    one = (*np.shape(a)[:axis], 1, *np.shape(a)[axis + 1 :])
    parts = [
        x if x is a or np.ndim(x) else np.broadcast_to(x, one)
        for x in (prepend, a, append)
        if x is not None and x is not np._NoValue
    ]
    if len(parts) > 1:
        a = np.concatenate(parts, axis=axis)
    later, earlier = _along(axis, np.ndim(a), slice(1, None), slice(None, -1))
    for _ in range(n):
        a = a[later] - a[earlier]
    return a


@adapt(np.ediff1d)
def _ediff1d(ary: Any) -> Any:
    return np.diff(np.ravel(ary))


@adapt(np.gradient)
def _gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """Second-order central differences, as NumPy's; spacings are numbers or coordinates."""
    axes = axes_of(tuple(axis) if isinstance(axis, list) else axis, np.ndim(f))
    if len(varargs) not in (0, 1, len(axes)):
        raise TypeError("np.gradient: give one spacing for all axes, or one for each")
    if edge_order not in (1, 2):
        raise ValueError("np.gradient: edge_order is 1 or 2")
    spacings = varargs if len(varargs) == len(axes) else (varargs or (1.0,)) * len(axes)
    if f.dtype.kind not in "fc":
        f = np.astype(f, np.float64)
    found = [_gradient_along(f, k, h, edge_order) for k, h in zip(axes, spacings, strict=True)]
    return found[0] if len(axes) == 1 else tuple(found)


def _gradient_along(f: Any, axis: int, spacing: Any, edge_order: int) -> Any:
    ndim, length = np.ndim(f), np.shape(f)[axis]
    if length < edge_order + 1:
        raise ValueError(f"np.gradient needs at least {edge_order + 1} elements along axis {axis}")
    if np.ndim(spacing) and np.shape(spacing) != (length,):
        raise ValueError(f"np.gradient: {np.shape(spacing)} coordinates for an axis of {length}")

    def at(start: int | None, stop: int | None) -> Any:
        return f[_along(axis, ndim, slice(start, stop))[0]]

    def weighed(coefficients: Any, points: Any) -> Any:
        a, b, c = (
            np.reshape(x, (-1, *[1] * (ndim - axis - 1))) if np.ndim(x) else x for x in coefficients
        )
        return a * points[0] + b * points[1] + c * points[2]

    if np.ndim(spacing):
        spacing = np.diff(spacing)
        if not isinstance(spacing, np.ndarray):
            raise UnsupportedError("np.gradient: coordinates that are Values have no rule")
        if (spacing == spacing[0]).all():
            spacing = spacing[0]
    if np.ndim(spacing):
        steps = [spacing[k] for k in (0, 1, -2, -1)]
        h, k = spacing[:-1], spacing[1:]
        interior = weighed(
            (-k / (h * (h + k)), (k - h) / (h * k), h / (k * (h + k))),
            (at(None, -2), at(1, -1), at(2, None)),
        )
    else:
        steps = [spacing] * 4
        interior = (at(2, None) - at(None, -2)) / (2.0 * spacing)
    if edge_order == 1:
        start = (at(1, 2) - at(0, 1)) / steps[0]
        stop = (at(length - 1, length) - at(length - 2, length - 1)) / steps[3]
    else:
        first, last = _one_sided(*steps) if np.ndim(spacing) else _one_sided_evenly(spacing)
        start = weighed(first, [at(k, k + 1) for k in range(3)])
        stop = weighed(last, [at(length - k, length - k + 1) for k in (3, 2, 1)])
    parts = (x if x.dtype == f.dtype else np.astype(x, f.dtype) for x in (start, interior, stop))
    return np.concatenate(tuple(parts), axis=axis)


Three = tuple[Any, Any, Any]


def _one_sided_evenly(h: Any) -> tuple[Three, Three]:
    """Weights of the first three points, and of the last three, for the derivative at the end."""
    return (-1.5 / h, 2.0 / h, -0.5 / h), (0.5 / h, -2.0 / h, 1.5 / h)


def _one_sided(h: Any, k: Any, m: Any, n: Any) -> tuple[Three, Three]:
    """The same of points h and k apart, and m and n."""
    return (
        (-(2.0 * h + k) / (h * (h + k)), (h + k) / (h * k), -h / (k * (h + k))),
        (n / (m * (m + n)), -(n + m) / (m * n), (2.0 * n + m) / (n * (m + n))),
    )


@adapt(np.trapezoid)
def _trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    ndim = np.ndim(y)
    axis %= ndim
    later, earlier = _along(axis, ndim, slice(1, None), slice(None, -1))
    if x is not None:
        dx = np.diff(x, axis=-1 if np.ndim(x) == 1 else axis)
        if np.ndim(x) == 1:
            dx = np.reshape(dx, (-1, *[1] * (ndim - axis - 1)))
    return np.sum(dx * (y[later] + y[earlier]), axis=axis) / 2.0


# -- grids -----------------------------------------------------------------------------------------


def _infer_linspace(start: Any, stop: Any, *, num: int, endpoint: bool) -> AbstractArray:
    shape = np.broadcast_shapes(np.shape(start), np.shape(stop))
    return fresh(_grid, (num, *shape), start, stop, num=num, endpoint=endpoint)


def _linspace_workspace(out: Any, start: Any, stop: Any, *, num: int, endpoint: bool) -> int:
    """The steps, the distance between the ends, and buffers for both; none between numbers."""
    if len(out.shape) == 1:
        return 0
    steps = AbstractArray((num, *[1] * (len(out.shape) - 1)), out.dtype)
    row = AbstractArray(out.shape[1:], out.dtype)
    return int(num * 8 + row.nbytes + buffers(out, steps, row))


def _grid(start: Any, stop: Any, num: int, endpoint: bool) -> Any:
    return np.linspace(start, stop, 2, endpoint)


@op(
    infer=_infer_linspace,
    flops=lambda out, *ends, **params: 2 * out.size,
    workspace=_linspace_workspace,
)
def linspace(start: Any, stop: Any, *, num: int = 50, endpoint: bool = True) -> Any:
    return np.linspace(start, stop, num, endpoint)


def _weights(g: Any, num: int, endpoint: bool) -> Any:
    steps = max(num - endpoint, 1)
    share = np.arange(num) * (1 / steps)
    return np.reshape(np.astype(share, g.real.dtype), (num, *[1] * (np.ndim(g) - 1)))


linspace.vjp(
    start=lambda g, num, endpoint: np.sum(g * (1 - _weights(g, num, endpoint)), axis=0),
    stop=lambda g, num, endpoint: np.sum(g * _weights(g, num, endpoint), axis=0),
)


@adapt(np.linspace)
def _linspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, *, axis: int = 0) -> Any:
    made = linspace(operand(start), operand(stop), num=num, endpoint=endpoint)
    return np.moveaxis(made, 0, axis)
