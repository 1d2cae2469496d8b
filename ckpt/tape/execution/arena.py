"""Where each array of a compiled step lies: offsets in one block of memory, by lifetime."""

from __future__ import annotations

from bisect import bisect_right
from itertools import zip_longest
from typing import Any

import numpy as np

from ckpt.tape.execution.lines import Code, Var

ALIGNMENT = 64


def place(code: Code) -> int:
    """Give every array that its call can write into an offset; return the bytes of the arena.

    Largest first, each at the lowest offset that is free during its life: for the equal arrays of a
    layered net this reaches the most bytes that are ever live at once, which no placing can beat.
    """
    lifetimes(code)
    returned = {var.root for var in code.results}
    placed: dict[Var, None] = {}
    for line in code.lines:
        result = line.result
        if line.kind != "call" or not line.writes or result is None:
            continue
        if result.shape and result not in returned:
            result.placed = True
            placed[result] = None
    busy = _Busy(len(placed))
    for var in sorted(placed, key=lambda v: (-v.array.nbytes, v.first)):
        var.offset = busy.place(var.first, var.last, padded(var))
    return busy.top


def lifetimes(code: Code) -> None:
    """From which line to which each buffer is used."""
    for at, line in enumerate(code.lines):
        if line.kind == "drop":
            continue
        for var in line.variables():
            root = var.root
            if root.first < 0:
                root.first = at
            root.last = at
    for var in code.results:
        var.root.last = len(code.lines)


def padded(var: Var) -> int:
    return int(-(-var.array.nbytes // ALIGNMENT) * ALIGNMENT)


class _Busy:
    """The places that are given away, by offset."""

    def __init__(self, most: int) -> None:
        self._places = np.empty((4, most), np.int64)
        """First line, last line, offset, end."""
        self._count = 0
        self.top = 0

    def place(self, first: int, last: int, size: int) -> int:
        """The lowest offset at which so many bytes meet none of the arrays that live then."""
        given = self._places[:, : self._count]
        _, _, starts, ends = given[:, (given[0] <= last) & (given[1] >= first)]
        below = np.maximum.accumulate(np.concatenate(([0], ends)))
        wide = np.flatnonzero(starts - below[:-1] >= size)
        offset = int(below[wide[0]] if len(wide) else below[-1])
        at = int(np.searchsorted(given[2], offset))
        self._count += 1
        self._places[:, at + 1 : self._count] = self._places[:, at : self._count - 1].copy()
        self._places[:, at] = first, last, offset, offset + size
        self.top = max(self.top, offset + size)
        return offset


def beside(code: Code) -> int:
    """The most bytes outside the arena at once: arrays and workspace, what is returned aside.

    As in a timeline a gradient's own room is there from the instruction on that makes it.
    """
    elsewhere = {var.root for var in (*code.results, *code.arguments)}
    changes = [0] * (len(code.lines) + 2)
    starts = [0, *code.ends]
    for root in {var.root for var in code.gradients if var is not None}.difference(code.arguments):
        changes[starts[bisect_right(starts, root.first) - 1]] -= root.array.nbytes
        changes[root.first] += root.array.nbytes
    seen: set[Var] = set()
    for line in code.lines:
        for var in line.variables():
            root = var.root
            if root in seen or root.placed or root in elsewhere:
                continue
            seen.add(root)
            whole = root.taken_from  # which holds it as long as it lasts itself
            changes[root.first if whole is None else whole.last + 1] += root.array.nbytes
            changes[root.last + 1] -= root.array.nbytes
    live = most = 0
    for change, line in zip_longest(changes, code.lines):
        live += change
        most = max(most, live + (line.workspace if line else 0))
    return most


def block(nbytes: int) -> Any:
    """The arena's memory, aligned."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]
