"""The calls of a kernel, and runs of elementwise ones among them made one, over tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ckpt.tape.core.abstract import AbstractArray
from ckpt.tape.core.op import Op
from ckpt.tape.ops.tiles import TILE
from ckpt.tape.traced.pieces import LEAST, Elementwise, Extent, Operand, Taken, lifted
from ckpt.tape.traced.tiled import TiledRun


@dataclass(frozen=True, slots=True)
class Call:
    """One primitive: what it reads (positions in the kernel, or constants) and what it makes."""

    op: Op
    sources: tuple[Any, ...]
    given: tuple[Any, ...]
    """The sources as they are: AbstractArrays for positions."""
    params: dict[str, Any] | None
    array: Any
    """The AbstractArray (or AbstractParts) it makes."""
    root: int
    """The position whose buffer the result lives in: its own, unless it is a view."""
    nbytes: int
    """Bytes of that buffer, if it is its own; a view of a number holds just the number."""
    flops: int
    workspace: int
    scratch: int
    parts: tuple[Call, ...] = ()
    """Of a run of elementwise calls, those."""

    def arrays(self) -> Iterator[tuple[int, Any]]:
        """The positions that it reads, and the arrays there."""
        pairs = zip(self.sources, self.given, strict=True)
        return ((source, array) for source, array in pairs if isinstance(source, At))


class At(int):
    """A position in a kernel: the arguments first, then the calls."""


def joined(calls: Sequence[Call], count: int, result: int) -> tuple[list[Call], int]:
    """The calls of a kernel of ``count`` arguments, each run of elementwise ones that pays as one;
    and where the result is then."""
    if all(_nbytes(call) < LEAST for call in calls):
        return list(calls), result
    last = {int(s): j for j, call in enumerate(calls) for s in call.sources if isinstance(s, At)}
    last[result] = len(calls)
    places = {k: k for k in range(count)}
    """Of what is still to be read: where it is among the calls that are left."""
    made: list[Call] = []
    start = 0
    while start < len(calls):
        end = _end_of_run(calls, start, count, last)
        call = calls[start] if end - start == 1 else _as_one(calls[start:end], count + start)
        position = count + len(made)
        root = position if call.root >= count + start else places[call.root]
        sources = tuple(At(places[s]) if isinstance(s, At) else s for s in call.sources)
        made.append(replace(call, sources=sources, root=root))
        places[count + end - 1] = position
        start = end
    return made, places[result]


def _end_of_run(calls: Sequence[Call], start: int, count: int, last: dict[int, int]) -> int:
    """Where the longest run from there ends of which only the result is read later."""
    run, end = _Together(), start
    while end < len(calls) and run.add(count + end, calls[end]):
        end += 1

    def is_seen(j: int) -> bool:
        return j != end - 1 and last.get(count + j, j) >= end

    while end > start + 1 and (
        calls[end - 1].root != count + end - 1 or any(map(is_seen, range(start, end)))
    ):
        end -= 1
    return max(end, start + 1)


def _nbytes(call: Call) -> int:
    """Of the largest array that it reads or makes."""
    arrays = [a for a in (call.array, *call.given) if type(a) is AbstractArray]
    return max((array.nbytes for array in arrays), default=0)


class _Together:
    """Calls of a kernel on their way to be one: elementwise ones, reductions of rows, and views
    between them of all of an array."""

    def __init__(self) -> None:
        self.extent = Extent()
        self.operands: dict[int, Operand] = {}
        """Of what is read, made, and seen in a view, by position."""
        self.read: dict[int, Operand] = {}
        self.pieces: list[Elementwise] = []

    def add(self, position: int, call: Call) -> bool:
        """Take the call in; False where it can't be one of these."""
        if call.root != position:
            return self._see(position, call)
        found = self.extent.taking(call.op, call.given, call.params, call.array)
        if found is None or (not self.pieces and found.widest.nbytes < LEAST):
            return False
        read, operands = dict(self.read), dict(self.operands)
        lift, *_, made = found.lifts
        for source, array in call.arrays():
            if source not in operands:
                operands[source] = read[source] = Operand(array, lift)
            if operands[source].array != lifted(array, lift):
                return False
        target = operands[position] = Operand(call.array, made)
        if not found.extent.depth([operand.array for operand in operands.values()]):
            return False
        self.extent, self.read, self.operands = found.extent, read, operands
        sources = tuple(operands[s] if isinstance(s, At) else s for s in call.sources)
        piece = Elementwise(call.op, sources, call.params or {}, target, found.reduced)
        self.pieces.append(piece)
        return True

    def _see(self, position: int, call: Call) -> bool:
        source = call.sources[0]
        operand = self.operands.get(source) if isinstance(source, At) else None
        if operand is None or not self.extent.sees(call.array, operand):
            return False
        self.operands[position] = operand
        return True


def _as_one(calls: Sequence[Call], first: int) -> Call:
    """A run as one call, which reads what the run reads; its first call is at that position."""
    run = _Together()
    for position, call in enumerate(calls, first):
        run.add(position, call)
    op = Joined(run.pieces, run.read, calls[-1].array)
    given = dict(pair for call in calls for pair in call.arrays())
    return replace(
        calls[-1],
        op=op,
        sources=tuple(map(At, op.read)),
        given=tuple(given[position] for position in op.read),
        params=None,
        flops=sum(call.flops for call in calls),
        workspace=op.run.nbytes,
        scratch=0,
        parts=tuple(calls),
    )


class Joined(Op):
    """A run that reads some operands, and makes the array ``made``, which its last piece does."""

    def __init__(
        self, pieces: Sequence[Elementwise], read: dict[int, Operand], made: AbstractArray
    ) -> None:
        outcome = pieces[-1].target
        given = list(read.values())
        run = TiledRun(pieces, [*given, outcome], TILE)
        prices = {
            operand: TiledRun(_over(pieces, operand), given, TILE).nbytes - run.nbytes
            for operand in given
            if operand.array == outcome.array and pieces[-1].may_write_over(operand)
        }
        self.read = dict(sorted(read.items(), key=lambda pair: prices.get(pair[1], made.nbytes)))
        """What it reads, by position: first what its result is best written over."""
        given = list(self.read.values())
        self.run = run = TiledRun(pieces, [*given, outcome], TILE)
        over = [TiledRun(_over(pieces, p), given, TILE) if p in prices else None for p in given]

        def forward(*arrays: Any, out: Any = None) -> Any:
            for array, found in zip(arrays, over, strict=True):
                if array is out and found is not None:
                    found(*arrays)
                    return out
            out = np.empty(made.shape, made.dtype) if out is None else out
            run(*arrays, out)
            return out

        super().__init__(
            forward,
            name=" ".join(piece.op.name for piece in pieces),
            infer=lambda *_: made,
            workspace=lambda *_: run.nbytes,
            over=lambda k, *_: prices.get(given[k]),
        )

    def taking(self, extent: Extent) -> Taken | None:
        """What it is in a longer run, of that extent so far."""
        if extent.shape not in ((), self.run.shape):
            return None
        reduced = extent.reduced.union(piece.reduced for piece in self.run.pieces)
        lifts = [operand.lift for operand in self.run.given]
        return Taken(Extent(self.run.shape, reduced), self.run.largest, lifts)


def _over(pieces: Sequence[Elementwise], operand: Operand) -> list[Elementwise]:
    """The pieces with their result where they read that operand."""
    *others, outcome = pieces
    return [*others, replace(outcome, target=operand)]
