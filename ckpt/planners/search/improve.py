"""Make a schedule cheaper within its budget: keep what there is room for, trade the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, pairwise
from random import Random
from typing import NamedTuple

import numpy as np

from ckpt.graph import Graph
from ckpt.planners.search.intervals import Action, Buffer, Bytes, Gap, Plan, Program, gaps
from ckpt.schedule import Schedule
from ckpt.simulate import simulate

PATIENCE = 8
"""Swaps tried for one recomputation before the next one's turn."""

OPTIONS = 32
"""Of the values that could be recomputed instead, so many are looked at, the cheapest per byte."""


def improve(
    graph: Graph, schedule: Schedule, budget: int | None = None, iterations: int = 200
) -> Schedule:
    """A schedule of no more recompute FLOPs, and for the same FLOPs of no higher peak.

    Source: none; a local search in the spirit of ejection chains (Glover 1996). Moves:

    - free each value right after its last read, drop what nothing reads (always);
    - *keep*: delete a recomputation where the buffer fits all along the gap it bridged, most FLOPs
      per byte and instruction first, until none fits;
    - *swap*: delete one that doesn't fit, and where bytes are then missing recompute other values
      instead, fewest FLOPs per missing byte first; taken if the whole, after keeping what fits
      again, is cheaper;
    - *shake*: recompute one value more, then two to four drawn by a seeded generator, and keep what
      fits then.

    Guarantee: never worse than ``schedule`` by (recompute FLOPs, peak), as `simulate` judges, and
    within ``budget`` if ``schedule`` is. Deterministic; not monotone in the budget.
    Cost: O(instructions) a step; at most ``iterations`` swaps and shakes are tried.
    """
    before = simulate(graph, schedule)
    limit = before.peak if budget is None else max(budget, before.peak)
    program = Program(graph)
    search = _Search(program, limit)
    plan, tried = search.run(Plan(program, program.actions_of(schedule)), iterations)
    improved = replace(
        schedule,
        instructions=tuple(plan.instructions()),
        notes={**schedule.notes, "iterations": tried},
    )
    after = simulate(graph, improved)
    if (after.recompute_flops, after.peak) < (before.recompute_flops, before.peak):
        return improved
    return replace(schedule, notes=improved.notes)


class _Drop(NamedTuple):
    """A buffer that could be let go between two reads, and recomputed before the second."""

    start: int
    stop: int
    """It would be gone during the actions [start, stop)."""
    nbytes: int
    flops: int
    before: int
    """The action before which `insert` comes."""
    insert: tuple[int, ...]


def _price(drop: _Drop) -> tuple[float, int]:
    return drop.flops / (drop.nbytes * (drop.stop - drop.start)), drop.start


class _Search:
    def __init__(self, program: Program, budget: int) -> None:
        self.program = program
        self.budget = budget
        self.least = program.forward_flops

    def run(self, plan: Plan, iterations: int) -> tuple[Plan, int]:
        """The best plan of ``iterations`` trials, and how many there were."""
        plan = self.fill(plan)
        rng = Random(0)
        tried = 0
        trials = self.trials(plan, rng)
        while tried < iterations and plan.cost > self.least:
            trial, inserted = next(trials, (None, frozenset[int]()))
            if trial is None:
                break  # nothing here could be recomputed instead
            tried += 1
            if trial.peak <= self.budget:
                # First without undoing what was just done.
                trial = self.fill(self.fill(trial, inserted))
                if trial.key < plan.key:
                    plan, trials = trial, self.trials(trial, rng)
        return plan, tried

    # -- keep --------------------------------------------------------------------------------------

    def fill(self, plan: Plan, spared: frozenset[int] = frozenset()) -> Plan:
        """Delete recomputations while the bytes last, except of buffers owned by ``spared``."""
        while True:
            room = self.budget - plan.high
            found = sorted(
                (g for g in gaps(plan) if plan.buffers[g.buffer].owner not in spared),
                key=lambda g: (
                    -g.saved / (1 + self.bytes_of(plan, g) * (g.stop - g.start)),
                    g.start,
                ),
            )
            deleted: set[int] = set()
            chosen = []
            for gap in found:
                left = self.left(plan, gap, room)
                if left.min(initial=0) >= 0:
                    room[gap.start : gap.stop] = left
                    deleted |= gap.deleted
                    chosen.append(gap)
            if not chosen:
                return plan
            # Together they may not do: what one deletion was to outlive may be gone with another.
            trial = self.without(plan, deleted)
            while trial.peak > self.budget or trial.cost > plan.cost:
                chosen = chosen[: len(chosen) // 2]
                if not chosen:
                    return plan
                trial = self.without(plan, set().union(*(g.deleted for g in chosen)))
            plan = trial

    def left(self, plan: Plan, gap: Gap, room: Bytes) -> Bytes:
        """Of ``room`` within ``gap``, what deleting its recomputation leaves; negative: missing."""
        left = room[gap.start : gap.stop] - self.bytes_of(plan, gap)
        for start, stop, nbytes in gap.relief:
            left[max(start - gap.start, 0) : max(stop - gap.start, 0)] += nbytes
        return left

    @staticmethod
    def bytes_of(plan: Plan, gap: Gap) -> int:
        return plan.buffers[gap.buffer].nbytes

    def without(self, plan: Plan, deleted: set[int]) -> Plan:
        return Plan(self.program, [a for t, a in enumerate(plan.actions) if t not in deleted])

    # -- swap --------------------------------------------------------------------------------------

    def swaps(self, plan: Plan) -> Iterator[tuple[Plan, frozenset[int]]]:
        """Plans in which one recomputation gives way to cheaper ones, the dearest first."""
        drops = self.drops(plan)
        if not drops:
            return
        starts, stops, nbytes, flops = np.array([d[:4] for d in drops]).T
        for gap in sorted(gaps(plan), key=lambda g: (-g.saved, g.start)):
            missing = -self.left(plan, gap, self.budget - plan.high)
            shared = np.minimum(stops, gap.stop) - np.maximum(starts, gap.start)
            price = np.where(
                (shared > 0) & (flops < gap.saved), flops / (nbytes * np.maximum(shared, 1)), np.inf
            )
            best = np.argsort(price, kind="stable")[:OPTIONS]
            options = [drops[k] for k in best if price[k] < np.inf]
            for first in range(min(PATIENCE, len(options))):
                chosen = self.cover(gap, missing, options, first)
                if chosen is None:
                    break  # nor with more of the best passed over
                yield self.swapped(plan, gap, chosen)

    def trials(self, plan: Plan, rng: Random) -> Iterator[tuple[Plan, frozenset[int]]]:
        """Neighbours of ``plan``: those that are worth most first, in the end at random."""
        return chain(self.swaps(plan), self.kicks(plan), self.shakes(plan, rng))

    def kicks(self, plan: Plan) -> Iterator[tuple[Plan, frozenset[int]]]:
        """Plans with one more recomputation, and so with room; fewest FLOPs per byte first."""
        for drop in sorted(self.drops(plan), key=_price):
            yield self.swapped(plan, None, [drop])

    def shakes(self, plan: Plan, rng: Random) -> Iterator[tuple[Plan, frozenset[int]]]:
        """Plans with two to four more, drawn at random, the cheaper the likelier; without end."""
        drops = sorted(self.drops(plan), key=_price)
        while drops:
            few = min(len(drops), rng.randint(2, 4))
            chosen = {int(len(drops) * rng.random() ** 2) for _ in range(few)}
            yield self.swapped(plan, None, [drops[k] for k in sorted(chosen)])

    def cover(
        self, gap: Gap, missing: Bytes,
        options: list[_Drop], first: int,
    ) -> list[_Drop] | None:  # fmt: skip
        """Drops that make up for what is missing, for fewer FLOPs than are saved; or None.

        Greedy by FLOPs per byte and action that they make up for; ``first`` counts how many of the
        best are passed over, so that several covers of one gap can be tried.
        """
        left = np.maximum(missing, 0)
        chosen: list[_Drop] = []
        spent = 0
        pool = list(options)
        while left.any():
            rated = []
            for k, drop in enumerate(pool):
                span = left[max(drop.start - gap.start, 0) : max(drop.stop - gap.start, 0)]
                gained = int(np.minimum(span, drop.nbytes).sum())
                if gained and spent + drop.flops < gap.saved:
                    rated.append((drop.flops / gained, k))
            skip = first if not chosen else 0
            if len(rated) <= skip:
                return None
            drop = pool.pop(sorted(rated)[skip][1])
            chosen.append(drop)
            spent += drop.flops
            span = left[max(drop.start - gap.start, 0) : max(drop.stop - gap.start, 0)]
            span -= np.minimum(span, drop.nbytes)
        return chosen

    def swapped(
        self, plan: Plan, gap: Gap | None, chosen: list[_Drop]
    ) -> tuple[Plan, frozenset[int]]:
        """``plan`` without ``gap`` and with ``chosen``; and whose buffers are recomputed for it."""
        inserted: dict[int, list[Action]] = {}
        for drop in chosen:
            row = inserted.setdefault(drop.before, [])
            row += [(False, i) for i in drop.insert if (False, i) not in row]
        actions: list[Action] = []
        for t, action in enumerate(plan.actions):
            actions += sorted(inserted.get(t, []))
            if gap is None or t not in gap.deleted:
                actions.append(action)
        actions += sorted(inserted.get(len(plan.actions), []))
        owners = self.program.graph.owners
        return Plan(self.program, actions), frozenset(owners[d.insert[-1]] for d in chosen)

    def drops(self, plan: Plan) -> list[_Drop]:
        """Every pause between two reads of a buffer, as a value that could be recomputed."""
        ends = [-1] * len(plan.program.deps)  # of the buffer that held the node when last computed
        found = []
        by_second: dict[int, list[tuple[int, Buffer]]] = {}
        for buffer in plan.buffers:
            if buffer.nbytes and not self.program.captured[buffer.owner]:
                moments = sorted({buffer.start, *buffer.reads, *buffer.computes})
                for one, two in pairwise(moments):
                    if two - one > 1:
                        by_second.setdefault(two, []).append((one, buffer))
        for t in range(len(plan.actions) + 1):
            for one, buffer in by_second.get(t, ()):
                found.append(self._drop(plan, buffer, one, t, ends))
            if t < len(plan.actions) and not plan.actions[t][0]:
                ends[plan.actions[t][1]] = plan.buffers[plan.buffer_at[t]].end
        return [d for d in found if d is not None]

    def _drop(
        self, plan: Plan, buffer: Buffer, one: int, two: int, ends: list[int]
    ) -> _Drop | None:
        """What it takes to have ``buffer`` again at action ``two``; None if a captured array."""
        program = self.program
        last = {plan.actions[t][1] for t in buffer.computes if t < two}
        queue, insert = sorted(last), set(last)
        while queue:
            for dep in program.deps[queue.pop()]:
                if dep in insert or (ends[dep] >= two and dep not in last):
                    continue
                if not program.captured[dep]:
                    insert.add(dep)
                    queue.append(dep)
        order = tuple(sorted(insert))
        flops = sum(program.flops[i] for i in order)
        if buffer.computes == [one]:  # nobody read it yet: it is computed later, not again
            flops -= program.flops[plan.actions[one][1]]
        return _Drop(one + 1, two, buffer.nbytes, flops, two, order)
