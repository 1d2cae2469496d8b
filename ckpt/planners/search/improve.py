"""Make a schedule cheaper within its budget: keep what there is room for, trade the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, pairwise
from random import Random
from typing import NamedTuple

import numpy as np

from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base import clock
from ckpt.planners.base.cost import Cost, flops
from ckpt.planners.base.emit import Action
from ckpt.planners.search.drafts import Bytes, Draft, Gap, Lifetime, Sheet, gaps
from ckpt.schedule import Compute, Schedule

PATIENCE = 8
"""Swaps tried for one recomputation before the next one's turn."""

OPTIONS = 32
"""Of the values that could be recomputed instead, so many are looked at, the cheapest per byte."""


class Improved(NamedTuple):
    """A schedule, and how many swaps and shakes were tried for it."""

    schedule: Schedule
    iterations: int


def improve(
    graph: Graph,
    schedule: Schedule,
    budget: int | None = None,
    iterations: int = 200,
    *,
    cost: Cost | None = None,
) -> Improved:
    """A schedule of no more cost, and for the same cost of no higher peak.

    Source: none; a local search in the spirit of ejection chains (Glover 1996). Moves:

    - free each value right after its last read, drop what nothing reads (always);
    - *keep*: delete a recomputation where the buffer fits all along the gap it bridged, the most
      cost per byte and instruction first, until none fits;
    - *swap*: delete one that doesn't fit, and where bytes are then missing recompute other values
      instead, the least cost per missing byte first; taken if the whole, after keeping what fits
      again, is cheaper;
    - *shake*: recompute one value more, then two to four drawn by a seeded generator, and keep what
      fits then.

    Guarantee: never worse than ``schedule`` by (cost of recomputing, peak), as `simulate` judges,
    and within ``budget`` if ``schedule`` is. Deterministic; not monotone in the budget.
    Cost: O(instructions) a step; at most ``iterations`` swaps and shakes are tried.
    """
    price = cost or flops(graph)
    before = simulate(graph, schedule)
    limit = before.peak if budget is None else max(budget, before.peak)
    sheet = Sheet(graph, price)
    search = Improver(sheet, limit)
    draft, tried = search.run(Draft(sheet, sheet.actions_of(schedule)), iterations)
    improved = replace(schedule, instructions=draft.instructions())
    after = simulate(graph, improved)
    better = (price.recompute(after.counts), after.peak) < (
        price.recompute(before.counts), before.peak,
    )  # fmt: skip
    return Improved(improved if better else schedule, tried)


class Drop(NamedTuple):
    """A buffer that could be let go between two reads, and recomputed before the second."""

    start: int
    stop: int
    """It would be gone during the actions [start, stop)."""
    nbytes: int
    cost: int
    before: int
    """The action before which `insert` comes."""
    insert: tuple[int, ...]


def _price(drop: Drop) -> tuple[float, int]:
    return drop.cost / (drop.nbytes * (drop.stop - drop.start)), drop.start


class Improver:
    """The moves, on drafts of one graph.

    ``by_time``: bytes weigh as much as the instructions for which they are held; else as they are,
    which is right where one moment is the tightest for all.
    """

    def __init__(self, sheet: Sheet, budget: int, *, by_time: bool = True) -> None:
        self.sheet = sheet
        self.budget = budget
        self.by_time = by_time
        self.least = sheet.forward_cost

    def run(self, draft: Draft, iterations: int) -> tuple[Draft, int]:
        """The best draft of ``iterations`` trials, and how many there were."""
        draft = self.fill(draft)
        rng = Random(0)
        tried = 0
        trials = self.trials(draft, rng)
        while tried < iterations and draft.cost > self.least and not clock.stopped():
            trial, inserted = next(trials, (None, frozenset[int]()))
            if trial is None:
                break  # nothing here could be recomputed instead
            tried += 1
            if trial.peak <= self.budget:
                # First without undoing what was just done.
                trial = self.fill(self.fill(trial, inserted))
                if trial.key < draft.key:
                    draft, trials = trial, self.trials(trial, rng)
        return draft, tried

    # -- keep --------------------------------------------------------------------------------------

    def fill(self, draft: Draft, spared: frozenset[int] = frozenset()) -> Draft:
        """Delete recomputations while the bytes last, except of buffers owned by ``spared``."""
        while True:
            room = self.budget - draft.high
            found = sorted(
                (g for g in gaps(draft) if draft.buffers[g.buffer].owner not in spared),
                key=lambda g: (-g.saved / (1 + self.weight_of(draft, g)), g.start),
            )
            deleted: set[int] = set()
            chosen = []
            for gap in found:
                left = self.left(draft, gap, room)
                if left.min(initial=0) >= 0:
                    room[gap.start : gap.stop] = left
                    deleted |= gap.deleted
                    chosen.append(gap)
            if not chosen:
                return draft
            # Together they may not do: what one deletion was to outlive may be gone with another.
            trial = self.without(draft, deleted)
            while trial.peak > self.budget or trial.cost > draft.cost:
                chosen = chosen[: len(chosen) // 2]
                if not chosen:
                    return draft
                trial = self.without(draft, set().union(*(g.deleted for g in chosen)))
            draft = trial

    def left(self, draft: Draft, gap: Gap, room: Bytes) -> Bytes:
        """Of ``room`` within ``gap``, what deleting its recomputation leaves; negative: missing."""
        left = room[gap.start : gap.stop] - self.bytes_of(draft, gap)
        for start, stop, nbytes in gap.relief:
            left[max(start - gap.start, 0) : max(stop - gap.start, 0)] += nbytes
        return left

    @staticmethod
    def bytes_of(draft: Draft, gap: Gap) -> int:
        return draft.buffers[gap.buffer].nbytes

    def weight_of(self, draft: Draft, gap: Gap) -> int:
        """What stands in its way: bytes, by the instructions for which they would be held."""
        return self.bytes_of(draft, gap) * (gap.stop - gap.start if self.by_time else 1)

    def without(self, draft: Draft, deleted: set[int]) -> Draft:
        return Draft(self.sheet, [a for t, a in enumerate(draft.actions) if t not in deleted])

    # -- swap --------------------------------------------------------------------------------------

    def swaps(self, draft: Draft) -> Iterator[tuple[Draft, frozenset[int]]]:
        """Drafts in which one recomputation gives way to cheaper ones, the dearest first."""
        drops = self.drops(draft)
        if not drops:
            return
        starts, stops, nbytes, costs = np.array([d[:4] for d in drops]).T
        for gap in sorted(gaps(draft), key=lambda g: (-g.saved, g.start)):
            missing = -self.left(draft, gap, self.budget - draft.high)
            shared = np.minimum(stops, gap.stop) - np.maximum(starts, gap.start)
            price = np.where(
                (shared > 0) & (costs < gap.saved), costs / (nbytes * np.maximum(shared, 1)), np.inf
            )
            best = np.argsort(price, kind="stable")[:OPTIONS]
            options = [drops[k] for k in best if price[k] < np.inf]
            for first in range(min(PATIENCE, len(options))):
                chosen = self.cover(gap, missing, options, first)
                if chosen is None:
                    break  # nor with more of the best passed over
                yield self.swapped(draft, gap, chosen)

    def trials(self, draft: Draft, rng: Random) -> Iterator[tuple[Draft, frozenset[int]]]:
        """Neighbours of ``draft``: those that are worth most first, in the end at random."""
        return chain(self.swaps(draft), self.kicks(draft), self.shakes(draft, rng))

    def kicks(self, draft: Draft) -> Iterator[tuple[Draft, frozenset[int]]]:
        """Drafts with one more recomputation, and so with room; least cost per byte first."""
        for drop in sorted(self.drops(draft), key=_price):
            yield self.swapped(draft, None, [drop])

    def shakes(self, draft: Draft, rng: Random) -> Iterator[tuple[Draft, frozenset[int]]]:
        """Drafts with two to four more, drawn at random, the cheaper the likelier; without end."""
        drops = sorted(self.drops(draft), key=_price)
        while drops:
            few = min(len(drops), rng.randint(2, 4))
            chosen = {int(len(drops) * rng.random() ** 2) for _ in range(few)}
            yield self.swapped(draft, None, [drops[k] for k in sorted(chosen)])

    def cover(
        self, gap: Gap, missing: Bytes,
        options: list[Drop], first: int,
    ) -> list[Drop] | None:  # fmt: skip
        """Drops that make up for what is missing, for less than is saved; or None.

        Greedy by cost per byte and action that they make up for; ``first`` counts how many of the
        best are passed over, so that several covers of one gap can be tried.
        """
        left = np.maximum(missing, 0)
        chosen: list[Drop] = []
        spent = 0
        pool = list(options)
        while left.any():
            rated = []
            for k, drop in enumerate(pool):
                span = left[max(drop.start - gap.start, 0) : max(drop.stop - gap.start, 0)]
                gained = int(np.minimum(span, drop.nbytes).sum())
                if gained and spent + drop.cost < gap.saved:
                    rated.append((drop.cost / gained, k))
            skip = first if not chosen else 0
            if len(rated) <= skip:
                return None
            drop = pool.pop(sorted(rated)[skip][1])
            chosen.append(drop)
            spent += drop.cost
            span = left[max(drop.start - gap.start, 0) : max(drop.stop - gap.start, 0)]
            span -= np.minimum(span, drop.nbytes)
        return chosen

    def swapped(
        self, draft: Draft, gap: Gap | None, chosen: list[Drop]
    ) -> tuple[Draft, frozenset[int]]:
        """``draft`` without ``gap``, with ``chosen``; and whose buffers are recomputed for it."""
        inserted: dict[int, set[int]] = {}
        for drop in chosen:
            inserted.setdefault(drop.before, set()).update(drop.insert)
        actions: list[Action] = []
        for t, action in enumerate(draft.actions):
            actions += map(Compute, sorted(inserted.get(t, ())))
            if gap is None or t not in gap.deleted:
                actions.append(action)
        actions += map(Compute, sorted(inserted.get(len(draft.actions), ())))
        owners = self.sheet.graph.owners
        return Draft(self.sheet, actions), frozenset(owners[d.insert[-1]] for d in chosen)

    def drops(self, draft: Draft) -> list[Drop]:
        """Every pause between two reads of a buffer, as a value that could be recomputed."""
        ends = [-1] * len(draft.sheet.deps)  # of the buffer that held the node when last computed
        found = []
        by_second: dict[int, list[tuple[int, Lifetime]]] = {}
        for buffer in draft.buffers:
            if buffer.nbytes and buffer.owner not in self.sheet.lasting:
                moments = sorted({buffer.start, *buffer.reads, *buffer.computes})
                for one, two in pairwise(moments):
                    if two - one > 1:
                        by_second.setdefault(two, []).append((one, buffer))
        for t in range(len(draft.actions) + 1):
            for one, buffer in by_second.get(t, ()):
                found.append(self._drop(draft, buffer, one, t, ends))
            if t < len(draft.actions) and isinstance(draft.actions[t], Compute):
                ends[draft.node_at(t)] = draft.buffers[draft.buffer_at[t]].end
        return [d for d in found if d is not None]

    def _drop(
        self, draft: Draft, buffer: Lifetime, one: int, two: int, ends: list[int]
    ) -> Drop | None:
        """What it takes to have ``buffer`` again at action ``two``; None if a captured array."""
        sheet = self.sheet
        last = {draft.node_at(t) for t in buffer.computes if t < two}
        queue, insert = sorted(last), set(last)
        while queue:
            for dep in sheet.deps[queue.pop()]:
                there = ends[dep] >= two and dep not in last and not sheet.call[dep]
                if dep in insert or there:
                    continue
                if dep not in sheet.lasting:
                    insert.add(dep)
                    queue.append(dep)
        order = tuple(sorted(insert))
        cost = sum(sheet.costs[i] for i in order)
        if buffer.computes == [one]:  # nobody read it yet: it is computed later, not again
            cost -= sheet.costs[draft.node_at(one)]
        return Drop(one + 1, two, buffer.nbytes, cost, two, order)
