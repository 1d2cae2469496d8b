"""A convolution as matrix products over blocks: what is copied where.

A block is a few thousand output columns: some images, or some rows of a large one. Its input is
copied once for each *column* of the kernel, in the order (kernel column, channel; row, image,
column). Then the taps of a kernel *row* are one matrix, and another kernel row's matrix is the same
memory further on: as many products as the kernel has rows, and neither im2col's matrix (kernel rows
times larger) nor anything that grows with the batch. With a stride, the rows of each remainder
modulo it (its phase) lie together.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

from ckpt.errors import UsageError
from ckpt.nn.blocks import copied_nbytes
from ckpt.nn.geometry import Pair, Windows, span

COLUMNS = 1 << 10
"""Columns of the matrices that are multiplied at a time, at the least (and one output row's)."""

ELEMENTS = 1 << 16
"""Of such a matrix, of few rows: then it has more columns."""


class Block(NamedTuple):
    """Some images' output rows."""

    images: slice
    start: int
    stop: int


class Convolution(NamedTuple):
    """Shapes of one convolution: x (n, g·c, …), w (g·o, c, …)."""

    windows: Windows
    n: int
    g: int
    c: int
    o: int

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.n, self.g * self.c, *self.windows.size)

    @property
    def w_shape(self) -> tuple[int, ...]:
        return (self.g * self.o, self.c, *self.windows.kernel)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return (self.n, self.g * self.o, *self.windows.out)

    @property
    def flops(self) -> int:
        """A multiply-add is two."""
        return 2 * prod((*self.out_shape, self.c, *self.windows.kernel))

    # -- blocks ------------------------------------------------------------------------------------

    @property
    def block(self) -> Pair:
        """How many images and output rows a block has, at most: so many that its matrices have
        `COLUMNS`, or more where they are low, and stay in the cache."""
        rows, columns = self.windows.out
        height = self.g * max(self.windows.kernel[1] * self.c, 2 * self.o)
        wanted = max(COLUMNS, ELEMENTS // height)
        return (
            min(self.n, max(1, wanted // (rows * columns))),
            min(rows, max(1, wanted // columns)),
        )

    @property
    def in_place(self) -> bool:
        """Are products added up in the output itself? Of one image a block is a matrix as it lies
        there; but over many kernel rows one whose rows lie together is quicker."""
        return self.block[0] == 1 and self.windows.kernel[0] <= 3

    def copies_incoming(self, dy: Any, dtype: Any) -> bool:
        """Must blocks of a cotangent be copied, to be matrices of that dtype?"""
        return self.block[0] > 1 or dy.dtype != dtype or copied_nbytes(dy) > 0

    @property
    def flipped(self) -> Convolution | None:
        """The convolution of the cotangent by the flipped kernel that gives the input's gradient:
        at stride 1, and where it isn't by far more channels than the input has."""
        w = self.windows
        padding = tuple(
            d * (k - 1) - p for d, k, p in zip(w.dilation, w.kernel, w.padding, strict=True)
        )
        if w.stride != (1, 1) or min(padding) < 0 or self.o > 2 * self.c:
            return None
        back = Windows(w.out, w.kernel, (1, 1), (padding[0], padding[1]), w.dilation)
        return Convolution(back, self.n, self.g, self.o, self.c)

    def blocks(self) -> Iterator[Block]:
        images, rows = self.block
        for n in range(0, self.n, images):
            for start in range(0, self.windows.out[0], rows):
                stop = min(start + rows, self.windows.out[0])
                yield Block(slice(n, min(n + images, self.n)), start, stop)

    @property
    def phases(self) -> list[int]:
        """The input rows modulo the stride that some kernel row reads."""
        w = self.windows
        return sorted({i * w.dilation[0] % w.stride[0] for i in range(w.kernel[0])})

    @property
    def halo(self) -> int:
        """How many more rows of a phase than output rows a block reads."""
        w = self.windows
        return (w.kernel[0] - 1) * w.dilation[0] // w.stride[0]

    def rows_shape(self, block: Block) -> tuple[int, ...]:
        """Of the copied input: phase, group, kernel column, channel; row, image, column."""
        images = block.images.stop - block.images.start
        rows = block.stop - block.start + self.halo
        columns = self.windows.out[1]
        return (len(self.phases), self.g, self.windows.kernel[1], self.c, rows, images, columns)

    @property
    def rows_size(self) -> int:
        images, rows = self.block
        return prod(self.rows_shape(Block(slice(0, images), 0, rows)))

    @property
    def block_size(self) -> int:
        """Elements of a block of the output."""
        images, rows = self.block
        return self.g * self.o * images * rows * self.windows.out[1]

    @property
    def row_size(self) -> int:
        """Elements of one kernel row's matrices over a block."""
        images, rows = self.block
        return self.g * self.windows.kernel[1] * self.c * images * rows * self.windows.out[1]

    def copies(self, block: Block) -> Iterator[tuple[Any, Any, Any]]:
        """(phase, kernel column), where in the copied rows, and which rows and columns of x."""
        w = self.windows
        for f, phase in enumerate(self.phases):
            stop = block.stop + self.halo
            rows = span(phase - w.padding[0], w.stride[0], block.start, stop, w.size[0])
            for j in range(w.kernel[1]):
                columns = w.span(1, j)
                yield (f, j), (rows.target, columns.target), (rows.source, columns.source)

    def matrix(self, rows: Any, i: int, block: Block) -> Any:
        """Kernel row i's matrices (group, kernel column and channel, output position)."""
        offset = i * self.windows.dilation[0]
        f = self.phases.index(offset % self.windows.stride[0])
        first = offset // self.windows.stride[0]
        part = rows[f].reshape(self.g, -1, *rows.shape[4:])
        part = part[:, :, first : first + block.stop - block.start]
        return part.reshape(*part.shape[:2], -1)

    def empty_rows(self, block: Block, buffer: Any) -> Any:
        """Room for a block's input rows."""
        shape = self.rows_shape(block)
        return buffer[: prod(shape)].reshape(shape)

    def gather(self, x: Any, block: Block, buffer: Any) -> Any:
        """The block's input rows, copied into the buffer."""
        rows = self.empty_rows(block, buffer)
        x = x[block.images].reshape(-1, self.g, self.c, *x.shape[2:])
        for (f, j), (r, q), (xr, xq) in self.copies(block):
            target = rows[f, :, j]
            target[:, :, : r.start] = 0
            target[:, :, r.stop :] = 0
            target[:, :, r, :, : q.start] = 0
            target[:, :, r, :, q.stop :] = 0
            target[:, :, r, :, q] = x[..., xr, xq].transpose(1, 2, 3, 0, 4)
        return rows

    def scatter(self, rows: Any, block: Block, x: Any) -> None:
        """Add the block's rows into x where they came from."""
        x = x[block.images].reshape(-1, self.g, self.c, *x.shape[2:])
        for (f, j), (r, q), (xr, xq) in self.copies(block):
            x[..., xr, xq] += rows[f, :, j, :, r, :, q].transpose(3, 0, 1, 2, 4)

    def incoming(self, dy: Any, block: Block, buffer: Any) -> Any:
        """The block of a cotangent as (group, channel, output position), copied into the buffer
        where that has room."""
        part = self.output(dy, block)
        if not buffer.size:
            return part.reshape(self.g, self.o, -1)
        made = buffer[: part.size].reshape(part.shape)
        made[...] = part
        return made.reshape(self.g, self.o, -1)

    def output(self, y: Any, block: Block) -> Any:
        """The block of an output-shaped array as (group, channel, row, image, column), a view."""
        part = y[block.images, :, block.start : block.stop]
        return part.reshape(part.shape[0], self.g, self.o, *part.shape[2:]).transpose(1, 2, 3, 0, 4)


def plan(
    x_shape: Any, w_shape: Any, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Convolution:
    n, channels, *size = x_shape
    outputs, c, *kernel = w_shape
    if channels != c * groups or outputs % groups:
        raise UsageError(
            f"a convolution in {groups} groups of {channels} channels by a weight of shape "
            f"{tuple(w_shape)}: the weight needs {channels / groups:g} input channels, and a "
            f"number of output channels that {groups} divides"
        )
    windows = Windows((size[0], size[1]), (kernel[0], kernel[1]), stride, padding, dilation)
    return Convolution(windows, n, groups, c, outputs // groups)
