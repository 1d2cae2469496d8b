"""Fourier transforms, with `numpy.fft`'s n, s, axes and norm.

A transform is linear and its matrix symmetric, so its rule is the transform again and reads
nothing. Transforms of several axes are transforms of one after another, as in NumPy, each a node.
FLOPs: 5 n log2 n for a complex transform of length n, half of it for a real one (Cooley & Tukey's
radix-2 count, the convention of FFTW's benchmarks).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import log2
from typing import Any

import numpy as np

from ckpt.tape.core.abstract import AbstractArray, fresh
from ckpt.tape.core.dispatch import operand
from ckpt.tape.core.op import Op, adapt, op
from ckpt.tape.ops.linear import pocketfft
from ckpt.tape.ops.pointwise.complex_numbers import conjugate

_OPPOSITE: dict[Any, Any] = {
    None: "forward",
    "backward": "forward",
    "ortho": "ortho",
    "forward": "backward",
}
_FORWARD_SCALED = ("ortho", "forward")
_INVERSE_SCALED = (None, "backward", "ortho")


def _transform(function: Callable[..., Any], scaled: tuple[str | None, ...]) -> Op:
    """The op of a one-axis transform, whose result is scaled if ``norm`` is among ``scaled``."""
    name = function.__name__
    unscaled = "backward" if "forward" in scaled else "forward"

    def infer(x: Any, *, n: int | None, axis: int, norm: str | None) -> AbstractArray:
        if not x.shape:
            raise ValueError(f"{name}: a number has no axis to transform")
        if name == "rfft" and x.dtype.kind == "c":
            raise TypeError("rfft: the operand must be real")
        length = _points(x.shape, n, axis)
        made = length // 2 + 1 if name == "rfft" else length
        shape = tuple(made if k == axis % len(x.shape) else m for k, m in enumerate(x.shape))
        return fresh(function, shape, x, n=2, axis=axis, norm=norm)

    def _points(shape: tuple[int, ...], n: int | None, axis: int) -> int:
        """The length of the transform."""
        if n is None:
            n = 2 * (shape[axis] - 1) if name == "irfft" else shape[axis]
        if n < 1:
            raise ValueError(f"{name}: a transform has at least one point, not {n}")
        return int(n)

    def flops(out: Any, x: Any, *, n: int | None, axis: int, norm: str | None) -> float:
        length = _points(x.shape, n, axis)
        work = 5 * length * log2(length) * (out.size // out.shape[axis])
        return float(work / 2 if name in ("rfft", "irfft") else work)

    def widened(x: Any, norm: str | None) -> str | None:
        """The dtype that NumPy casts the whole operand to, to compute in it; None: it doesn't. It
        computes in single precision only where the operand has the right dtype and the scale isn't
        the integer 1."""
        if norm in scaled and x.dtype.char == ("f" if name == "rfft" else "F"):
            return None
        computed = "d" if name == "rfft" else "D"
        return None if x.dtype.char == computed else computed

    def rounded(x: Any, norm: str | None) -> bool:
        """Is it computed in double precision, and the result not?"""
        return x.dtype.char in "efF" and widened(x, norm) is not None

    def workspace(out: Any, x: Any, *, n: int | None, axis: int, norm: str | None) -> int:
        wide = widened(x, norm)
        casts = x.size * np.dtype(wide).itemsize if wide else 0
        if rounded(x, norm):
            made = out.size * (8 if name == "irfft" else 16)
            return int(max(casts + made - out.nbytes, made))
        return int(casts)

    def forward(x: Any, *, n: Any = None, axis: int = -1, norm: Any = None) -> Any:
        """Cast here where NumPy would: it has the result in single precision before, and this when
        the wide operand is gone. The scale is the one that NumPy rounds, and so are the bits."""
        if not rounded(x, norm):
            return function(x, n, axis, norm)
        made = function(x.astype(widened(x, norm)), n, axis, unscaled)
        single = np.empty(0, x.dtype).real.dtype
        if norm in scaled:
            points = _points(x.shape, n, axis)
            scale = np.reciprocal(
                np.sqrt(points, dtype=single) if norm == "ortho" else points, dtype=single
            )
            for part in (made,) if name == "irfft" else (made.real, made.imag):
                np.multiply(part, scale, out=part)
        return made.astype(np.result_type(single, 1.0 if name == "irfft" else 1j))

    def lines(out: Any, x: Any, *, n: int | None, axis: int, norm: str | None) -> int:
        real, length = name in ("rfft", "irfft"), _points(x.shape, n, axis)
        wide = 4 if out.dtype.char in "fF" and widened(x, norm) is None else 8
        filled = x.shape[axis] < (length // 2 + 1 if name == "irfft" else length)
        many = 1 if filled else x.size // x.shape[axis]
        apart = out.strides[axis] != out.itemsize
        return pocketfft.transform(length, many, real, wide, apart)

    declare = op(
        function, name=name, infer=infer, flops=flops, workspace=workspace, scratch=lines
    )  # fmt: skip
    return declare(forward)  # type: ignore[no-any-return]


def _resized(x: Any, length: int, axis: int) -> Any:
    """Cut, or filled up with zeros, to a length: what a transform with n does to its operand."""
    axis %= len(x.shape)
    if x.shape[axis] < length:
        return np.pad(x, [(0, (length - m) if k == axis else 0) for k, m in enumerate(x.shape)])
    return x[(slice(None),) * axis + (slice(length),)] if x.shape[axis] > length else x


def _weights(length: int, inner: float, like: Any, axis: int) -> Any:
    """Of the ``length // 2 + 1`` terms of a real transform: ``inner`` for those that stand for a
    conjugate pair, 1 for the others."""
    made = np.full(length // 2 + 1, inner, np.empty(0, like.dtype).real.dtype)
    made[0] = 1
    if length % 2 == 0:
        made[-1] = 1
    return made.reshape([-1 if k == axis % len(like.shape) else 1 for k in range(len(like.shape))])


fft = _transform(np.fft.fft, _FORWARD_SCALED)
fft.vjp(
    x=lambda g, x_shape, axis, norm: _resized(np.fft.fft(g, None, axis, norm), x_shape[axis], axis)
)
ifft = _transform(np.fft.ifft, _INVERSE_SCALED)
ifft.vjp(
    x=lambda g, x_shape, axis, norm: _resized(np.fft.ifft(g, None, axis, norm), x_shape[axis], axis)
)


def _rfft(g: Any, x_shape: Any, n: Any, axis: int, norm: Any) -> Any:
    length = int(x_shape[axis] if n is None else n)
    half = np.conjugate(g) * _weights(length, 0.5, g, axis)
    return _resized(np.fft.irfft(half, length, axis, _OPPOSITE[norm]), x_shape[axis], axis)


def _irfft(g: Any, x_shape: Any, axis: int, norm: Any) -> Any:
    made = np.conjugate(np.fft.rfft(g, None, axis, _OPPOSITE[norm]))
    return _resized(made * _weights(g.shape[axis], 2.0, made, axis), x_shape[axis], axis)


rfft = _transform(np.fft.rfft, _FORWARD_SCALED)
rfft.vjp(x=_rfft)
irfft = _transform(np.fft.irfft, _INVERSE_SCALED)
irfft.vjp(x=_irfft)


@adapt(np.fft.hfft)
def _hfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None) -> Any:
    return np.fft.irfft(conjugate(operand(a)), n, axis, _OPPOSITE[norm])


@adapt(np.fft.ihfft)
def _ihfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None) -> Any:
    return np.conjugate(np.fft.rfft(operand(a), n, axis, _OPPOSITE[norm]))


# -- several axes ----------------------------------------------------------------------------------


def _lengths_and_axes(x: Any, s: Any, axes: Any, half: bool = False) -> list[tuple[int, int]]:
    """Length and axis of each transform; ``half``: the last axis of ``x`` holds half a spectrum."""
    if axes is None:
        axes = range(-len(s), 0) if s is not None else range(x.ndim)
    if s is None:
        lengths = [x.shape[axis] for axis in axes]
        if half:
            lengths[-1] = 2 * (lengths[-1] - 1)
    else:
        if len(s) != len(axes):
            raise ValueError(f"fft: {len(s)} lengths s for {len(axes)} axes")
        lengths = [x.shape[axis] if n == -1 else n for n, axis in zip(s, axes, strict=True)]
    return list(zip(lengths, axes, strict=True))


def _complex(function: Callable[..., Any], x: Any, s: Any, axes: Any, norm: Any) -> Any:
    """One axis after the other, the last one first."""
    for n, axis in reversed(_lengths_and_axes(x, s, axes)):
        x = function(x, n, axis, norm)
    return x


def _real(x: Any, s: Any, axes: Any, norm: Any) -> Any:
    *others, (n, axis) = _lengths_and_axes(x, s, axes)
    x = np.fft.rfft(x, n, axis, norm)
    for n, axis in reversed(others):
        x = np.fft.fft(x, n, axis, norm)
    return x


def _inverse_real(x: Any, s: Any, axes: Any, norm: Any) -> Any:
    *others, (n, axis) = _lengths_and_axes(x, s, axes, half=True)
    for length, other in others:
        x = np.fft.ifft(x, length, other, norm)
    return np.fft.irfft(x, n, axis, norm)


def _several(two: Any, any_: Any, transform: Callable[..., Any]) -> None:
    """Over the last two axes, or over all of them, unless they are given."""
    adapt(two)(lambda a, s=None, axes=(-2, -1), norm=None: transform(operand(a), s, axes, norm))
    adapt(any_)(lambda a, s=None, axes=None, norm=None: transform(operand(a), s, axes, norm))


_several(np.fft.fft2, np.fft.fftn, partial(_complex, np.fft.fft))
_several(np.fft.ifft2, np.fft.ifftn, partial(_complex, np.fft.ifft))
_several(np.fft.rfft2, np.fft.rfftn, _real)
_several(np.fft.irfft2, np.fft.irfftn, _inverse_real)


def _shifted(x: Any, axes: Any, sign: int) -> Any:
    axes = tuple(range(x.ndim)) if axes is None else axes if isinstance(axes, tuple) else (axes,)
    return np.roll(x, tuple(sign * (x.shape[axis] // 2) for axis in axes), axes)


adapt(np.fft.fftshift)(lambda x, axes=None: _shifted(operand(x), axes, 1))
adapt(np.fft.ifftshift)(lambda x, axes=None: _shifted(operand(x), axes, -1))
