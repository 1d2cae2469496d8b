"""What `chain_dp` is told of a chain, and how bytes become slots.

A table has a column for each slot of memory, so bytes are rounded up to slots. Rounding each item
by itself would lose half a slot for each stage that is kept; `choose_unit` and `credits_of` see to
it that storing everything loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import gcd
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Tape(NamedTuple):
    """One choice of what a stage keeps from its forward to its backward. Bytes beyond its input."""

    held: int
    """Kept in between, what crosses to the next stage included."""
    cost: int
    """Of the forward that keeps it, and of all that its backward then recomputes."""
    forward_peak: int
    """Cotangents aside."""
    backward_peak: int
    """Cotangents included."""


class Visit(NamedTuple):
    """One way of going forward and at once backward through a stage that nobody reads any more."""

    cost: int
    peak: int
    """Bytes beyond its input, cotangents included."""


@dataclass(frozen=True)
class Kind:
    """What there is to know of a stage. Stages of one kind share their sub-problems.

    No tape may cost more than an advance and a visit together: then storing everything costs least.
    """

    once_cost: int
    """To compute each of its values once."""
    advance_cost: int
    """To compute what crosses to the next stage, keeping nothing else."""
    advance_peak: int
    """Bytes beyond its input while it does so, cotangents aside."""
    crossing: tuple[int, ...]
    """``crossing[k]``: bytes made here that still cross k cuts further on (0: the next one)."""
    cotangents: int
    """Bytes of cotangents that are live while a segment that ends here waits for its backward."""
    tapes: tuple[Tape, ...]
    visits: tuple[Visit, ...]


class Operation(NamedTuple):
    """``advance`` stages first..last keeping nothing; ``tape``, ``backward`` or ``visit`` stage
    ``first`` with its option number ``last``."""

    word: str
    first: int
    last: int

    def behind(self, stages: int) -> Operation:
        """The same, so many stages further on."""
        last = self.last + stages if self.word == "advance" else self.last
        return Operation(self.word, self.first + stages, last)


def table_work(sequence: Sequence[int]) -> int:
    """About how many additions a slot the table of such a chain takes."""
    _, repeats = twins_of(np.unique(np.array(sequence), return_inverse=True)[1])
    lengths = np.arange(len(sequence), 0, -1)
    return int((lengths * lengths - repeats * repeats).sum()) // 2


def front(rows: Sequence[tuple[int, ...]], points: int) -> list[int]:
    """Which rows (bytes, cost, and what decides on a tie) no other beats in both, by rising bytes.

    Of too many, those go first whose loss adds the least area under the staircase; but those on the
    lower hull go last, since where stages are equal a plan mixes them.
    """
    found: list[int] = []
    hull: list[int] = []
    for k in sorted(range(len(rows)), key=lambda k: rows[k]):
        if not found or rows[k][1] < rows[found[-1]][1]:
            found.append(k)
            while len(hull) > 1 and _above(*(rows[i] for i in (*hull[-2:], k))):
                hull.pop()
            hull.append(k)
    spared = set(hull) if len(hull) <= points else set()
    return _thinned([rows[k] for k in found], [k in spared for k in found], found, points)


def _thinned(
    stairs: Sequence[tuple[int, ...]], spared: Sequence[bool], names: Sequence[int], points: int
) -> list[int]:
    """``names`` without those inner steps whose loss adds least area, and of the spared the last,
    until there are at most ``points``."""
    before = list(range(-1, len(names) - 1))
    behind = list(range(1, len(names) + 1))

    def loss(b: int) -> tuple[bool, int, int]:
        a, c = before[b], behind[b]
        return spared[b], (stairs[a][1] - stairs[b][1]) * (stairs[c][0] - stairs[b][0]), b

    heap = [loss(b) for b in range(1, len(names) - 1)]
    heapify(heap)
    gone: set[int] = set()
    while len(names) - len(gone) > max(points, 2):
        least = heappop(heap)
        b = least[-1]
        if b in gone or least != loss(b):
            continue  # its neighbours have changed since
        gone.add(b)
        a, c = before[b], behind[b]
        behind[a], before[c] = c, a
        for side in (a, c):
            if 0 < side < len(names) - 1:
                heappush(heap, loss(side))
    return [name for b, name in enumerate(names) if b not in gone]


def _above(a: tuple[int, ...], b: tuple[int, ...], c: tuple[int, ...]) -> bool:
    """Does ``b`` (bytes, cost) lie on or above the line from ``a`` to ``c``?"""
    return (a[1] - b[1]) * (c[0] - a[0]) <= (a[1] - c[1]) * (b[0] - a[0])


def all_costs(kind: Kind) -> list[int]:
    options: list[Tape | Visit] = [*kind.tapes, *kind.visits]
    return [kind.once_cost, kind.advance_cost, *(option.cost for option in options)]


def crossing_beside(stages: Sequence[Kind]) -> Ints:
    """``[s, j]``: bytes that cross the cut before j and were made in stages s to j-1."""
    L = len(stages)
    beside = np.zeros((L + 1, L + 1), np.int64)
    for s in range(L - 1, -1, -1):
        beside[s] = beside[s + 1]
        made = np.array(stages[s].crossing[: L - s], np.int64)
        beside[s, s + 1 : s + 1 + len(made)] += made
    return beside


def twins_of(labels: Ints) -> tuple[Ints, Ints]:
    """For each s a later stage from which most stages are the same as from s, and how many."""
    L = len(labels)
    twins, repeats = np.zeros(L, np.int64), np.zeros(L, np.int64)
    same = np.zeros(L + 1, np.int64)
    for s in range(L - 1, -1, -1):
        same[:L] = np.where(labels == labels[s], same[1:] + 1, 0)
        if s + 1 < L:
            twins[s] = s + 1 + same[s + 1 : L].argmax()
            repeats[s] = same[twins[s]]
    return twins, repeats


def cheapest(kind: Kind) -> Tape:
    return min(kind.tapes, key=lambda tape: (tape.cost, tape.held))


def credits_of(stages: Sequence[Kind], unit: int, scale: int) -> Ints:
    """For each position, the part of a slot by which the full tape up to it was rounded up."""
    taped = np.cumsum([0, *(cheapest(kind).held for kind in stages)], dtype=np.int64)
    return -taped * scale % unit


def _store_all_nbytes(stages: Sequence[Kind]) -> int:
    """The bytes with which nothing need be recomputed."""
    peak, held = 0, 0
    for kind in stages[:-1]:
        tape = cheapest(kind)
        peak = max(peak, held + max(tape.forward_peak + stages[-1].cotangents, tape.backward_peak))
        held += tape.held
    return max(peak, held + min(stages[-1].visits).peak)


def choose_unit(stages: Sequence[Kind], labels: Ints, slots: int) -> tuple[int, int]:
    """The bytes of a slot, as a fraction: such that storing everything takes about ``slots``."""
    total = _store_all_nbytes(stages)
    common = gcd(*(n for kind in set(stages) for n in _all_bytes(kind))) or 1
    if total <= slots * common:
        return common, 1
    held = [cheapest(kind).held for kind in stages]
    twins, repeats = twins_of(labels)
    first = int(repeats.argmax())
    period = int(twins[first]) - first
    taped = sum(held[first : first + period]) if 2 * repeats[first] >= len(stages) else sum(held)
    if not taped:
        return -(-total // slots), 1
    periods = max(1, round(total / (taped * slots)))
    return periods * taped, max(1, round(periods * taped * slots / total))


def _all_bytes(kind: Kind) -> list[int]:
    peaks = [n for tape in kind.tapes for n in (tape.held, tape.forward_peak, tape.backward_peak)]
    return [
        kind.advance_peak,
        kind.cotangents,
        *kind.crossing,
        *peaks,
        *(v.peak for v in kind.visits),
    ]
