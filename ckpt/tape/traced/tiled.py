"""Elementwise calls behind each other as one, which goes over its arrays in tiles.

What is made and read within a run of such calls is no larger than a tile (see `ops.tiles`), and
each tile is in the cache when the next call comes to it. An array is cut along its first axes; what
is broadcast along those is read as it is by each tile. The order in which an element is treated,
and so its bits, are those of the calls one by one. Reductions of rows are among them: a tile is of
whole rows then, and NumPy reduces each row by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np

from ckpt.tape.core.abstract import AbstractArray
from ckpt.tape.ops.tiles import lanes_of, share
from ckpt.tape.traced.calling import as_array, out_of
from ckpt.tape.traced.pieces import Elementwise, Operand, depth, is_cut

ALIGNMENT = 64


class TiledRun:
    """Pieces, as a function of the arrays of ``given`` that are there beforehand: it reads them,
    and writes those that are targets. The other operands are temporaries, of one tile a lane.
    ``tile``: how many elements that is."""

    def __init__(self, pieces: Sequence[Elementwise], given: Sequence[Operand], tile: int) -> None:
        self.pieces, self.given = pieces, given
        arrays = [s.array for p in pieces for s in p.operands()]
        self.largest = max(arrays, key=lambda a: (a.size, a.nbytes))
        self.shape: tuple[int, ...] = self.largest.shape
        self.depth = depth(self.shape, arrays, max(p.reduced for p in pieces))
        self.count = prod(self.shape[: self.depth])
        self.rest = self.shape[self.depth :]
        self.rows = min(max(1, tile // prod(self.rest)), self.count)
        self.lanes = lanes_of(self.largest.nbytes)
        writer = _Work(self)
        self.slots = writer.slots
        """Bytes of each temporary of a lane."""
        self.nbytes = self.lanes * (sum(self.slots) + self._buffers())
        """What a call of it allocates beside its arrays."""
        exec(compile(writer.text, "<tiles>", "exec"), writer.names)
        self._work: Callable[..., None] = writer.names["work"]

    def __call__(self, *arrays: Any) -> None:
        seen = [
            a[operand.part].reshape(self.seen(operand.array, self.count))
            for a, operand in zip(arrays, self.given, strict=True)
        ]
        memory = [[np.empty(n, np.uint8) for n in self.slots] for _ in range(self.lanes)]
        share(partial(self._work, seen, memory), -(-self.count // self.rows), self.lanes)

    def cuts(self, array: AbstractArray) -> bool:
        return bool(is_cut(array, self.shape, self.depth))

    def seen(self, array: AbstractArray, rows: int) -> tuple[int, ...]:
        """The shape of so many rows of an array, or of one that is the same for all."""
        own = array.shape[-len(self.rest) :] if self.rest else ()
        return (rows, *own) if self.cuts(array) else own

    def tile(self, array: AbstractArray) -> AbstractArray:
        """What a piece sees of it."""
        return AbstractArray(self.seen(array, self.rows), array.dtype)

    def _buffers(self) -> int:
        """The most that one ufunc allocates for a tile."""
        most = 0
        for p in self.pieces:
            if p.fill.is_ufunc and p.op.workspace is not None:
                seen = [self.tile(s.array) if isinstance(s, Operand) else s for s in p.sources]
                most = max(most, p.op.workspace(self.tile(p.target.array), *seen))
        return most


class _Work:
    """The source of a run's work on tiles."""

    def __init__(self, run: TiledRun) -> None:
        self.run = run
        self.names: dict[str, Any] = {}
        self.slots: list[int] = []
        self.operands = {operand: f"x{k}" for k, operand in enumerate(run.given)}
        self.last = {s: k for k, p in enumerate(run.pieces) for s in p.operands()}
        self.free: list[int] = []
        self.lies: dict[Operand, int | Operand] = {}
        """Where each temporary is that is live: in a slot, or in a result that isn't there yet."""
        self.waiting = dict(self._results())
        """Of each array that is written: where it is read last before, and where written first."""
        self.views: dict[tuple[int, AbstractArray], str] = {}
        """The names of slots, seen as tiles of some shape and dtype."""
        body = [self._piece(k, piece) for k, piece in enumerate(run.pieces)]
        cut = [f"x{k}" for k, operand in enumerate(run.given) if run.cuts(operand.array)]
        lines = [
            "def work(arrays, memory, lane, numbers):",
            f"    {', '.join(self.operands[operand] for operand in run.given)}, = arrays",
            "    slots = memory[lane]",
            *[f"    a{x} = {x}" for x in cut],
            *[f"    {name} = {self._seen(*key)}" for key, name in self.views.items()],
            "    for number in numbers:",
            f"        start = number * {run.rows}",
            f"        length = min({run.rows}, {run.count} - start)",
            *[f"        {x} = a{x}[start : start + length]" for x in cut],
            *[f"        {t} = {t}[:length]" for t in self.views.values()],
            *[f"        {line}" for line in body],
        ]
        self.text = "\n".join(lines) + "\n"

    def _results(self) -> Iterator[tuple[Operand, tuple[int, int]]]:
        pieces = self.run.pieces
        for operand in self.run.given:
            first = next((k for k, p in enumerate(pieces) if p.target is operand), None)
            if first is not None:
                reads = [k for k, p in enumerate(pieces[: first + 1]) if operand in p.sources]
                yield operand, (max(reads, default=-1), first)

    def _piece(self, k: int, piece: Elementwise) -> str:
        fill, target = piece.fill, piece.target
        sources = [
            self.operands[s] if isinstance(s, Operand) else self._number(piece, s)
            for s in piece.sources
        ]
        ends = [s for s in dict.fromkeys(piece.operands()) if s in self.lies and self.last[s] == k]
        for operand in ends:  # one that ends here makes room for the result, where that may be
            if operand.array == target.array and piece.may_write_over(operand):
                self._release(self.lies.pop(operand))
        if target not in self.operands:
            self.lies[target] = self._host(k, target) or self._slot(target.array)
            self.operands[target] = self._view(self.lies[target], target.array)
        scratch = [self._slot(target.array) for _ in range(fill.scratch)]
        names = [self._view(slot, target.array) for slot in scratch]
        for room in (*scratch, *[self.lies.pop(s) for s in ends if s in self.lies]):
            self._release(room)
        function, out = self._constant(fill.function), self.operands[target]
        if piece.reduced:
            axes = tuple(range(-piece.reduced, 0))
            call = f"{function}({sources[0]}, {axes}, None, {out}, True)"
            if not fill.is_mean:
                return call
            count = prod(piece.sources[0].array.shape[-piece.reduced :])
            divide, number = np.true_divide, np.array(count, target.array.dtype)
            return f"{call}; {self._constant(divide)}({out}, {self._constant(number)}, {out})"
        if fill.is_ufunc:
            return f"{function}({', '.join([*sources, out_of(fill.function, out)])})"
        given = [out, *names, *sources]
        if self.run.rest:
            given = [f"{name}.reshape(-1)" for name in given]
        return f"{function}({', '.join(given)}, **{self._constant(piece.params)})"

    def _host(self, k: int, temporary: Operand) -> Operand | None:
        """A result that isn't there yet, in which a temporary made by piece k may lie."""
        pieces, last = self.run.pieces, self.last[temporary]
        taken = [where for where in self.lies.values() if isinstance(where, Operand)]
        for host, (read, written) in self.waiting.items():
            if host in taken or host.array != temporary.array:
                continue
            begins = read < k or (read == k and pieces[k].may_write_over(host))
            ends = last < written
            if last == written:
                ends = pieces[written].may_write_over(temporary)
            if begins and ends:
                return host
        return None

    def _release(self, room: int | Operand) -> None:
        if isinstance(room, int):
            self.free.append(room)

    def _slot(self, array: AbstractArray) -> int:
        """A slot that is free, and large enough."""
        nbytes = -(-self.run.tile(array).nbytes // ALIGNMENT) * ALIGNMENT
        for slot in self.free:
            if self.slots[slot] >= nbytes:
                self.free.remove(slot)
                return slot
        self.slots.append(nbytes)
        return len(self.slots) - 1

    def _view(self, slot: int | Operand, array: AbstractArray) -> str:
        """The name of a slot, as a tile of such an array."""
        if isinstance(slot, Operand):
            return self.operands[slot]
        tile = self.run.tile(array)
        if (slot, tile) not in self.views:
            self.views[slot, tile] = f"t{len(self.views)}"
        return self.views[slot, tile]

    def _seen(self, slot: int, tile: AbstractArray) -> str:
        """A slot as such a tile."""
        dtype = self._constant(tile.dtype)
        return f"slots[{slot}][: {tile.nbytes}].view({dtype}).reshape({tile.shape})"

    def _number(self, piece: Elementwise, number: Any) -> str:
        others = [
            s.array.dtype if isinstance(s, Operand) else None
            for s in piece.sources
            if s is not number
        ]
        dtype = piece.target.array.dtype
        return self._constant(as_array(piece.fill.function, number, dtype, others))

    def _constant(self, value: Any) -> str:
        name = f"k{len(self.names)}"
        self.names[name] = value
        return name
