"""The geometry of windows over images: sizes, and which slices of an image each tap reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from ckpt.errors import UsageError

Pair = tuple[int, int]


def pair(value: Any, what: str, least: int) -> Pair:
    """An option of both axes: an int, or one of each."""
    given = (value, value) if isinstance(value, int) else tuple(value)
    if len(given) != 2 or not all(isinstance(n, int) and n >= least for n in given):
        raise UsageError(f"{what} is an integer of at least {least}, or two, not {value!r}")
    return given


class Span(NamedTuple):
    """Along one axis: the positions of a tap's output, and those of the input that they hold."""

    target: slice
    source: slice


@dataclass(frozen=True)
class Windows:
    """Windows of ``kernel`` taps over images of ``size``, both (rows, columns)."""

    size: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair

    def __post_init__(self) -> None:
        if min(self.out) < 1:
            raise UsageError(
                f"a window of {self.kernel} taps (stride {self.stride}, padding {self.padding}, "
                f"dilation {self.dilation}) doesn't fit into an image of {self.size}"
            )

    @cached_property
    def out(self) -> Pair:
        """Rows and columns of windows."""
        rows, columns = (
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(
                self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )
        return rows, columns

    def span(self, axis: int, tap: int) -> Span:
        """What tap number ``tap`` reads along an axis."""
        offset = tap * self.dilation[axis] - self.padding[axis]
        return span(offset, self.stride[axis], 0, self.out[axis], self.size[axis])

    def taps(self) -> Iterator[tuple[int, tuple[slice, slice], tuple[slice, slice]]]:
        """Each tap's number, row by row, the windows in which it lies inside the image, and the
        pixels that it reads."""
        for i in range(self.kernel[0]):
            rows = self.span(0, i)
            for j in range(self.kernel[1]):
                columns = self.span(1, j)
                number = i * self.kernel[1] + j
                yield number, (rows.target, columns.target), (rows.source, columns.source)


def span(offset: int, step: int, start: int, stop: int, size: int) -> Span:
    """Of positions ``offset + step * k``, start <= k < stop, those inside 0 to size.

    The target counts from ``start``.
    """
    first = max(start, -(offset // step))
    last = min(stop, (size - 1 - offset) // step + 1)
    if last <= first:
        return Span(slice(0, 0), slice(0, 0))
    source = slice(offset + step * first, offset + step * (last - 1) + 1, step)
    return Span(slice(first - start, last - start), source)
