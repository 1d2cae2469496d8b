"""Convolutions in one and two dimensions over NCHW arrays, and transposed ones.

The gradients with respect to input and weight are ops of their own, over the same blocks (see
`ckpt.nn.convolution_plan`); each of the three is a rule of the others, so gradients of any order
follow. FLOPs are those of the mathematics: 2 an output element, input channel of its group and tap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.errors import UsageError
from ckpt.nn.blocks import copied_nbytes, float_dtype, strided_nbytes
from ckpt.nn.convolution_plan import Convolution
from ckpt.nn.convolution_plan import plan as make_plan
from ckpt.nn.geometry import Pair, pair
from ckpt.tape.core.abstract import AbstractArray
from ckpt.tape.core.op import op

# -- workspace: temporaries, each allocated once and used by all blocks ----------------------------


def _reordered(plan: Convolution, w: Any) -> int:
    """Elements of the copy by kernel rows: a kernel of one tap is in that order already."""
    return int(w.size) if plan.windows.kernel != (1, 1) or copied_nbytes(w) else 0


def _convolved_nbytes(out: Any, plan: Convolution, reordered: int) -> int:
    products = (not plan.in_place) + (plan.windows.kernel[0] > 1)
    return int(out.itemsize * (plan.rows_size + products * plan.block_size + reordered))


def _incoming_size(plan: Convolution, dy: Any, dtype: Any) -> int:
    return plan.block_size if plan.copies_incoming(dy, dtype) else 0


def _workspace_x(out: Any, dy: Any, w: Any, *, plan: Convolution) -> int:
    if flipped := plan.flipped:
        return _convolved_nbytes(out, flipped, int(w.size))
    scattered = strided_nbytes(plan.row_size // plan.windows.kernel[1], 3)
    size = plan.rows_size + plan.row_size + _reordered(plan, w) + scattered
    return int(out.itemsize * (size + _incoming_size(plan, dy, out.dtype)))


def _workspace_w(out: Any, dy: Any, x: Any, *, plan: Convolution) -> int:
    product = out.size // plan.windows.kernel[0]
    size = plan.rows_size + _reordered(plan, out) + product
    return int(out.itemsize * (size + _incoming_size(plan, dy, out.dtype)))


# -- a convolution, and what its cotangent gives for x and for w -----------------------------------


def _by_kernel_row(w: Any, plan: Convolution, dtype: Any) -> Any:
    """The weight as (kernel row, group, output channel, kernel column and input channel)."""
    rows, columns = plan.windows.kernel
    parts = w.reshape(plan.g, plan.o, plan.c, rows, columns).transpose(3, 0, 1, 4, 2)
    return np.ascontiguousarray(parts, dtype).reshape(rows, plan.g, plan.o, -1)


def _flipped(w: Any, plan: Convolution, dtype: Any) -> Any:
    """The same with both axes of the kernel reversed, and input and output channels exchanged."""
    rows, columns = plan.windows.kernel
    parts = w.reshape(plan.g, plan.o, plan.c, rows, columns)[..., ::-1, ::-1]
    return np.array(parts.transpose(3, 0, 2, 4, 1), dtype, order="C").reshape(
        rows, plan.g, plan.c, -1
    )


def _convolved(x: Any, weights: Any, b: Any, plan: Convolution) -> Any:
    """x by ``weights``, which lie by kernel rows and have the result's dtype."""
    out = np.empty(plan.out_shape, weights.dtype)
    rows_of = np.empty(plan.rows_size, out.dtype)
    total = np.empty(0 if plan.in_place else plan.block_size, out.dtype)
    product = np.empty(plan.block_size if len(weights) > 1 else 0, out.dtype)
    for block in plan.blocks():
        rows = plan.gather(x, block, rows_of)
        target = plan.output(out, block)
        shape = (plan.g, plan.o, target[0, 0].size)
        a = target.reshape(shape) if plan.in_place else total[: target.size].reshape(shape)
        np.matmul(weights[0], plan.matrix(rows, 0, block), out=a)
        for i in range(1, len(weights)):
            further = product[: target.size].reshape(shape)
            a += np.matmul(weights[i], plan.matrix(rows, i, block), out=further)
        if not isinstance(b, float):
            a += b.reshape(plan.g, plan.o, 1)
        if not plan.in_place:
            target[...] = a.reshape(target.shape)
    return out


@op(
    infer=lambda x, w, b, *, plan: AbstractArray(plan.out_shape, float_dtype(x, w)),
    flops=lambda out, x, w, b, *, plan: plan.flops + (0 if isinstance(b, float) else out.size),
    workspace=lambda out, x, w, b, *, plan: _convolved_nbytes(out, plan, _reordered(plan, w)),
)
def convolution(x: Any, w: Any, b: Any, *, plan: Convolution) -> Any:
    """x (n, g·c, …) by w (g·o, c, …) plus b, which is (g·o, 1, 1) or the float 0."""
    return _convolved(x, _by_kernel_row(w, plan, float_dtype(x, w)), b, plan)


@op(
    infer=lambda dy, w, *, plan: AbstractArray(plan.x_shape, float_dtype(dy, w)),
    flops=lambda *_, plan: plan.flops,
    workspace=_workspace_x,
)
def convolution_x(dy: Any, w: Any, *, plan: Convolution) -> Any:
    """What the cotangent dy of a convolution gives for x."""
    dtype = float_dtype(dy, w)
    if flipped := plan.flipped:
        return _convolved(dy, _flipped(w, plan, dtype), 0.0, flipped)
    out = np.zeros(plan.x_shape, dtype)
    weights = np.swapaxes(_by_kernel_row(w, plan, dtype), -1, -2)
    buffer, incoming, product = (
        np.empty(n, dtype) for n in (plan.rows_size, _incoming_size(plan, dy, dtype), plan.row_size)
    )
    for block in plan.blocks():
        g = plan.incoming(dy, block, incoming)
        rows = plan.empty_rows(block, buffer)
        rows[...] = 0
        for i in range(len(weights)):
            target = plan.matrix(rows, i, block)
            further = product[: target.size].reshape(target.shape)
            target += np.matmul(weights[i], g, out=further)
        plan.scatter(rows, block, out)
    return out


@op(
    infer=lambda dy, x, *, plan: AbstractArray(plan.w_shape, float_dtype(dy, x)),
    flops=lambda *_, plan: plan.flops,
    workspace=_workspace_w,
)
def convolution_w(dy: Any, x: Any, *, plan: Convolution) -> Any:
    """What the cotangent dy of a convolution gives for w."""
    height, width = plan.windows.kernel
    dtype = float_dtype(dy, x)
    turned = width * plan.c >= plan.o  # BLAS is quicker with the longer side first
    sides = (width * plan.c, plan.o) if turned else (plan.o, width * plan.c)
    sums = np.zeros((height, plan.g, *sides), dtype)
    product = np.empty(sums.shape[1:], dtype)
    buffer = np.empty(plan.rows_size, dtype)
    incoming = np.empty(_incoming_size(plan, dy, dtype), dtype)
    for block in plan.blocks():
        g = plan.incoming(dy, block, incoming)
        rows = plan.gather(x, block, buffer)
        for i in range(height):
            across = plan.matrix(rows, i, block)
            first, second = (across, g) if turned else (g, across)
            sums[i] += np.matmul(first, np.swapaxes(second, -1, -2), out=product)
    if turned:
        sums = np.swapaxes(sums, -1, -2)
    parts = sums.reshape(height, plan.g, plan.o, width, plan.c).transpose(1, 2, 4, 0, 3)
    return np.ascontiguousarray(parts).reshape(plan.w_shape)


convolution.vjp(
    x=lambda g, w, plan: convolution_x(g, w, plan=plan),
    w=lambda g, x, plan: convolution_w(g, x, plan=plan),
    b=lambda g: g,
)
convolution_x.vjp(
    dy=lambda g, w, plan: convolution(g, w, 0.0, plan=plan),
    w=lambda g, dy, plan: convolution_w(dy, g, plan=plan),
)
convolution_w.vjp(
    dy=lambda g, x, plan: convolution(x, g, 0.0, plan=plan),
    x=lambda g, dy, plan: convolution_x(dy, g, plan=plan),
)

# -- what a model calls ----------------------------------------------------------------------------


def conv2d(
    x: Any,
    w: Any,
    bias: Any = None,
    *,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Any:
    """Cross-correlate images (N, C, H, W) with kernels (O, C / groups, kh, kw); bias is (O,).

    As in PyTorch: the result is (N, O, (H + 2 padding - dilation (kh - 1) - 1) // stride + 1, …),
    and beyond the border are zeros. Raises UsageError where shapes or options don't fit.
    """
    if x.ndim != 4 or w.ndim != 4:
        raise UsageError(
            "conv2d takes images (N, C, H, W) and kernels (O, C, kh, kw), "
            f"not {x.shape} and {w.shape}"
        )
    plan = make_plan(x.shape, w.shape, *_checked(stride, padding, dilation, groups))
    return convolution(x, w, 0.0 if bias is None else np.reshape(bias, (-1, 1, 1)), plan=plan)


def conv1d(
    x: Any,
    w: Any,
    bias: Any = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Any:
    """Cross-correlate signals (N, C, L) with kernels (O, C / groups, k); bias is (O,)."""
    if x.ndim != 3 or w.ndim != 3:
        raise UsageError(
            f"conv1d takes signals (N, C, L) and kernels (O, C, k), not {x.shape} and {w.shape}"
        )
    out = conv2d(
        np.expand_dims(x, 2), np.expand_dims(w, 2), bias,
        stride=(1, stride), padding=(0, padding), dilation=(1, dilation), groups=groups,
    )  # fmt: skip
    return np.squeeze(out, 2)


def conv_transpose2d(
    x: Any,
    w: Any,
    bias: Any = None,
    *,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    output_padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Any:
    """The transpose of `conv2d`: x (N, O, H, W), w (O, C / groups, kh, kw), result (N, C, …)."""
    if x.ndim != 4 or w.ndim != 4:
        raise UsageError(
            f"conv_transpose2d takes (N, O, H, W) and (O, C, kh, kw), not {x.shape} and {w.shape}"
        )
    options = _checked(stride, padding, dilation, groups)
    extra = pair(output_padding, "output_padding", 0)
    size = [
        (n - 1) * s - 2 * p + d * (k - 1) + 1 + e
        for n, k, s, p, d, e in zip(x.shape[2:], w.shape[2:], *options[:3], extra, strict=True)
    ]
    shape = (x.shape[0], w.shape[1] * groups, *size)
    plan = make_plan(shape, w.shape, *options)
    if plan.out_shape != x.shape:
        raise UsageError(f"conv_transpose2d: {x.shape} is no convolution of {shape} by {w.shape}")
    out = convolution_x(x, w, plan=plan)
    return out if bias is None else out + np.reshape(bias, (-1, 1, 1))


def _checked(stride: Any, padding: Any, dilation: Any, groups: int) -> tuple[Pair, Pair, Pair, int]:
    if groups < 1:
        raise UsageError(f"groups must be at least 1, not {groups}")
    strides, paddings = pair(stride, "stride", 1), pair(padding, "padding", 0)
    return strides, paddings, pair(dilation, "dilation", 1), groups
