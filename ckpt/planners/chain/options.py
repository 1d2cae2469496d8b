"""Inside a stage: what to keep between its forward and its backward is itself a choice.

Keep all that the backward reads; keep the matmuls and rematerialize the elementwise; keep
attention's output but not its scores; keep nothing: each choice is a point of bytes held against
cost of recomputing, and `chain_dp` picks one for each stage. (Rockmate, Zhao et al. 2023, offers
such points per block, found by an integer programme; here sweeps find them.)

Whatever is kept, a stage's backward rematerializes late: before each Backward what that one reads
and isn't there, each value at most once. So costs follow from the kept set alone, and peaks from
the resulting order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import combinations
from typing import NamedTuple

from ckpt.planners.base import clock
from ckpt.planners.base.emit import Action
from ckpt.planners.chain.interior import Interior, levels_of
from ckpt.planners.chain.kinds import Kind, Tape, Visit, front
from ckpt.schedule import Backward, Compute

MEASURED = 64
"""Kept sets of one stage that are priced to the byte, about; more would be thinned out anyway."""


class Option(NamedTuple):
    """What a choice does, in the Interior's numbers."""

    forward: tuple[Action, ...]
    backward: tuple[Action, ...]


@dataclass(frozen=True)
class Choices:
    """What a stage may do: a `Kind` with numbers, and the actions that they stand for."""

    kind: Kind
    advance: tuple[Action, ...]
    tapes: tuple[Option, ...]
    visits: tuple[Option, ...]


def choices(interior: Interior, *, options: bool, effort: int, points: int) -> Choices:
    """The Pareto points of a stage, at most ``points``; without ``options`` its full tape only.

    Every subset of its buffers is tried if there are at most ``effort``; otherwise two greedy
    sweeps, one that drops from the full tape the bytes that are cheapest to recompute, and one that
    keeps, beginning with nothing, the bytes that save most.
    """
    forward = interior.missing((*interior.crossing, *interior.lasting), frozenset())
    advance = tuple(map(Compute, forward))
    full = interior.needs
    sets = [full, frozenset[int]()]
    if options:
        sets += _kept_sets(interior, effort)
    tapes: dict[Option, Tape] = {}
    visits: dict[Option, Visit] = {}
    for kept in dict.fromkeys(sets):
        option, tape = _tape(interior, kept)
        if options or kept == full:
            tapes[option] = tape
        option, visit = _visit(interior, kept)
        if options or kept == full:
            visits[option] = visit
    # A stage that holds little at the price of a high peak must not hide one that does the reverse.
    by_peak = _thin(tapes, (3, 0, 2), points // 2)
    best_tapes = list(dict.fromkeys([*_thin(tapes, (0, 3, 2), points), *by_peak]))
    best_visits = _thin(visits, (1,), points)
    held_on = replace(interior, released=(-1,) * interior.inputs)
    levels = levels_of(held_on, advance, len(advance))
    kind = Kind(
        once_cost=interior.cost(range(interior.inputs, len(interior.deps))),
        advance_cost=interior.cost(forward),
        advance_peak=max(levels),
        crossing=interior.crossing_nbytes,
        cotangents=interior.cotangents[0],
        tapes=tuple(tapes[o] for o in best_tapes),
        visits=tuple(visits[o] for o in best_visits),
    )
    return Choices(kind, advance, tuple(best_tapes), tuple(best_visits))


def _thin(
    found: Mapping[Option, Tape] | Mapping[Option, Visit], sizes: Sequence[int], points: int
) -> list[Option]:
    """The `front` of bytes (item ``sizes[0]``) and cost; on a tie the other sizes decide."""
    rows = [(row[sizes[0]], row.cost, *(row[size] for size in sizes[1:])) for row in found.values()]
    options = list(found)
    return [options[k] for k in front(rows, points)]


def _kept_sets(interior: Interior, effort: int) -> list[frozenset[int]]:
    """Sets of values worth keeping: all, or those that the sweeps pass."""
    always = frozenset(interior.crossing) | frozenset(interior.lasting)
    useful = interior.missing(interior.needs, always)
    shared = {interior.buffers[i] for i in interior.crossing} | set(range(-1, interior.inputs))
    free = frozenset(i for i in useful if interior.buffers[i] in shared) - interior.fleeting
    groups: dict[int, frozenset[int]] = {}
    for i in useful:
        if i not in free and i not in interior.fleeting:
            owner = interior.buffers[i]
            groups[owner] = groups.get(owner, frozenset()) | {i}

    def recompute(kept: Iterable[int]) -> int:
        there = always.union(free, *(groups[g] for g in kept))
        return interior.cost(interior.missing(interior.needs, there))

    def sweep(kept: frozenset[int], candidates: Iterable[int]) -> list[frozenset[int]]:
        """Take in or out, one by one, what costs least (saves most) per byte. A price may
        be out of date, and is looked at again before it is paid; dearer it seldom gets."""
        steps, cost = [], recompute(kept)
        heap = [(float("-inf"), g) for g in candidates]
        while heap:
            clock.check()
            price, g = heappop(heap)
            changed = kept ^ {g}
            now = recompute(changed)
            price = (now - cost) / max(interior.nbytes[g], 1)
            if heap and price > heap[0][0]:
                heappush(heap, (price, g))
                continue
            kept, cost = changed, now
            steps.append(kept)
        return steps

    weighed = sorted(groups, key=lambda g: -interior.nbytes[g])[:effort]
    if 2 ** len(groups) <= effort:
        chosen = [
            frozenset(some) for n in range(len(groups) + 1) for some in combinations(groups, n)
        ]
    else:
        read = frozenset(g for g in groups if not groups[g].isdisjoint(interior.needs))
        chosen = [
            *sweep(read, read.intersection(weighed)),
            *sweep(frozenset(), weighed),
        ]
        chosen = chosen[:: 1 + len(chosen) // MEASURED]
    return [free.union(*(groups[g] for g in some)) for some in chosen]


def _tape(interior: Interior, kept: frozenset[int]) -> tuple[Option, Tape]:
    forward = interior.missing((*interior.crossing, *kept, *interior.lasting), frozenset())
    there = kept | frozenset(interior.crossing) | frozenset(interior.lasting)
    option = Option(tuple(map(Compute, forward)), _late(interior, there))
    levels = levels_of(interior, (*option.forward, *option.backward), len(forward))
    split = len(forward)
    return option, Tape(
        held=levels[split],
        cost=_cost(interior, option),
        forward_peak=max(levels[: split + 1]),
        backward_peak=max(levels[split + 1 :], default=0),
    )


def _visit(interior: Interior, kept: frozenset[int]) -> tuple[Option, Visit]:
    forward = interior.missing((*kept, *interior.lasting), frozenset())
    late = _late(interior, kept | frozenset(interior.lasting))
    option = Option(tuple(map(Compute, forward)), late)
    levels = levels_of(interior, (*option.forward, *option.backward), 0)
    return option, Visit(_cost(interior, option), max(levels))


def _cost(interior: Interior, option: Option) -> int:
    actions = (*option.forward, *option.backward)
    return interior.cost(action.node for action in actions if isinstance(action, Compute))


def _late(interior: Interior, there: frozenset[int]) -> tuple[Action, ...]:
    """The Backwards, each preceded by what it reads and isn't there yet."""
    actions: list[Action] = []
    available = set(there)
    for q, reads in enumerate(interior.reads):
        computed = interior.missing(reads, frozenset(available))
        available.update(computed)
        actions += [*map(Compute, computed), Backward(q)]
    return tuple(actions)
