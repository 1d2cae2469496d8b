"""The calls of a kernel, and runs of elementwise ones among them made one, over tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ckpt.tape.core.abstract import AbstractArray
from ckpt.tape.core.op import Op
from ckpt.tape.ops.tiles import TILE
from ckpt.tape.traced.pieces import LEAST, Elementwise, Operand, depth, is_piece
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


class At(int):
    """A position in a kernel: the arguments first, then the calls."""


def joined(calls: Sequence[Call], count: int, result: int) -> tuple[list[Call], int]:
    """The calls of a kernel of ``count`` arguments, each run of elementwise ones that pays as one;
    and where the result is then."""
    if not any(call.array.nbytes >= LEAST for call in calls):
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
    shape, end = calls[start].array.shape, start
    arrays: list[AbstractArray] = []
    while end < len(calls):
        call = calls[end]
        if call.array.shape != shape or call.array.nbytes < LEAST:
            break
        if not is_piece(call.op, call.given, call.array):
            break
        read = [Operand(a).array for a in call.given if isinstance(a, AbstractArray)]
        arrays += [call.array, *read]
        if not depth(shape, arrays):
            break
        end += 1
    while end > start + 1 and any(last.get(count + j, j) >= end for j in range(start, end - 1)):
        end -= 1
    return max(end, start + 1)


def _as_one(calls: Sequence[Call], first: int) -> Call:
    """A run as one call, which reads what the run reads; its first call is at that position."""
    made = {first + j: Operand(call.array) for j, call in enumerate(calls)}
    read: dict[int, Operand] = {}
    pieces = []
    for position, call in zip(made, calls, strict=True):
        for source, array in zip(call.sources, call.given, strict=True):
            if isinstance(source, At) and source not in made:
                read.setdefault(source, Operand(array))
        operands = made | read
        sources = tuple(operands[s] if isinstance(s, At) else s for s in call.sources)
        pieces.append(Elementwise(call.op, sources, call.params or {}, made[position]))
    op = Joined(pieces, read)
    return replace(
        calls[-1],
        op=op,
        sources=tuple(map(At, op.read)),
        given=tuple(operand.array for operand in op.read.values()),
        params=None,
        flops=sum(call.flops for call in calls),
        workspace=op.run.nbytes,
        scratch=0,
        parts=tuple(calls),
    )


class Joined(Op):
    """A run that reads some operands, and makes what its last piece does."""

    def __init__(self, pieces: Sequence[Elementwise], read: dict[int, Operand]) -> None:
        made = pieces[-1].target.array
        given = list(read.values())
        run = TiledRun(pieces, [*given, pieces[-1].target], TILE)
        prices = {
            operand: TiledRun(_over(pieces, operand), given, TILE).nbytes - run.nbytes
            for operand in given
            if operand.array == made and pieces[-1].may_write_over(operand)
        }
        self.read = dict(sorted(read.items(), key=lambda pair: prices.get(pair[1], made.nbytes)))
        """What it reads, by position: first what its result is best written over."""
        given = list(self.read.values())
        self.run = run = TiledRun(pieces, [*given, pieces[-1].target], TILE)
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


def _over(pieces: Sequence[Elementwise], operand: Operand) -> list[Elementwise]:
    """The pieces with their result where they read that operand."""
    *others, outcome = pieces
    return [*others, replace(outcome, target=operand)]
