"""Runs of elementwise lines as one, across instructions, where that takes no more memory.

A compiled step knows all its calls beforehand. What lies between two elementwise ones - views, and
what the schedule lets go of - reads no element, so they can be done together, tile by tile: at the
last one's place, where what the earlier ones read must still be there. What is made and read within
a run needs no array at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from ckpt.tape.core.op import NUMPY
from ckpt.tape.execution.lines import Code, Line, Var
from ckpt.tape.ops.tiles import TILE, lanes_of
from ckpt.tape.traced.joined import Joined
from ckpt.tape.traced.pieces import (
    Elementwise,
    Extent,
    Operand,
    lifted,
    part_of,
)  # fmt: skip
from ckpt.tape.traced.tiled import TiledRun

LEAST = 1 << 22
"""Bytes of an array from which on that is quicker: smaller ones are passed on by a cache."""

TILES = (1 << 17, TILE)
"""Elements a tile: where there is room for them, as many as are quickest."""

LONGEST = 64
"""Lines of a run: what they read and make together should stay in the cache."""


def tiled(code: Code, limit: int) -> Code:
    """The same code with its runs, none of which makes more than ``limit`` bytes live."""
    made = (line.result for line in code.lines if line.result is not None)
    if all(var.array.nbytes < LEAST for var in (*code.arguments, *made)):
        return code
    lives = _Lives(code)
    lines: list[Line] = []
    starts: list[int] = []
    """Where each line of the plain code is now."""
    gone: set[Var] = set()
    at = 0
    while at < len(code.lines):
        run = _longest(code.lines, at, lives, limit)
        if run is None:
            starts.append(len(lines))
            line = code.lines[at]
            if line.kind != "drop" or gone.isdisjoint(var.root for var in line.variables()):
                lines.append(line)
            at += 1
        else:
            starts.extend([len(lines)] * len(run.lines))
            lines.extend(run.written())
            gone.update(run.temporary)
            at += len(run.lines)
    starts.append(len(lines))
    ends = [starts[end] for end in code.ends]
    return Code(
        lines, ends, code.changes, code.held, code.arguments, code.loss, code.gradients, code.aux
    )


class _Lives:
    """Where in the plain code buffers are used last, and how many bytes are live at each line."""

    def __init__(self, code: Code) -> None:
        self.last: dict[Var, int] = {}
        first: dict[Var, int] = {}
        for at, line in enumerate(code.lines):
            if line.kind != "drop":
                for var in line.variables():
                    first.setdefault(var.root, at)
                    self.last[var.root] = at
        self.beside = {var.root for var in (*code.results, *code.arguments)}
        """What goes in and out, which is no part of a peak."""
        self.last.update(dict.fromkeys(self.beside, len(code.lines)))
        changes = [0] * (len(code.lines) + 1)
        for root in first.keys() - self.beside:
            changes[first[root]] += root.array.nbytes
            changes[self.last[root] + 1] -= root.array.nbytes
        self.live = list(accumulate(changes))
        self.runs: dict[Any, TiledRun] = {}
        """Those that were made, by what they do: layers are alike."""

    def nbytes(self, roots: set[Var]) -> int:
        return sum(root.array.nbytes for root in roots - self.beside)


def _longest(lines: Sequence[Line], start: int, lives: _Lives, limit: int) -> _Joining | None:
    """The longest run from there that pays, and that memory allows."""
    end = len(lines)
    while True:
        run = _Joining()
        at = run.take(lines, start, end)
        if not run.pays():
            return None
        for tile in TILES:
            run.finish(lines[start : at + 1], lives, at, tile)
            if run.live <= limit:
                return run
        end = at


class _Joining:
    """Elementwise lines, and reductions of rows, on their way to be one."""

    def __init__(self) -> None:
        self.extent = Extent()
        self.members: list[Line] = []
        self.pieces: list[Elementwise] = []
        self.operands: dict[Var, Operand] = {}
        self.alike: set[Var] = set()
        """Views of all of an operand, which is that operand in the run."""
        self.roots: dict[Var, set[Operand]] = {}
        """Of each buffer that is read or written, where."""
        self.changed: set[Var] = set()
        """The buffers that are written."""
        self.made: dict[Var, None] = {}
        """Those of them that are none before."""

    def take(self, lines: Sequence[Line], start: int, end: int) -> int:
        """Take in the lines from ``start`` on, as far as they can be; the place of the last one."""
        last = start
        for at in range(start, end):
            kind = lines[at].kind
            if self.members and kind == "view":
                self._see(lines[at])
            elif not self.members or kind != "drop":
                if len(self.members) == LONGEST or not self._add(lines[at]):
                    break
                last = at
        return last

    def _see(self, line: Line) -> None:
        """A view between: of all of an operand it is the operand, as it may be seen in a tile."""
        source, result = line.sources[0], line.result
        operand = self.operands.get(source) if isinstance(source, Var) else None
        if operand is None or result is None:
            return
        if self.extent.sees(result.array, operand):
            self.operands[result] = operand
            self.alike.add(result)

    def _add(self, line: Line) -> bool:
        """Take the line in; False where it can't be one of these."""
        op, result = line.op, line.result
        if op is None or result is None or line.kind not in ("call", "over"):
            return False
        given = [s.array if isinstance(s, Var) else s for s in line.sources]
        if isinstance(op, Joined):
            found = op.taking(self.extent)
        else:
            found = self.extent.taking(op, given, line.params, result.array)
        if found is None or (not self.members and found.widest.nbytes < LEAST):
            return False
        *lifts, made = found.lifts
        operands: dict[Var, Operand] = {}
        for var, lift in zip(line.sources, lifts, strict=True):
            if not isinstance(var, Var):
                continue
            known = operands.get(var) or self.operands.get(var) or Operand(var.array, lift)
            if known.array != lifted(var.array, lift):
                return False
            operands[var] = known
        over = line.kind == "over"
        operands[result] = operands[line.target] if over else Operand(result.array, made)
        arrays = [operand.array for operand in (*self.operands.values(), *operands.values())]
        if isinstance(op, Joined):
            arrays += [operand.array for p in op.run.pieces for operand in p.operands()]
        if not (self._are_apart(operands, result) and found.extent.depth(arrays)):
            return False
        self.extent = found.extent
        for var, operand in operands.items():
            self.roots.setdefault(var.root, set()).add(operand)
        self.operands.update(operands)
        self.changed.add(result.root)
        if line.kind == "call":
            self.made[result] = None
        self.members.append(line)
        self.pieces.extend(_pieces(line, op, operands, found.reduced))
        return True

    def _are_apart(self, operands: dict[Var, Operand], result: Var) -> bool:
        """Is what is written read through one operand alone? Two views of a buffer may be shifted
        against each other."""
        seen: dict[Var, set[Operand]] = {}
        for var, operand in operands.items():
            seen.setdefault(var.root, set(self.roots.get(var.root, ()))).add(operand)
        changed = self.changed | {result.root}
        return all(len(found) == 1 for root, found in seen.items() if root in changed)

    def pays(self) -> bool:
        """Is it more than one call, or one for several threads?"""
        if len(self.members) != 1:
            return bool(self.members)
        (piece, *_) = self.pieces
        nbytes = max(operand.array.nbytes for operand in piece.operands())
        return (piece.fill.is_ufunc or piece.fill.reduces) and lanes_of(nbytes) > 1

    def finish(self, lines: Sequence[Line], lives: _Lives, at: int, tile: int) -> None:
        """These are its lines, the last of them line ``at``, and what lies between them."""
        self.lines = lines
        between = [x for x in lines if x.kind == "view" and x.result not in self.alike]
        seen = {var.root for line in between for var in line.variables()}
        self.temporary = {r for r in self.made if lives.last[r] <= at and r not in seen}
        """Buffers that nobody sees outside."""
        latest = {
            operand: var
            for var, operand in self.operands.items()
            if var.root not in self.temporary and var not in self.alike
        }
        for operand, var in latest.items():
            operand.part = part_of(var.array)
        self.given = list(latest.values())
        """The variables that it reads and writes, each as it was named last."""
        key = tile, _likeness(self.pieces, list(latest))
        if key not in lives.runs:
            lives.runs[key] = TiledRun(self.pieces, list(latest), tile)
        self.run = lives.runs[key]
        late = {r for r in self.roots if lives.last[r] < at and r not in self.temporary}
        least = {r for r in self.temporary if lives.last[r] == at}
        self.live = lives.live[at] + lives.nbytes(late) - lives.nbytes(least) + self.run.nbytes

    def written(self) -> list[Line]:
        """Its lines now: room for what is made, the views between, and all the work at the end."""
        lines = [
            Line("call", partial(np.empty, var.shape, var.dtype), [], var, None, _leave)
            for var in self.made
            if var not in self.temporary
        ]
        members = set(map(id, self.members))
        for line in self.lines:
            if id(line) not in members:
                if self.temporary.isdisjoint(var.root for var in line.variables()):
                    lines.append(line)
            elif line.kind == "over" and line.target.root not in self.temporary:
                lines.append(Line("view", _same, [line.target], line.result))
        lines.append(Line("do", self.run, self.given, workspace=self.run.nbytes))
        return lines


def _pieces(line: Line, op: Any, operands: dict[Var, Operand], reduced: int) -> list[Elementwise]:
    """The line as pieces."""
    assert line.result is not None
    sources = tuple(operands[s] if isinstance(s, Var) else s for s in line.sources)
    target = operands[line.result]
    if isinstance(op, Joined):
        known = dict(zip(op.run.given, (*sources, target), strict=True))
        return [_moved(piece, known) for piece in op.run.pieces]
    piece = Elementwise(op, sources, line.params or {}, target, reduced)
    if reduced or target not in sources or piece.may_write_over(target):
        return [piece]
    beside = Operand(target.array)
    made = Elementwise(op, sources, line.params or {}, beside)
    return [made, Elementwise(NUMPY[np.positive], (beside,), {}, target)]


def _likeness(pieces: Sequence[Elementwise], given: Sequence[Operand]) -> Any:
    """The same for runs that do the same with arrays that lie alike."""
    numbers: dict[Operand, int] = {}

    def said(source: Any) -> Any:
        if isinstance(source, Operand):
            return numbers.setdefault(source, len(numbers))
        return type(source), repr(source)

    calls = [
        (piece.op, *map(said, piece.sources), repr(piece.params), said(piece.target))
        for piece in pieces
    ]
    arrays = [(operand.array, repr(operand.part)) for operand in numbers]
    return tuple(calls), tuple(arrays), tuple(map(said, given))


def _moved(piece: Elementwise, known: dict[Operand, Operand]) -> Elementwise:
    """The same piece on other operands."""

    def at(operand: Operand) -> Operand:
        return known.setdefault(operand, Operand(operand.array))

    sources = tuple(at(s) if isinstance(s, Operand) else s for s in piece.sources)
    return Elementwise(piece.op, sources, piece.params, at(piece.target), piece.reduced)


def _leave(out: Any) -> None:
    """Room is made for the array, and no more."""


def _same(array: Any) -> Any:
    return array
