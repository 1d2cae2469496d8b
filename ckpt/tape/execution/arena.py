"""Where each array of a compiled step lies: offsets in one block of memory, by lifetime."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
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
    busy = _Busy(sorted({var.first for var in placed}))
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


Ranges = list[int]
"""Where bytes are given away: start, end, start, end and so on, rising, no two ranges touching."""


class _Busy:
    """The places that are given away, by time: a tree over the moments at which a life begins.

    A node of it stands for a stretch of time and has two unions of ranges: of what lives all
    through it and not through its parent, and of what lives in any part of it. In most steps what
    lives at once lies densely, so these unions are a few ranges each, and a place costs a few
    tree's heights, however many have been given away.
    """

    def __init__(self, moments: list[int]) -> None:
        self._moments = moments
        self._throughout: dict[int, Ranges] = {}
        self._somewhere: dict[int, Ranges] = {}
        self.top = 0

    def place(self, first: int, last: int, size: int) -> int:
        """The lowest offset at which so many bytes meet none of the arrays that live then."""
        leaves = len(self._moments)
        low = leaves + bisect_left(self._moments, first)
        high = leaves + bisect_right(self._moments, last) - 1
        within = _covering(low, high)
        met = [self._somewhere[k] for k in within if k in self._somewhere]
        for leaf in {low, high}:
            around = (leaf >> up for up in range(leaf.bit_length()))
            met += [self._throughout[k] for k in around if k in self._throughout]
        offset = _lowest(met, size)
        end = offset + size
        for k in within:
            _join(self._throughout, k, offset, end)
            _join(self._somewhere, k, offset, end)
        for leaf in {low, high}:
            k = leaf
            while k and (_join(self._somewhere, k, offset, end) or k in within):
                k >>= 1  # where it was known it was known to all above
        self.top = max(self.top, end)
        return offset


def _covering(low: int, high: int) -> list[int]:
    """The fewest nodes that stand for leaves low to high; node k's parent is k // 2."""
    found = []
    while low <= high:
        if low & 1:
            found.append(low)
            low += 1
        if not high & 1:
            found.append(high)
            high -= 1
        low >>= 1
        high >>= 1
    return found


def _lowest(met: list[Ranges], size: int) -> int:
    """The lowest offset of so many bytes outside of all of these."""
    offset, before = 0, -1
    while offset != before:
        before = offset
        for edges in met:
            k = bisect_right(edges, offset)
            while k & 1 or (k < len(edges) and edges[k] < offset + size):
                k |= 1
                offset = edges[k]
                k += 1
    return offset


def _join(unions: dict[int, Ranges], k: int, start: int, end: int) -> bool:
    """Add a range to node k's; was any of it new?"""
    edges = unions.get(k)
    if edges is None:
        unions[k] = [start, end]
        return True
    i, j = bisect_left(edges, start), bisect_right(edges, end)
    new = [start] * (not i & 1) + [end] * (not j & 1)  # neither where a range goes on
    if edges[i:j] == new:
        return False
    edges[i:j] = new
    return True


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
