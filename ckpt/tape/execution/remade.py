"""What is quicker made again, tile by tile, than written to memory and read back.

Of a large array that a run of elementwise calls makes in the forward and another reads in the
backward, one call makes each tile again, of what is in the cache there for other reasons. So a
compiled step does that call twice, and the array is none. Its bits are those of the same call on
the same operands, and no more bytes are live: what it reads must be there anyway.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from ckpt.tape.core.op import NUMPY
from ckpt.tape.execution import tiling
from ckpt.tape.execution.lines import Code, Line, Var
from ckpt.tape.traced.joined import Joined
from ckpt.tape.traced.pieces import is_piece

QUICK = {
    NUMPY[function]
    for function in (
        np.add, np.subtract, np.multiply, np.true_divide, np.negative, np.square, np.absolute,
        np.maximum, np.minimum,
    )
}  # fmt: skip
"""Ops that take less time in the cache than memory takes."""


def remade(code: Code) -> Code:
    """The same code, with such arrays made again in front of what reads them in the backward."""
    quick = [at for at, line in enumerate(code.lines) if _is_quick(line)]
    if not quick:
        return code
    uses = _Uses(code)
    places = [[line] for line in code.lines]
    """Of each line what stands in its place now: what is made again, and the line itself."""
    again: dict[Var, tuple[int, Var]] = {}
    """For each array that is made again, where, and what it is from there on."""
    for at in quick:
        line = code.lines[at]
        var = line.result
        assert var is not None
        there = uses.far(at, var)
        if there is None or not uses.are_there(line, at, there, again):
            continue
        made = uses.like(var)
        for place in uses.of[var]:
            if place >= there:
                _rename(places[place], var, made)
        sources = [_there(source, there, again) for source in line.sources]
        places[there].insert(-1, replace(line, sources=sources, result=made))
        again[var] = there, made
        if uses.of[var][0] == there:  # nothing else reads it
            places[at].remove(line)
    starts = [0]
    for now in places:
        starts.append(starts[-1] + len(now))
    lines = [line for now in places for line in now]
    return replace(code, lines=lines, ends=[starts[end] for end in code.ends])


def _rename(lines: Iterable[Line], var: Var, made: Var) -> None:
    """They read ``made``, and what lies in ``var`` lies there."""
    for line in lines:
        line.sources = [made if source is var else source for source in line.sources]
        for other in line.variables():
            if other.root is var:
                other.move(made)


def _there(source: Any, there: int, again: dict[Var, tuple[int, Var]]) -> Any:
    """What line ``there`` reads for a source."""
    place, made = again.get(source, (there + 1, source)) if isinstance(source, Var) else (0, source)
    return made if place <= there else source


class _Uses:
    """Where in a code buffers are used and written, and what parts its elementwise runs."""

    def __init__(self, code: Code) -> None:
        self.of: defaultdict[Var, list[int]] = defaultdict(list)
        """Lines that use a buffer, the one that makes it aside."""
        self.written: defaultdict[Var, list[int]] = defaultdict(list)
        self.seen: defaultdict[Var, list[int]] = defaultdict(list)
        """Lines where a buffer is used otherwise than as it was made."""
        self.nested: set[Var] = set()
        """Buffers that are used in a tuple of arrays."""
        self.bounds: list[int] = []
        """Lines that are in no run."""
        self.stay = {var.root for var in (*code.results, *code.arguments)}
        for at, line in enumerate(code.lines):
            if line.kind == "drop":
                continue
            if line.kind != "view" and not _is_in_a_run(line):
                self.bounds.append(at)
            direct = [source for source in line.sources if isinstance(source, Var)]
            for var in line.variables():
                if var is line.result and var.root is var:
                    continue
                self.of[var.root].append(at)
                if var.root is not var:
                    self.seen[var.root].append(at)
                if var not in direct and var is not line.result:
                    self.nested.add(var.root)
                if line.kind == "do" or (line.kind == "over" and var is line.result):
                    self.written[var.root].append(at)

    def like(self, var: Var) -> Var:
        """Another of its kind, which is used where it was."""
        made = Var(var.array)
        for known in (self.of, self.written, self.seen):
            known[made] = known[var]
        return made

    def far(self, at: int, var: Var) -> int | None:
        """Where another run than that of line ``at`` begins to read what it makes, if that one is
        the only other one."""
        uses = self.of[var]
        between = bisect_right(self.bounds, at)
        if not uses or between == len(self.bounds) or var in self.stay | self.nested:
            return None
        far = bisect_right(uses, self.bounds[between])
        if far == len(uses) or not self._are_together(uses[far], uses[-1]):
            return None
        there = uses[far]
        return None if any(place < there for place in self.seen[var]) else there

    def are_there(self, line: Line, at: int, there: int, again: dict[Var, tuple[int, Var]]) -> bool:
        """Is what line ``at`` reads the same at line ``there``, and read there anyway?"""
        assert line.result is not None
        for source in line.sources:
            if not isinstance(source, Var):
                continue
            uses = self.of[source.root]
            if any(at < place < there for place in self.written[source.root]):
                return False
            if source in again and self._are_together(again[source][0], there):
                continue
            last = uses[-1] if source.root not in self.stay else there
            small = source.array.nbytes * 8 <= line.result.array.nbytes
            if last < there or not (small or any(self._are_together(p, there) for p in uses)):
                return False
        return True

    def _are_together(self, one: int, other: int) -> bool:
        """Is nothing between these lines, or among them, that is in no run?"""
        low, high = min(one, other), max(one, other)
        return bisect_left(self.bounds, low) == bisect_right(self.bounds, high)


def _is_in_a_run(line: Line) -> bool:
    """As far as the op tells."""
    op = line.op
    return (
        line.kind in ("call", "over")
        and op is not None
        and (op.fill is not None or isinstance(op, Joined))
    )


def _is_quick(line: Line) -> bool:
    """Does it make a large array, in a way that is quick in tiles?"""
    var = line.result
    if var is None or line.kind != "call" or line.op not in QUICK:
        return False
    given = [source.array if isinstance(source, Var) else source for source in line.sources]
    large = getattr(var.array, "nbytes", 0) >= tiling.LEAST
    return large and is_piece(line.op, given, var.array)
