"""A beam of rollouts: eviction with look-ahead, where no nesting of snapshots is best."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ckpt.errors import BudgetError, UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base import clock
from ckpt.planners.base.cost import Cost, flops
from ckpt.planners.base.emit import compute_all, free_early
from ckpt.planners.base.registry import fits, planner
from ckpt.planners.search.improve import improve
from ckpt.planners.search.rollouts import HALVINGS, Rolled, Roller, Situation, Units
from ckpt.schedule import Schedule, describe_instruction
from ckpt.timeline import Timeline
from ckpt.units import format_bytes

BEAMS = ((1, 1), (1, 4), (4, 6), (32, 6))
"""Width, and how many choices an eviction has."""

BARREN = 2
"""After so many widths in a row that brought nothing the others aren't tried."""

WORK = 12_000_000
"""Units that are looked at, over all rollouts; a second is about one million."""

WORTH = 2
"""What a beam finds is improved if it costs at most so many times the best so far."""

IMPROVED = 100_000
"""Of each improvement, iterations times instructions stay below this."""

LARGEST = 4_000_000
"""Units times steps of the backward."""


class _Path(NamedTuple):
    """A state that survived, and the units computed for each step up to it."""

    total: int
    state: Situation
    computed: tuple[tuple[int, ...], ...]


@planner("beam", monotone=False, takes="work")
def beam(
    graph: Graph,
    budget: int | None = None,
    *,
    cost: Cost | None = None,
    work: int = WORK,
    iterations: int = 100,
    smallest: bool = True,
) -> Schedule:
    """Evict where room is short, each choice tried to the end; the best few states go on.

    Source: none; a beam search (Lowerre 1976) over the evictions of Kirisame et al. 2021 with the
    future known: the score is what it costs to have a buffer again, with all of its ancestors that
    are gone, per byte and per distance to the next step that reads it to some power. At each step
    every state of the beam is rolled out to the end, as it is and with one eviction changed; of the
    states behind the step those with the least total cost survive. What each beam finds is improved
    (`search.improve`). Beams widen until ``work`` units have been looked at.
    Guarantee: the peak is within the budget; deterministic; nothing about the cost. Where it fails,
    the budget it names is one that it meets, found by bisection; with ``smallest=False`` none.
    Ignores: what writing over a value saves; schedules that let go of a value before room is short.
    Cost: ``work`` units looked at, and ``iterations`` of the local search for each beam. UsageError
    for graphs of more than LARGEST units times steps.
    """
    price = cost or flops(graph)
    if budget is None:
        return Schedule(free_early(graph, compute_all(graph)), graph.digest, "beam")
    units = Units(graph, price)
    if len(units.owners) * len(units.reads) > LARGEST:
        raise UsageError(
            f"beam takes graphs of up to {LARGEST} buffers times backward steps, not "
            f"{len(units.owners)} times {len(units.reads)}; chain and dtr take larger ones"
        )
    best: tuple[tuple[int, int], Timeline] | None = None
    spent = rollouts = 0
    tried: set[tuple[tuple[int, ...], ...]] = set()
    barren = 0
    for width, choices, exponent in _settings():
        if not exponent:
            barren += best is not None
            if barren > BARREN:
                break
        if spent >= work or clock.stopped() or (best is not None and not best[0][0]):
            break
        search = _Beam(Roller(units, budget, exponent), width, choices, work - spent)
        rows = search.run()
        spent += search.roller.work
        rollouts += search.rollouts
        if rows is None or rows in tried:
            continue
        tried.add(rows)
        timeline = simulate(graph, units.schedule(list(rows)))
        raw = price.recompute(timeline.counts)
        if not fits(timeline, budget) or (best is not None and raw > WORTH * best[0][0]):
            continue
        allowed = min(iterations, IMPROVED // len(timeline.schedule))
        better = improve(graph, timeline.schedule, budget, allowed, cost=price)
        timeline = simulate(graph, better.schedule)
        key = price.recompute(timeline.counts), timeline.peak
        if best is None or key < best[0]:
            best, barren = (key, timeline), 0
    if best is None:
        clock.check()
        none = f"beam: found no schedule within {format_bytes(budget)} ({budget} bytes)"
        raise _least(graph, units, budget, none) if smallest else BudgetError(none)
    notes = {"rollouts": rollouts, "assumptions": "none, and no proof"}
    return Schedule(best[1].schedule.instructions, graph.digest, "beam", budget, notes=notes)


def _least(graph: Graph, units: Units, budget: int, none: str) -> BudgetError:
    """The error that names a budget, to 1 % the smallest there is above, that a rollout meets."""

    def attempt(limit: int) -> Timeline | None:
        clock.check()
        rows = _Beam(Roller(units, limit, 0.0), 1, 1, 0).run()
        if rows is None:
            return None
        timeline = simulate(graph, units.schedule(list(rows)))
        return timeline if fits(timeline, limit) else None

    stored = simulate(graph, Schedule(free_early(graph, compute_all(graph))))
    low, high, found = budget, stored.peak, stored
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        timeline = attempt(middle)
        if timeline is None:
            low = middle
        else:
            high, found = middle, timeline
    text = describe_instruction(found.schedule.instructions[found.peak_position], graph)
    return BudgetError(
        f"{none}; the smallest that it finds needs {format_bytes(high)} ({high} bytes), set by "
        f"{text}",
        smallest=high,
        instruction=text,
    )


def _settings() -> Iterator[tuple[int, int, float]]:
    for width, choices in BEAMS:
        for exponent in HALVINGS:
            yield width, choices, exponent


def _rank(path: _Path) -> tuple[int, int, list[int]]:
    return path.total, path.state.cost, sorted(path.state.live)


class _Beam:
    """One beam of some width; an eviction may take one of so many choices."""

    def __init__(self, roller: Roller, width: int, choices: int, work: int) -> None:
        self.roller = roller
        self.width = width
        self.choices = choices
        self.work = work
        self.rollouts = 0

    def run(self) -> tuple[tuple[int, ...], ...] | None:
        """The units computed for each step; None if no rollout came to the end, or time is up."""
        paths = [_Path(0, Situation(0, frozenset(), 0), ())]
        for _ in self.roller.units.reads:
            found: dict[frozenset[int], _Path] = {}
            for path in paths:
                base = self.follow(path, None, found)
                if base is None:
                    continue
                for e, count in enumerate(base.choices):
                    for c in range(1, min(self.choices, count)):
                        if self.roller.work < self.work and not clock.stopped():
                            self.follow(path, (e, c), found)
            if not found or clock.stopped():
                return None
            paths = sorted(found.values(), key=_rank)[: self.width]
        return paths[0].computed

    def follow(
        self, path: _Path, turn: tuple[int, int] | None, found: dict[frozenset[int], _Path]
    ) -> Rolled | None:
        """Roll out, and note the state behind the next step if it is new or cheaper."""
        self.rollouts += 1
        limit = float("inf")
        if turn is not None and len(found) >= self.width:
            limit = sorted(p.total for p in found.values())[self.width - 1]
        before = self.roller.work
        rolled = self.roller.roll(path.state, turn, limit)
        clock.spend(self.roller.work - before)
        if rolled is not None:
            known = found.get(rolled.after.live)
            if known is None or rolled.after.cost < known.state.cost:
                computed = (*path.computed, rolled.computed)
                found[rolled.after.live] = _Path(rolled.cost, rolled.after, computed)
        return rolled
