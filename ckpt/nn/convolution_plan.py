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
from ckpt.nn.geometry import COLUMNS, Pair, Windows, span


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
        """How many images and output rows a block has, at most."""
        rows, columns = self.windows.out
        return (
            min(self.n, max(1, COLUMNS // (rows * columns))),
            min(rows, max(1, COLUMNS // columns)),
        )

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
        """The block of a cotangent, copied, as (group, channel, output position)."""
        part = self.output(dy, block)
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
