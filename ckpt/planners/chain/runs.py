"""Equal blocks planned once: of a long chain that repeats, runs of blocks are made one stage each.

A table over L stages takes O(L^2) segments, so where a model repeats a layer a thousand times its
slots would be few and coarse. A *run* is some blocks (the period of the chain) that follow each
other, and a `Kind` like any other. Equal runs share what a small table of their own says:

- a visit is a plan of the run by itself;
- a tape is a row of *pieces*, each the tape of a stage, or a segment that is advanced through and
  of which only what crosses to the next is held, to be visited when its backward comes. Those rows
  are offered that are the cheapest for a price of bytes, and mixtures of neighbours among them: one
  up to some stage, the other from there on;
- it is advanced as its stages are.

What a table over runs says is done by the stages that they are made of, so no plan exists here that
the stages' own table would not know of. The last blocks are halved into smaller and smaller runs,
for a plan must be able to end anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise, takewhile, zip_longest
from math import inf
from typing import NamedTuple

from ckpt.planners.chain.kinds import (
    Kind,
    Operation,
    Tape,
    Visit,
    crossing_beside,
    front,
    table_work,
)
from ckpt.planners.chain.table import Table
from ckpt.repeats import longest_row

RUNS = 40
"""A chain is made of about so many."""

POINTS = 16
"""Tapes of a run, and visits, at most."""

SLOTS = 20
"""Of a run's own table, for each stage: what storing all of it takes, about."""

NEAR = 1e-6
"""A corner of a hull is one if it is so much below the line, as a share."""


def spans_of(sequence: Sequence[int]) -> list[tuple[int, int]]:
    """The stages of each run, as (first, behind the last): where blocks are few, every stage its
    own."""
    start, period, count = longest_row(sequence)
    each = max(1, -(-count // RUNS))
    lengths = [each] * (count // each - 1)
    left = count - sum(lengths)
    while left:
        lengths.append((left + 1) // 2 if each > 1 else 1)
        left -= lengths[-1]
    steps = [period * n for n in lengths] if each > 1 else [1] * (period * count)
    behind = len(sequence) - start - period * count
    return list(pairwise(accumulate([*[1] * start, *steps, *[1] * behind], initial=0)))


def labels_of(sequence: Sequence[int], spans: Sequence[tuple[int, int]]) -> list[int]:
    """The same number for runs of the same stages."""
    numbers: dict[tuple[int, ...], int] = {}
    return [numbers.setdefault(tuple(sequence[a:b]), len(numbers)) for a, b in spans]


def run_work(runs: Iterable[Sequence[int]]) -> int:
    """About how many additions the tables of such runs take."""
    return sum(table_work(run) * SLOTS * len(run) for run in runs if len(run) > 1)


class Runs:
    """A chain of stages, ``sequence`` of ``kinds``, as a shorter one of ``kinds`` of its own."""

    def __init__(
        self, kinds: Sequence[Kind], sequence: Sequence[int], spans: Sequence[tuple[int, int]]
    ) -> None:
        self.spans = spans
        ends = [b for _, b in spans]
        runs: dict[tuple[int, ...], _Merged] = {}
        made: dict[Kind, int] = {}
        self.sequence: list[int] = []
        self._runs: list[_Merged] = []
        for k, (a, b) in enumerate(spans):
            labels = tuple(sequence[a:b])
            if labels not in runs:
                runs[labels] = _Merged(kinds, labels)
            further = _crossing([kinds[label] for label in labels], [e - b for e in ends[k:]])
            kind = replace(runs[labels].kind, crossing=further)
            self.sequence.append(made.setdefault(kind, len(made)))
            self._runs.append(runs[labels])
        self.kinds = list(made)

    def operations(self, found: Sequence[Operation]) -> list[Operation]:
        """What the stages do where their runs do ``found``."""
        todo: list[Operation] = []
        for word, first, last in found:
            at = self.spans[first][0]
            run = self._runs[first]
            if word == "advance":
                todo.append(Operation(word, at, self.spans[last][1] - 1))
            elif word == "visit":
                todo += (o.behind(at) for o in run.visits[last])
            elif word == "tape":
                todo += (piece.forward.behind(at) for piece in run.tapes[last])
            else:
                back = map(run.backward, reversed(run.tapes[last]))
                todo += (o.behind(at) for done in back for o in done)
        return todo


def _crossing(stages: Sequence[Kind], ends: Sequence[int]) -> tuple[int, ...]:
    """Bytes made in the stages that cross the cuts so far behind them, as long as there are any."""
    behind = [stage.crossing[len(stages) - 1 - s :] for s, stage in enumerate(stages)]
    made = list(map(sum, zip_longest(*behind, fillvalue=0)))
    found = (made[end] if end < len(made) else 0 for end in ends)
    return tuple(takewhile(bool, found))


class _TapePart(NamedTuple):
    """Stages ``first`` to ``last`` of a run: their part of a tape, as a `Tape`."""

    first: int
    last: int
    tape: Tape
    forward: Operation
    slots: int = 0
    """Of a segment, what its visit may take."""


class _Merged:
    """Some stages as one. ``kind`` doesn't know yet what crosses further cuts."""

    def __init__(self, kinds: Sequence[Kind], labels: Sequence[int]) -> None:
        self.stages = stages = [kinds[k] for k in labels]
        if len(stages) == 1:
            self.kind = stages[0]
            self.tapes = [[self._taped(0, k)] for k in range(len(self.kind.tapes))]
            self.visits = [[Operation("visit", 0, k)] for k in range(len(self.kind.visits))]
            return
        self.table = Table(kinds, labels, SLOTS * len(labels))
        self.beside = crossing_beside(stages)
        steps = self.table.steps()
        rows = list(zip(map(self.table.nbytes, steps), self.table.costs(steps), strict=True))
        chosen = [steps[k] for k in front(rows, POINTS)]
        self.visits = [self.table.operations(m) for m in chosen]
        mixed = self._mixed()
        priced = [_joined(pieces) for pieces in mixed]
        best = front([(tape.held, tape.cost, tape.backward_peak) for tape in priced], POINTS)
        self.tapes = [mixed[k] for k in best]
        self.kind = Kind(
            once_cost=sum(stage.once_cost for stage in stages),
            advance_cost=sum(stage.advance_cost for stage in stages),
            advance_peak=int(self.table.advance_peaks(0)[-1]),
            crossing=(),
            cotangents=stages[-1].cotangents,
            tapes=tuple(priced[k] for k in best),
            visits=tuple(
                Visit(self._cost(done), self.table.nbytes(m))
                for m, done in zip(chosen, self.visits, strict=True)
            ),
        )

    def _mixed(self) -> list[list[_TapePart]]:
        """Rows of pieces: the cheapest at some price of bytes, and mixtures of neighbours."""
        pieces = self._pieces()
        least, most = _cheapest(pieces, inf), _cheapest(pieces, 0.0)
        found = [least]
        todo = [most]
        while todo:  # between two corners of the hull, is there another?
            one, two = _joined(found[-1]), _joined(todo[-1])
            price = (one.cost - two.cost) / max(two.held - one.held, 1)
            between = _cheapest(pieces, price)
            tape = _joined(between)
            below = (one.cost + price * one.held) * (1 - NEAR)
            if one.held < tape.held < two.held and tape.cost + price * tape.held < below:
                todo.append(between)
            else:
                found.append(todo.pop())
        rows = [*found]
        for left, right in pairwise(found):
            ends = {piece.last for piece in left} & {piece.last for piece in right}
            rows += [
                [*(p for p in left if p.last <= end), *(p for p in right if p.last > end)]
                for end in sorted(ends)[:-1]
            ]
        return rows

    def _pieces(self) -> list[list[_TapePart]]:
        """For each stage, those that begin there."""
        rows = []
        for s, stage in enumerate(self.stages):
            row = [self._taped(s, k) for k in range(len(stage.tapes))]
            peaks = self.table.advance_peaks(s)
            cost = stage.once_cost + stage.advance_cost
            for t in range(s + 1, len(self.stages)):
                cost += self.stages[t].once_cost + self.stages[t].advance_cost
                slots, extra = self.table.ample(s, t)
                held = int(self.beside[s, t + 1])
                peak = max(int(peaks[t - s]), held)
                tape = Tape(held, cost + extra, peak, self.table.nbytes(slots))
                row.append(_TapePart(s, t, tape, Operation("advance", s, t), slots))
            rows.append(row)
        return rows

    def _taped(self, s: int, k: int) -> _TapePart:
        return _TapePart(s, s, self.stages[s].tapes[k], Operation("tape", s, k))

    def backward(self, piece: _TapePart) -> list[Operation]:
        """What is done when the backward of a piece comes."""
        word, first, last = piece.forward
        if word == "tape":
            return [Operation("backward", first, last)]
        return self.table.operations(piece.slots, first, last)

    def _cost(self, operations: Sequence[Operation]) -> int:
        total = 0
        for word, first, last in operations:
            if word == "advance":
                total += sum(stage.advance_cost for stage in self.stages[first : last + 1])
            elif word != "backward":
                stage = self.stages[first]
                total += (stage.tapes if word == "tape" else stage.visits)[last].cost
        return total


def _cheapest(pieces: Sequence[Sequence[_TapePart]], price: float) -> list[_TapePart]:
    """The row of least cost, where a byte held costs ``price``; of infinite price, least bytes."""
    per_cost, per_byte = (0.0, 1.0) if price == inf else (1.0, price)
    best = [0.0] * (len(pieces) + 1)
    chosen: list[_TapePart] = []
    for row in reversed(pieces):
        values = [
            (per_cost * p.tape.cost + per_byte * p.tape.held + best[p.last + 1], p.tape.cost, -k)
            for k, p in enumerate(row)
        ]
        first = row[0].first
        k = min(range(len(row)), key=values.__getitem__)
        best[first] = values[k][0]
        chosen.append(row[k])
    found = [chosen[-1]]
    while found[-1].last + 1 < len(pieces):
        found.append(chosen[len(pieces) - 2 - found[-1].last])
    return found


def _joined(pieces: Sequence[_TapePart]) -> Tape:
    held = cost = forward = backward = 0
    for piece in pieces:
        forward = max(forward, held + piece.tape.forward_peak)
        backward = max(backward, held + piece.tape.backward_peak)
        held, cost = held + piece.tape.held, cost + piece.tape.cost
    return Tape(held, cost, forward, backward)
