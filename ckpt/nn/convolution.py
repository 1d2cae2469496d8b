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
from ckpt.nn.convolution_plan import Convolution, plan
from ckpt.nn.geometry import Pair, pair
from ckpt.tape.core.abstract import AbstractArray
from ckpt.tape.core.op import op

# Elements of temporaries, each allocated once and used by all blocks.


def _reordered(p: Convolution, w: Any) -> int:
    """Of the copy by kernel rows: a kernel of one tap is in that order already."""
    return int(w.size) if p.windows.kernel != (1, 1) or copied_nbytes(w) else 0


def _workspace(p: Convolution, w: Any) -> int:
    products = 1 + (p.windows.kernel[0] > 1)
    return p.rows_size + products * p.block_size + _reordered(p, w)


def _workspace_x(p: Convolution, w: Any) -> int:
    scattered = p.row_size // p.windows.kernel[1]
    extra = strided_nbytes(scattered, 3)
    return p.rows_size + p.block_size + p.row_size + _reordered(p, w) + extra


def _workspace_w(p: Convolution, w: Any) -> int:
    size = int(w.size)
    return p.rows_size + p.block_size + _reordered(p, w) + size // p.windows.kernel[0]


def _by_kernel_row(w: Any, p: Convolution, dtype: Any) -> Any:
    """The weight as (kernel row, group, output channel, kernel column and input channel)."""
    rows, columns = p.windows.kernel
    parts = w.reshape(p.g, p.o, p.c, rows, columns).transpose(3, 0, 1, 4, 2)
    return np.ascontiguousarray(parts, dtype).reshape(rows, p.g, p.o, -1)


def _infer(x: Any, w: Any, b: Any, **options: Any) -> AbstractArray:
    return AbstractArray(plan(x.shape, w.shape, **options).out_shape, float_dtype(x, w))


@op(
    infer=_infer,
    flops=lambda out, x, w, b, **options: (
        plan(x.shape, w.shape, **options).flops + (0 if isinstance(b, float) else out.size)
    ),
    workspace=lambda out, x, w, b, **options: (
        out.itemsize * _workspace(plan(x.shape, w.shape, **options), w)
    ),
)
def convolution(
    x: Any, w: Any, b: Any, *, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Any:
    """x (n, g·c, …) by w (g·o, c, …) plus b, which is (g·o, 1, 1) or the float 0."""
    p = plan(x.shape, w.shape, stride, padding, dilation, groups)
    out = np.empty(p.out_shape, float_dtype(x, w))
    weights = _by_kernel_row(w, p, out.dtype)
    buffer, total, product = (np.empty(n, out.dtype) for n in (
        p.rows_size, p.block_size, p.block_size if len(weights) > 1 else 0))  # fmt: skip
    for block in p.blocks():
        rows = p.gather(x, block, buffer)
        target = p.output(out, block)
        shape = (p.g, p.o, target[0, 0].size)
        a = total[: target.size].reshape(shape)
        np.matmul(weights[0], p.matrix(rows, 0, block), out=a)
        for i in range(1, len(weights)):
            further = product[: target.size].reshape(shape)
            a += np.matmul(weights[i], p.matrix(rows, i, block), out=further)
        if not isinstance(b, float):
            a += b.reshape(p.g, p.o, 1)
        target[...] = a.reshape(target.shape)
    return out


@op(
    infer=lambda dy, w, *, shape, **options: AbstractArray(shape, float_dtype(dy, w)),
    flops=lambda out, dy, w, *, shape, **options: plan(shape, w.shape, **options).flops,
    workspace=lambda out, dy, w, *, shape, **options: (
        out.itemsize * _workspace_x(plan(shape, w.shape, **options), w)
    ),
)
def convolution_x(
    dy: Any,
    w: Any,
    *,
    shape: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> Any:
    """What the cotangent dy of a convolution of an x of that shape gives for x."""
    p = plan(shape, w.shape, stride, padding, dilation, groups)
    out = np.zeros(shape, float_dtype(dy, w))
    weights = np.swapaxes(_by_kernel_row(w, p, out.dtype), -1, -2)
    buffer, incoming, product = (
        np.empty(n, out.dtype) for n in (p.rows_size, p.block_size, p.row_size)
    )
    for block in p.blocks():
        g = p.incoming(dy, block, incoming)
        rows = p.empty_rows(block, buffer)
        rows[...] = 0
        for i in range(len(weights)):
            target = p.matrix(rows, i, block)
            further = product[: target.size].reshape(target.shape)
            target += np.matmul(weights[i], g, out=further)
        p.scatter(rows, block, out)
    return out


@op(
    infer=lambda dy, x, *, shape, **options: AbstractArray(shape, float_dtype(dy, x)),
    flops=lambda out, dy, x, *, shape, **options: plan(x.shape, shape, **options).flops,
    workspace=lambda out, dy, x, *, shape, **options: (
        out.itemsize * _workspace_w(plan(x.shape, shape, **options), out)
    ),
)
def convolution_w(
    dy: Any,
    x: Any,
    *,
    shape: tuple[int, ...],
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> Any:
    """What the cotangent dy of a convolution by a w of that shape gives for w."""
    p = plan(x.shape, shape, stride, padding, dilation, groups)
    height, width = p.windows.kernel
    dtype = float_dtype(dy, x)
    sums = np.zeros((height, p.g, p.o, width * p.c), dtype)
    product = np.empty(sums.shape[1:], dtype)
    buffer, incoming = (np.empty(n, dtype) for n in (p.rows_size, p.block_size))
    for block in p.blocks():
        g = p.incoming(dy, block, incoming)
        rows = p.gather(x, block, buffer)
        for i in range(height):
            across = np.swapaxes(p.matrix(rows, i, block), -1, -2)
            sums[i] += np.matmul(g, across, out=product)
    parts = sums.reshape(height, p.g, p.o, width, p.c).transpose(1, 2, 4, 0, 3)
    return np.ascontiguousarray(parts).reshape(shape)


def _options(stride: Pair, padding: Pair, dilation: Pair, groups: int) -> dict[str, Any]:
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


convolution.vjp(
    x=lambda g, w, x_shape, stride, padding, dilation, groups: convolution_x(
        g, w, shape=x_shape, **_options(stride, padding, dilation, groups)
    ),
    w=lambda g, x, w_shape, stride, padding, dilation, groups: convolution_w(
        g, x, shape=w_shape, **_options(stride, padding, dilation, groups)
    ),
    b=lambda g: g,
)
convolution_x.vjp(
    dy=lambda g, w, stride, padding, dilation, groups: convolution(
        g, w, 0.0, **_options(stride, padding, dilation, groups)
    ),
    w=lambda g, dy, w_shape, stride, padding, dilation, groups: convolution_w(
        dy, g, shape=w_shape, **_options(stride, padding, dilation, groups)
    ),
)
convolution_w.vjp(
    dy=lambda g, x, stride, padding, dilation, groups: convolution(
        x, g, 0.0, **_options(stride, padding, dilation, groups)
    ),
    x=lambda g, dy, x_shape, stride, padding, dilation, groups: convolution_x(
        dy, g, shape=x_shape, **_options(stride, padding, dilation, groups)
    ),
)


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
    options = _checked(stride, padding, dilation, groups)
    return convolution(x, w, 0.0 if bias is None else np.reshape(bias, (-1, 1, 1)), **options)


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
        for n, k, s, p, d, e in zip(
            x.shape[2:], w.shape[2:], options["stride"], options["padding"],
            options["dilation"], extra, strict=True,
        )
    ]  # fmt: skip
    shape = (x.shape[0], w.shape[1] * groups, *size)
    if plan(shape, w.shape, **options).out_shape != x.shape:
        raise UsageError(f"conv_transpose2d: {x.shape} is no convolution of {shape} by {w.shape}")
    out = convolution_x(x, w, shape=shape, **options)
    return out if bias is None else out + np.reshape(bias, (-1, 1, 1))


def _checked(stride: Any, padding: Any, dilation: Any, groups: int) -> dict[str, Any]:
    if groups < 1:
        raise UsageError(f"groups must be at least 1, not {groups}")
    return _options(
        pair(stride, "stride", 1),
        pair(padding, "padding", 0),
        pair(dilation, "dilation", 1),
        groups,
    )
