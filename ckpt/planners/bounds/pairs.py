"""The pair program: what is live at some moments, and what is computed between any two of them.

Columns from 0 to 1, for moments 1..M (moment 0 is the start, M+1 the end) and items i:

- ``live[p][i]``: i is live at moment p; 1 if it reads i.
- ``made[p][i]``: i is computed at least once between moments p and p+1. These cost.
- ``between[u,v][i]``: the same between any moments u < v; ``made`` where v = u + 1.

Rows, with have(i) = live[u][i] + between[u,v][i]: have(i) >= 1 for what is read in (u, v], and for
the deps of j have(d) >= between[u,v][j]; have(i) >= live[v][i]; between[u,v][i] <= the sum of
``made`` from u to v; live[p][i] <= that from the start to p, which is >= 1 for what is certainly
computed; what is live at p fits in its room. Checkmate's relaxation (Jain et al. 2020, §4) has rows
for neighbours only: there a value that is half carried and half computed serves several intervals
at once, which the other pairs forbid.
"""

from __future__ import annotations

from itertools import combinations
from math import gcd
from typing import Any

import numpy as np

from ckpt.planners.bounds.boxes import BoxProgram
from ckpt.planners.bounds.reduced import Moment, Reduced

COST_BITS, BYTE_BITS = 40, 20
"""Costs are scaled so that their sum, and bytes so that the room, has so many bits at most."""

SMALLER = 3
"""A program that is folded has fewer entries by this factor at least."""

ROUNDINGS = 3
"""The room is also counted in so many of the sizes that are most common, rounded down."""


class Pairs:
    """The program for some moments, ascending."""

    def __init__(self, reduced: Reduced, moments: list[Moment]) -> None:
        self.reduced = reduced
        self.moments = moments
        self.program = BoxProgram()
        self.folded = False
        total = sum(reduced.costs)
        self.shift = total.bit_length() - COST_BITS
        """Costs are divided by this power of two, rounded down."""
        scaled = [_shifted(cost, self.shift) for cost in reduced.costs]
        self.costs = np.array(scaled, dtype=np.int64)
        self.once = int(self.costs.sum())
        self.live = [np.full(len(reduced), -1)]
        self._columns()
        self._counts()
        for p, moment in enumerate(moments, 1):
            self._room(p, moment)
        for u, v in combinations(range(1, len(moments) + 2), 2):
            self._pair(u, v)

    def fold(self) -> bool:
        """Make one of equal layers, unless that hardly makes the program smaller; was it done?"""
        folded = self.program.folded(self.reduced.alike(self.moments))
        smaller = len(folded.entries[0]) * SMALLER < len(self.program.entries[0])
        if smaller:
            self.program, self.folded = folded, True
        return smaller

    def recompute(self, duals: Any, program: BoxProgram | None = None) -> int:
        """What recomputing costs at least, by these duals of the program, or one with more rows."""
        proven = max(0, (program or self.program).bound(duals) - self.once)
        amount = proven << self.shift if self.shift >= 0 else -(-proven >> -self.shift)
        common = gcd(*self.reduced.costs) or 1
        return -(-amount // common) * common

    def refuted(self, duals: Any) -> bool:
        """Do they prove that no schedule fits?"""
        return self.program.bound(duals, priced=False) > 0

    # -- building ----------------------------------------------------------------------------------

    def _columns(self) -> None:
        r, program = self.reduced, self.program
        for moment in self.moments:
            fits = moment.live | (r.nbytes <= moment.room)
            self.live.append(program.add_columns(moment.useful, moment.live, fits))
        ends = [*self.moments[1:], None]
        first = self.moments[0]
        everything = np.ones(len(r), dtype=bool)
        self.made = [program.add_columns(everything, first.computed, 1, self.costs)]
        for moment, end in zip(self.moments, ends, strict=True):
            stop = len(r.graph.steps) if end is None else end.order
            least = min(r.graph.between[moment.order + 1 : stop + 1])
            able = r.needs + least <= r.budget
            self.made.append(program.add_columns(moment.again, 0, able, self.costs))

    def _counts(self) -> None:
        """Each item is computed once at least, as soon as it is known to be; captured ones once."""
        r, program = self.reduced, self.program
        sofar = self.moments[0].computed
        for p, moment in enumerate(self.moments, 1):
            held = np.flatnonzero((self.live[p] >= 0) & ~sofar & ~moment.live)
            made = [(columns[held], 1) for columns in self.made[:p]]
            program.add_rows([*made, (self.live[p][held], -1)], 0)
            known = np.flatnonzero(moment.computed & ~sofar)
            program.add_rows([(columns[known], 1) for columns in self.made[:p]], 1)
            sofar = sofar | moment.computed
        rest = np.flatnonzero(~sofar)
        program.add_rows([(columns[rest], 1) for columns in self.made], 1)
        once = np.flatnonzero(r.captured)
        program.add_rows([(columns[once], -1) for columns in self.made], -1)

    def _room(self, p: int, moment: Moment) -> None:
        """What is live fits: in bytes, and in whole multiples of the sizes that are common."""
        r = self.reduced
        fit = moment.useful & ~moment.live & (r.nbytes > 0) & (r.nbytes <= moment.room)
        items = np.flatnonzero(fit)
        if not len(items):
            return
        sizes = r.nbytes[items]
        common = int(np.gcd.reduce(sizes))
        unit = max(common, (moment.room >> BYTE_BITS) + 1)
        limits = [unit]
        distinct, counts = np.unique(sizes, return_counts=True)
        order = np.argsort(-(distinct * counts), kind="stable")[:ROUNDINGS]
        large = distinct[order]
        for size in (gcd(*map(int, large)), *map(int, large)):
            if size not in limits and moment.room % size:
                limits.append(size)
        for unit in limits:
            counted = items[sizes >= unit]
            self.program.add_limit(
                self.live[p][counted], r.nbytes[counted] // unit, moment.room // unit
            )
        for view, owner in r.views:
            columns = self.live[p][[owner]], self.live[p][[view]]
            if min(columns)[0] >= 0:
                self.program.add_rows([(columns[0], 1), (columns[1], -1)], 0)

    def _pair(self, u: int, v: int) -> None:
        r, program, start = self.reduced, self.program, self.moments[u - 1]
        end = self.moments[v - 1] if v <= len(self.moments) else None
        if v == u + 1:
            made = self.made[u]
        else:
            made = program.add_columns(start.again)
            items = np.flatnonzero(start.again)
            rows = [(columns[items], 1) for columns in self.made[u:v]]
            program.add_rows([*rows, (made[items], -1)], 0)
        live = self.live[u]
        readers, read = r.deps[:, 0], r.deps[:, 1]
        taken = start.again[readers] & ~start.live[read]
        readers, read = readers[taken], read[taken]
        program.add_rows([(live[read], 1), (made[read], 1), (made[readers], -1)], 0)
        wanted = np.zeros(len(r), dtype=bool)
        last = len(r.graph.steps) - 1 if end is None else end.order
        for q in range(start.order + 1, last + 1):
            wanted[r.reads[q]] = True
        if end is not None:
            wanted |= end.live
        wanted &= ~start.live
        items = np.flatnonzero(wanted)
        program.add_rows([(live[items], 1), (made[items], 1)], 1)
        if end is not None:
            items = np.flatnonzero((self.live[v] >= 0) & ~wanted & ~start.live)
            program.add_rows([(live[items], 1), (made[items], 1), (self.live[v][items], -1)], 0)


def _shifted(amount: int, by: int) -> int:
    return amount >> by if by >= 0 else amount << -by
