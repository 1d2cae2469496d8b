"""The dynamic programme of `chain`: numbers in, stage-level operations out. No graph in sight.

Source: Beaumont et al. 2019 (arXiv:1911.13214, section 4, the persistent schedules of rotor), with
options per stage as in Rockmate (Zhao et al. 2023), and three changes:

- the cotangent d_s that arrives at a stage is live during its backward; the published recurrence
  omits it, and then more than half of random plans exceed their budget;
- a value that crosses several cuts is counted once beside a snapshot that holds it already;
- the last stage of a segment, whose output nobody reads any more, is visited once: forward as far
  as its backward needs, and backward at once.

With s..t the stages of a segment whose input is stored by somebody else, and m the slots beyond it,
the least *extra* cost (beyond computing every value once) are::

    E(s,s,m) = min over visits v          v.cost - once(s)                      if m >= v.peak
    E(s,t,m) = min over
        tapes o of s:  o.cost - once(s) + E(s+1, t, m - o.held)
                                            if m >= max(d(t) + o.forward_peak, o.backward_peak)
        s < j <= t:    advance(s..j-1) + E(j, t, m - beside(s,j)) + E(s, j-1, m)
                                            if m >= d(t) + peak of advance(s..j-1)

Letters: L stages, s <= j <= t stages, m slots, d(t) cotangent bytes that wait for stage t.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ckpt.planners.base import clock
from ckpt.planners.chain.kinds import (
    Ints,
    Kind,
    Operation,
    Tape,
    all_costs,
    cheapest,
    choose_unit,
    credits_of,
    crossing_beside,
    twins_of,
)

Floats = NDArray[np.float32]

ADDED = 1000
"""Additions that are a unit of work."""


class _Row(NamedTuple):
    """Of a segment's first stage s, for each j = s+1 ..: what restarting at j takes."""

    beside: Ints
    """Slots of the boundary before j that the one before s doesn't hold already."""
    cost: Floats
    """To advance from s to j."""
    peak: Ints
    """Bytes at most while advancing from s to j, cotangents aside."""


class Table:
    """E(s,t,m) for all segments and budgets of one chain, ``slots`` wide.

    The bytes of a slot are chosen for the chain and not for a budget, so a larger budget never
    costs more. Where the chain's bytes have a common divisor that is coarse enough the table is
    exact; otherwise bytes are rounded up, so no plan needs more than it was given. What is rounded
    is the *offset* of a stage in the full tape: position s owns a credit of less than one slot, and
    storing everything loses nothing to rounding. Where stages repeat, a slot is made to divide the
    tape of a period (of several periods, if need be), so that the credits repeat as well.

    Cost: O(L^2) segments of O(L slots) each, in float32. Segments of equal stages are one: a chain
    that repeats with period p has O(p L) of them.
    """

    def __init__(self, kinds: Sequence[Kind], sequence: Sequence[int], slots: int) -> None:
        self.stages = [kinds[k] for k in sequence]
        self.size = L = len(sequence)
        self._cotangents = np.array([k.cotangents for k in self.stages], np.int64)
        self._beside = crossing_beside(self.stages)
        labels = np.array(sequence, np.int64)
        # A slot is `unit / scale` bytes, a fraction; inside the table bytes are multiplied out.
        self.unit, self.scale = choose_unit(self.stages, labels, slots)
        self._credit = credits_of(self.stages, self.unit, self.scale)
        twins, repeats = twins_of(labels + (labels.max() + 1) * self._credit[:L])
        self.slots = self._store_all_slots()
        self.cost_unit = gcd(*(f for k in self.stages for f in all_costs(k))) or 1
        self._fill(twins, repeats)

    def within(self, nbytes: int) -> int:
        """How many whole slots ``nbytes`` are."""
        return nbytes * self.scale // self.unit

    def nbytes(self, slots: int) -> int:
        """The bytes that are enough for ``slots``."""
        return -(-slots * self.unit // self.scale)

    # -- bytes and slots ---------------------------------------------------------------------------

    def _needs(self, s: int, nbytes: Any) -> Any:
        """Slots at position s that hold ``nbytes``."""
        return np.maximum(-((self._credit[s] - nbytes * self.scale) // self.unit), 0)

    def _shift(self, s: int, j: Any, nbytes: Any) -> Any:
        """Slots that ``nbytes`` take away between position s and position j."""
        shift = -((self._credit[s] - self._credit[j] - nbytes * self.scale) // self.unit)
        return np.maximum(shift, 0)

    def _store_all_slots(self) -> int:
        """With so many nothing need be recomputed."""
        last = self.size - 1
        slots = int(self._needs(last, min(self.stages[last].visits).peak))
        for s in range(last - 1, -1, -1):
            tape = cheapest(self.stages[s])
            shifted = slots + int(self._shift(s, s + 1, tape.held))
            slots = max(shifted, int(self._tape_needs(s, tape, last)))
        return slots

    def _cost(self, cost: int) -> float:
        return cost / self.cost_unit

    # -- the table ---------------------------------------------------------------------------------

    def _fill(self, twins: Ints, repeats: Ints) -> None:
        """All segments, the last stage's first; a row of the pool is a segment, its columns m."""
        L, M = self.size, self.slots
        self._rows = [self._row(s) for s in range(L)]
        held = max((t.held for k in self.stages for t in k.tapes), default=0)
        widest = max(
            [
                -(-held * self.scale // self.unit) + 1,
                *(int(r.beside.max(initial=0)) for r in self._rows),
            ]
        )
        self._pad = min(M + 1, widest)  # infinities before each row: m - shift may be negative
        self._width = self._pad + M + 1
        self.distinct = int((np.arange(L, 0, -1) - repeats).sum())
        self._pool = np.full(self.distinct * self._width, np.inf, np.float32)
        self._at = np.zeros((L, L), np.int64)  # where a segment's m = 0 is in the pool
        least = np.full((L, L), M + 1, np.int64)  # the fewest slots it can do with
        ample = np.zeros((L, L), np.int64)  # the slots beyond which more are of no use
        left = np.full((L, M + 1), np.inf, np.float32)  # of this s, its segments and their advance
        columns = np.arange(M + 1)
        filled = 0

        for s in range(L - 1, -1, -1):
            clock.check()
            twin, shared = int(twins[s]), int(repeats[s])
            row = self._rows[s]
            for table in (self._at, least, ample):
                table[s, s : s + shared] = table[twin, twin : twin + shared]
            if shared:
                left[:shared] = self._windows(self._at[s, s : s + shared], M + 1)
                left[: min(shared, L - 1 - s)] += row.cost[:shared, None]
            new = range(s + shared, L)
            fresh = self._pad + self._width * np.arange(filled, filled + len(new))
            self._at[s, new.start :] = fresh
            filled += len(new)
            if new and new.start == s:
                out = self._pool[fresh[0] : fresh[0] + M + 1]
                self._fill_visits(s, out, columns)
                least[s, s] = np.isfinite(out).argmax() if np.isfinite(out[-1]) else M + 1
                ample[s, s] = out.argmin()
                if s + 1 < L:
                    np.add(out, row.cost[0], out=left[0])
                new = range(s + 1, L)
            if not new:
                continue
            taped, taped_least, taped_ample = self._taped(s, new, least, ample)
            ample[s, new.start :] = taped_ample
            for t in new:
                k = t - s
                need = self._needs(s, row.peak[:k] + self._cotangents[t])
                both = np.maximum(least[s, s:t], least[s + 1 : t + 1, t] + row.beside[:k])
                low = min(int(np.maximum(both, need).min()), int(taped_least[t - new.start]))
                least[s, t] = min(low, M + 1)
                if low > M:
                    left[k] = np.inf
                    continue
                high = max(min(int(ample[s, t]), M), low)
                begin = self._at[s + 1 : t + 1, t] - row.beside[:k] + low
                costs = self._windows(begin, high + 1 - low)
                costs += left[:k, low : high + 1]
                for j in np.flatnonzero(need > np.maximum(both, low)):
                    costs[j, : need[j] - low] = np.inf
                start = self._at[s, t]
                out = self._pool[start + low : start + high + 1]
                clock.spend(20 + costs.size // ADDED)
                costs.min(axis=0, out=out)
                np.minimum(out, taped[t - new.start, low : high + 1], out=out)
                self._pool[start + high + 1 : start + M + 1] = out[-1]
                if t + 1 < L:
                    np.add(self._pool[start : start + M + 1], row.cost[k], out=left[k])
        self.least = int(least[0, L - 1])

    def _windows(self, begin: Ints, width: int) -> Floats:
        """A copy of the pool's ``width`` entries from each of the positions ``begin``."""
        pool = self._pool
        count = len(pool) - width + 1
        windows = np.ndarray((count, width), np.float32, pool, strides=(4, 4))
        result: Floats = windows[begin]
        return result

    def advance_peaks(self, s: int) -> Ints:
        """Bytes at most while advancing from s to behind each stage t, cotangents aside."""
        peaks = np.array([k.advance_peak for k in self.stages[s:]], np.int64)
        peaks[1:] += self._beside[s, s + 1 : self.size]
        return np.maximum.accumulate(peaks)

    def _row(self, s: int) -> _Row:
        later = np.arange(s + 1, self.size)
        cost = np.cumsum([k.advance_cost // self.cost_unit for k in self.stages[s:-1]])
        return _Row(
            beside=np.minimum(
                self._shift(s, later, self._beside[s, s + 1 : self.size]), self.slots + 1
            ),
            cost=cost.astype(np.float32),
            peak=self.advance_peaks(s)[:-1],
        )

    def _fill_visits(self, s: int, out: Floats, columns: Ints) -> None:
        kind = self.stages[s]
        for visit in kind.visits:
            cost = np.float32(self._cost(visit.cost - kind.once_cost))
            within = columns >= self._needs(s, visit.peak)
            np.minimum(out, cost, out=out, where=within)

    def _tape_needs(self, s: int, tape: Tape, t: Any) -> Any:
        return self._needs(
            s, np.maximum(tape.forward_peak + self._cotangents[t], tape.backward_peak)
        )

    def _taped(self, s: int, new: range, least: Ints, ample: Ints) -> tuple[Floats, Ints, Ints]:
        """For each t: the least costs of segments s..t that tape stage s; the fewest slots that
        do; the slots with which the cheapest tape does."""
        kind = self.stages[s]
        ends = np.arange(new.start, new.stop)
        best = np.full((len(new), self.slots + 1), np.inf, np.float32)
        fewest = np.full(len(new), self.slots + 1, np.int64)
        cheapest = min(kind.tapes, key=lambda tape: (tape.cost, tape.held))
        enough = np.full(len(new), self.slots, np.int64)
        for tape in kind.tapes:
            shift = self._shift(s, s + 1, tape.held)
            need = self._tape_needs(s, tape, ends)
            costs = self._windows(self._at[s + 1, ends] - min(shift, self._pad), self.slots + 1)
            costs += np.float32(self._cost(tape.cost - kind.once_cost))
            below = least[s + 1, ends] + shift
            for i in np.flatnonzero(need > below):
                costs[i, : need[i]] = np.inf
            np.minimum(best, costs, out=best)
            np.minimum(fewest, np.maximum(below, need), out=fewest)
            if tape is cheapest:
                enough = np.maximum(ample[s + 1, ends] + shift, need)
        return best, fewest, enough

    # -- reading it --------------------------------------------------------------------------------

    def steps(self) -> list[int]:
        """The slots at which the least cost changes, ascending: the whole frontier."""
        start = self._at[0, self.size - 1]
        costs = self._pool[start : start + self.slots + 1]
        found = [m for m in range(self.slots + 1) if np.isfinite(costs[m])]
        return [m for m in found if m == found[0] or costs[m] < costs[m - 1]]

    def costs(self, slots: Sequence[int]) -> list[int]:
        """The extra cost within so many slots, to the seven digits of float32."""
        start = self._at[0, self.size - 1]
        return [round(float(self._pool[start + m]) * self.cost_unit) for m in slots]

    def ample(self, s: int, t: int) -> tuple[int, int]:
        """The slots beyond which more are of no use to the segment s..t, and its extra cost then;
        see `costs`."""
        start = self._at[s, t]
        costs = self._pool[start : start + self.slots + 1]
        m = int(costs.argmin())
        return m, round(float(costs[m]) * self.cost_unit)

    def operations(self, m: int, s: int = 0, t: int | None = None) -> list[Operation]:
        """What to do within m slots, for all stages or s..t: the choices along one path, made again
        from the table."""
        found: list[Operation] = []
        last = self.size - 1 if t is None else t
        todo: list[Operation | tuple[int, int, int]] = [(s, last, m)]
        while todo:
            item = todo.pop()
            if isinstance(item, Operation):
                found.append(item)
            else:
                todo.extend(reversed(self._choose(*item)))
        return found

    def _choose(self, s: int, t: int, m: int) -> list[Operation | tuple[int, int, int]]:
        kind = self.stages[s]
        if s == t:
            fitting = [i for i, v in enumerate(kind.visits) if m >= self._needs(s, v.peak)]
            return [Operation("visit", s, min(fitting, key=lambda i: kind.visits[i]))]
        best, choice = np.inf, -1
        for i, tape in enumerate(kind.tapes):
            left = m - int(self._shift(s, s + 1, tape.held))
            if m >= self._tape_needs(s, tape, t) and left >= 0:
                cost = self._pool[self._at[s + 1, t] + left] + np.float32(
                    self._cost(tape.cost - kind.once_cost)
                )
                if cost < best:
                    best, choice = cost, i
        if best <= self._pool[self._at[s, t] + m]:
            return self._tape_then(s, t, m, choice)
        row, k = self._rows[s], t - s
        need = self._needs(s, row.peak[:k] + self._cotangents[t])
        able = np.flatnonzero((m >= need) & (m >= row.beside[:k]))
        costs = self._pool[self._at[s + 1 + able, t] + m - row.beside[able]] + (
            self._pool[self._at[s, s + able] + m] + row.cost[able]
        )
        j = s + 1 + int(able[costs.argmin()])
        advance = Operation("advance", s, j - 1)
        return [advance, (j, t, m - int(row.beside[j - s - 1])), (s, j - 1, m)]

    def _tape_then(
        self, s: int, t: int, m: int, choice: int
    ) -> list[Operation | tuple[int, int, int]]:
        left = m - int(self._shift(s, s + 1, self.stages[s].tapes[choice].held))
        return [Operation("tape", s, choice), (s + 1, t, left), Operation("backward", s, choice)]
