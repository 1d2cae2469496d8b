"""Pooling, padding and upsampling of NCHW images, image by image.

A max pool keeps which tap of each window was the largest: one byte an output element, a node of
its own, and lets go of its input, of whose bytes that is a sixteenth for 2x2 windows of float32.
(Reading input and output instead would cost nothing where the layers around keep both, and five
times the output where they don't.) Ties go to the first tap, and a NaN is larger than any number,
as in PyTorch.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ckpt.errors import UsageError
from ckpt.nn.blocks import strided_nbytes
from ckpt.nn.geometry import Pair, Windows, pair
from ckpt.tape.core.abstract import AbstractArray
from ckpt.tape.core.op import op
from ckpt.tape.ops.shaping.rearranging import inside


def _temporaries(images: Any, held: int, buffered: int) -> int:
    """Bytes for one of the images: ``held`` an element, and the buffers of ``buffered`` of them."""
    size = int(images.size // max(images.shape[0], 1))
    return size * held + strided_nbytes(size, buffered)


def _infer(x: Any, *_: Any, windows: Windows) -> AbstractArray:
    return AbstractArray((*x.shape[:2], *windows.out), x.dtype)


def _infer_transposed(dy: Any, *_: Any, windows: Windows) -> AbstractArray:
    return AbstractArray((*dy.shape[:2], *windows.size), dy.dtype)


def _adds(out: Any, x: Any, *, windows: Windows) -> int:
    """One FLOP a tap."""
    return int(out.size) * prod(windows.kernel)


# -- max -------------------------------------------------------------------------------------------


def _tap_dtype(windows: Windows) -> np.dtype[Any]:
    """The smallest that holds each tap's number."""
    return np.min_scalar_type(prod(windows.kernel) - 1)


@op(
    infer=lambda x, *, windows: AbstractArray((*x.shape[:2], *windows.out), _tap_dtype(windows)),
    flops=_adds,
    workspace=lambda out, x, **_: _temporaries(out, x.itemsize + 2, 2 * x.itemsize + 1),
)
def largest_tap(x: Any, *, windows: Windows) -> Any:
    """The number, row by row, of the tap that is the largest of its window."""
    out = np.zeros((*x.shape[:2], *windows.out), _tap_dtype(windows))
    best = np.empty(out.shape[1:], x.dtype)
    larger, nan = np.empty((2, *out.shape[1:]), bool)
    backwards = list(windows.taps())[::-1]  # so that of equals the first tap stays
    for image, taps in zip(x, out, strict=True):
        best.fill(-np.inf)
        for number, (rows, columns), (r, c) in backwards:
            given, known = image[:, r, c], best[:, rows, columns]
            found = np.greater_equal(given, known, out=larger[:, rows, columns])
            found |= np.isnan(given, out=nan[:, rows, columns])
            np.copyto(known, given, where=found)
            np.copyto(taps[:, rows, columns], number, where=found)
    return out


@op(
    infer=_infer,
    workspace=lambda out, x, tap, **_: _temporaries(out, 1, 3),
)
def take_tap(x: Any, tap: Any, *, windows: Windows) -> Any:
    """The element of each window that has the given number."""
    out = np.zeros(tap.shape, x.dtype)
    here = np.empty(tap.shape[1:], bool)
    for image, taps, target in zip(x, tap, out, strict=True):
        for number, (rows, columns), (r, c) in windows.taps():
            chosen = here[:, rows, columns]
            np.equal(taps[:, rows, columns], number, out=chosen)
            np.copyto(target[:, rows, columns], image[:, r, c], where=chosen)
    return out


@op(
    infer=_infer_transposed,
    flops=lambda out, dy, tap, **_: dy.size,
    workspace=lambda out, dy, tap, **_: _temporaries(dy, dy.itemsize + 1, 3 * dy.itemsize),
)
def put_tap(dy: Any, tap: Any, *, windows: Windows) -> Any:
    """Zeros, each window's dy added in at its tap: the transpose of `take_tap`."""
    out = np.zeros((*dy.shape[:2], *windows.size), dy.dtype)
    here = np.empty(dy.shape[1:], bool)
    given = np.empty(dy.shape[1:], dy.dtype)
    for image, taps, target in zip(dy, tap, out, strict=True):
        for number, (rows, columns), (r, c) in windows.taps():
            chosen, part = here[:, rows, columns], given[:, rows, columns]
            np.equal(taps[:, rows, columns], number, out=chosen)
            np.copyto(part, chosen)
            part *= image[:, rows, columns]
            target[:, r, c] += part
    return out


largest_tap.no_gradient()
take_tap.vjp(x=lambda g, tap, windows: put_tap(g, tap, windows=windows), tap=None)
put_tap.vjp(dy=lambda g, tap, windows: take_tap(g, tap, windows=windows), tap=None)


def max_pool2d(
    x: Any,
    kernel: int | Pair,
    *,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
) -> Any:
    """The largest element of each window; the stride is the kernel's size unless given."""
    windows = _windows(x, "max_pool2d", kernel, stride, padding, dilation)
    return take_tap(x, largest_tap(x, windows=windows), windows=windows)


# -- mean ------------------------------------------------------------------------------------------


@op(
    infer=_infer,
    flops=_adds,
    workspace=lambda out, x, **_: _temporaries(out, 0, 3 * out.itemsize),
)
def tap_mean(x: Any, *, windows: Windows) -> Any:
    """The sum of each window's taps over their number, the border's zeros among them."""
    out = np.zeros((*x.shape[:2], *windows.out), x.dtype)
    for image, target in zip(x, out, strict=True):
        for _, (rows, columns), (r, c) in windows.taps():
            target[:, rows, columns] += image[:, r, c]
        target *= 1 / prod(windows.kernel)
    return out


@op(
    infer=_infer_transposed,
    flops=lambda out, dy, *, windows: dy.size * (prod(windows.kernel) + 1),
    workspace=lambda out, dy, **_: _temporaries(dy, dy.itemsize, 3 * dy.itemsize),
)
def spread_mean(dy: Any, *, windows: Windows) -> Any:
    """Each window's dy over the number of its taps, added in at each: `tap_mean` transposed."""
    out = np.zeros((*dy.shape[:2], *windows.size), dy.dtype)
    share = np.empty(dy.shape[1:], dy.dtype)
    for image, target in zip(dy, out, strict=True):
        np.multiply(image, 1 / prod(windows.kernel), out=share)
        for _, (rows, columns), (r, c) in windows.taps():
            target[:, r, c] += share[:, rows, columns]
    return out


tap_mean.vjp(x=lambda g, windows: spread_mean(g, windows=windows))
spread_mean.vjp(dy=lambda g, windows: tap_mean(g, windows=windows))


def avg_pool2d(
    x: Any, kernel: int | Pair, *, stride: int | Pair | None = None, padding: int | Pair = 0
) -> Any:
    """The mean of each window, the border's zeros counted; the stride is the kernel's size unless
    given. Keeps nothing."""
    return tap_mean(x, windows=_windows(x, "avg_pool2d", kernel, stride, padding, 1))


def global_avg_pool(x: Any) -> Any:
    """The mean over all positions: (N, C, …) to (N, C)."""
    return np.mean(x, axis=tuple(range(2, x.ndim)))


def global_max_pool(x: Any) -> Any:
    """The largest over all positions: (N, C, …) to (N, C); equals share the gradient."""
    return np.max(x, axis=tuple(range(2, x.ndim)))


def _windows(x: Any, name: str, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Windows:
    if x.ndim != 4:
        raise UsageError(f"{name} takes images (N, C, H, W), not an array of shape {x.shape}")
    kernel = pair(kernel, "the kernel", 1)
    strides = kernel if stride is None else pair(stride, "stride", 1)
    paddings, dilations = pair(padding, "padding", 0), pair(dilation, "dilation", 1)
    taps = zip(paddings, kernel, dilations, strict=True)
    if any(2 * p > d * (k - 1) + 1 for p, k, d in taps):
        raise UsageError(f"{name}: padding {padding} is more than half of the kernel, {kernel}")
    return Windows(x.shape[2:], kernel, strides, paddings, dilations)


# -- other sizes -----------------------------------------------------------------------------------


@op(infer=lambda x, *, width: _infer_padded(x, width))
def padded(x: Any, *, width: tuple[Pair, ...]) -> Any:
    """x with zeros around: (before, after) along each axis."""
    out = np.zeros(_infer_padded(x, width).shape, x.dtype)
    out[inside(x.shape, width)] = x
    return out


def _infer_padded(x: Any, width: tuple[Pair, ...]) -> AbstractArray:
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, width, strict=True))
    return AbstractArray(shape, x.dtype)


padded.vjp(x=lambda g, x_shape, width: g[inside(x_shape, width)])


def pad2d(x: Any, padding: int | Pair) -> Any:
    """Zeros around images (…, H, W): ``padding`` rows above and below, columns left and right."""
    rows, columns = pair(padding, "padding", 0)
    return padded(x, width=((0, 0),) * (x.ndim - 2) + ((rows, rows), (columns, columns)))


@op(name="upsample")
def _repeated(x: Any, *, scale: Pair) -> Any:
    *outer, rows, columns = x.shape
    spread = np.broadcast_to(
        np.reshape(x, (*outer, rows, 1, columns, 1)), (*outer, rows, scale[0], columns, scale[1])
    )
    return np.reshape(spread, (*outer, rows * scale[0], columns * scale[1]))


def _sum_of_repeats(g: Any, x_shape: Any, scale: Pair) -> Any:
    *outer, rows, columns = x_shape
    return np.sum(np.reshape(g, (*outer, rows, scale[0], columns, scale[1])), axis=(-3, -1))


_repeated.vjp(x=_sum_of_repeats)


def upsample(x: Any, scale: int | Pair = 2) -> Any:
    """Each pixel of (…, H, W) repeated: nearest neighbours. Keeps nothing."""
    return _repeated(x, scale=pair(scale, "scale", 1))
