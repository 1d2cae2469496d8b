"""The tables of the chain planner: a graph cut in several ways, and the plans read off each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, assert_never

from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base import clock
from ckpt.planners.base.clock import Deadline
from ckpt.planners.base.cost import Cost
from ckpt.planners.base.emit import COMPUTED, Action, free_early, needed_only, vocabulary
from ckpt.planners.base.registry import over_budget
from ckpt.planners.base.tried import Figures, Tried
from ckpt.planners.chain.cuts import SLOTS_WORK, Cutter, Divided, cuts_of
from ckpt.planners.chain.interior import waiting_seeds
from ckpt.planners.chain.kinds import table_work
from ckpt.planners.chain.options import Choices, choices
from ckpt.planners.chain.runs import Runs
from ckpt.planners.chain.table import Table
from ckpt.schedule import Backward, Compute, Schedule
from ckpt.timeline import Timeline

LOOK_AHEAD = 16
"""How many strides beyond the budget are simulated: a plan may need less than the table thinks, as
bytes were rounded up. Fixed for a graph, and so are the strides, so that a larger budget never
costs more."""

LOOKED_NODES = 50_000
"""Of large graphs so many nodes times strides, at least one stride; and so many nodes times points
within a stride, or none."""

FRONTIER = 256
"""The strides that a frontier is divided into, about."""

MOST_SLOTS = 8_000
"""Of a table, unless more are asked for."""

PLAIN_SLOTS = 400
"""Beside a table over runs there is one over the stages, where so many slots are bearable."""

SIMULATED_NODES = 30_000
"""Up to so many nodes times points, every point of the frontier is simulated at once."""

POINTS = 12
"""Options of a stage, at most."""

EFFORT = 4096
"""How many choices of what to keep are weighed, over all kinds of stages."""


def tables_of(
    graph: Graph, cost: Cost, slots: int | None, options: bool, max_stages: int | None,
    widest: int | None,
) -> Tables:  # fmt: skip
    with Deadline(apart=True).running():  # they may be there already
        return _tables_of(graph, cost, slots, options, max_stages, widest).finished()


@lru_cache(maxsize=4)  # a table may take 200 MB, and one of fewer stages much less
def _tables_of(graph: Graph, *options: Any) -> Tables:
    return Tables(graph, *options)


class CornerPlan(NamedTuple):
    """A step of the frontier: bytes that are enough, cost, and where the plan is."""

    nbytes: int
    cost: int
    chain: Chain
    slots: int


class Tables:
    """A graph's tables, and the schedules that were read off them so far."""

    def __init__(
        self, graph: Graph, cost: Cost, slots: int | None, options: bool, max_stages: int | None,
        widest: int | None = None,
    ) -> None:  # fmt: skip
        self.graph = graph
        self.cost = cost
        self._tried = Tried(cost)
        self._cutter = Cutter(graph, cost, slots)
        self._options = slots, options
        self._asked = max_stages, widest
        self._cuts: list[Divided] | None = None
        self.chains: list[Chain] = []
        self.frontiers: list[list[CornerPlan]] = []

    def finished(self) -> Tables:
        """With all that isn't made yet: where the clock stops this, the next call goes on."""
        slots, options = self._options
        if self._cuts is None:
            cuts = cuts_of(self._cutter, *self._asked)
            self._cuts = [one for cut in cuts for one in _with_plain(cut)]
            self._cutter = Cutter(self.graph, self.cost, slots)  # what wasn't chosen can go
        while len(self.chains) < len(self._cuts):
            self.chains.append(Chain(self._cuts[len(self.chains)], slots, options))
        if not self.frontiers:
            frontiers = [one.points for one in self.chains]
            if sum(map(len, frontiers)) * len(self.graph) <= SIMULATED_NODES:
                frontiers = [_envelope(list(map(self._simulated, points))) for points in frontiers]
            self.frontiers = frontiers
        return self

    @property
    def frontier(self) -> list[CornerPlan]:
        return _envelope([point for points in self.frontiers for point in points])

    def within(self, budget: int | None) -> Schedule:
        """The cheapest schedule whose peak is within the budget."""
        found = [self._best(points, budget) for points in self.frontiers]
        able = [point for point in found if point is not None]
        if not able:
            ends = (points[k] for points in self.frontiers for k in (0, -1))
            least = map(self.timeline, ends)
            raise over_budget(self.graph, min(least, key=lambda t: t.peak), "chain", budget)
        best = min(able, key=lambda point: self._simulate(point).cost)
        return self._schedule(best, budget)

    def costing(self, most: int) -> Schedule:
        """The schedule of the least peak among those that recompute for at most ``most``."""
        able = [
            next(p for p in points if p.cost <= most and self._simulate(p).cost <= most)
            for points in self.frontiers  # each ends where nothing is recomputed
        ]
        return self._schedule(min(able, key=self._simulate), None)

    def _best(self, points: list[CornerPlan], budget: int | None) -> CornerPlan | None:
        """Of one frontier the last point that fits, looking a little beyond what should."""
        if budget is None:
            return points[-1]
        best = max(sum(point.nbytes <= budget for point in points) - 1, 0)
        # States of generators aren't in the table.
        while self._simulate(points[best]).peak > budget:
            if not best:
                return None
            best -= 1
        stride = 1 + len(points) // FRONTIER
        ahead = min(LOOK_AHEAD, 1 + LOOKED_NODES // len(self.graph))
        # By strides, whose ends are the same for every budget; then one by one to the next end.
        end = best - best % stride + stride
        for after in range(end, min(end + ahead * stride, len(points)), stride):
            if self._simulate(points[after]).peak > budget:
                break
            best, end = after, after + stride
        if stride * len(self.graph) > LOOKED_NODES:
            return points[best]
        for after in range(best + 1, min(end, len(points))):
            if self._simulate(points[after]).peak > budget:
                break
            best = after
        return points[best]

    def _simulated(self, point: CornerPlan) -> CornerPlan:
        """The bytes and cost that its plan turns out to need: at most what the table says."""
        figures = self._simulate(point)
        found = point._replace(nbytes=figures.peak, cost=figures.cost)
        self._tried.figures[found] = figures
        return found

    def _simulate(self, point: CornerPlan) -> Figures:
        return self._tried.figures_of(point, lambda: self.timeline(point))

    def timeline(self, point: CornerPlan) -> Timeline:
        """What the plan at a point comes to."""
        return simulate(self.graph, self._schedule(point, None))

    def _schedule(self, point: CornerPlan, budget: int | None) -> Schedule:
        instructions = free_early(self.graph, point.chain.actions(point.slots))
        return Schedule(instructions, self.graph.digest, "chain", budget, notes=point.chain.notes)


def _with_plain(cut: Divided) -> Iterator[Divided]:
    """The cut; and beside one into runs, if that is bearable, one without."""
    yield cut
    if cut.spans and SLOTS_WORK // table_work(cut.sequence) >= PLAIN_SLOTS:
        yield replace(cut, spans=None)


def _envelope(points: list[CornerPlan]) -> list[CornerPlan]:
    """Those that no other beats in both bytes and cost, ascending in bytes."""
    best: list[CornerPlan] = []
    for point in sorted(points, key=lambda p: (p.nbytes, p.cost)):
        if not best or point.cost < best[-1].cost:
            best.append(point)
    return best


class Chain:
    """The graph cut in one way: its stages, their choices, and the table over them."""

    def __init__(self, cut: Divided, slots: int | None, options: bool) -> None:
        self.cut = cut
        self.stages = stages = cut.stages
        self.graph = graph = stages.graph
        effort = EFFORT // len(cut.kinds)
        kinds = [choices(i, options=options, effort=effort, points=POINTS) for i in cut.kinds]
        self.choices = [kinds[k] for k in cut.sequence]
        priced, sequence = [choice.kind for choice in kinds], cut.sequence
        self.runs = Runs(priced, sequence, cut.spans) if cut.spans else None
        if self.runs is not None:
            priced, sequence = self.runs.kinds, self.runs.sequence
        if slots is None:  # 40 a stage, as far as the work is bearable
            affordable = SLOTS_WORK // (table_work(sequence) or 1)
            slots = max(min(40 * len(stages), MOST_SLOTS, affordable), 500)
        self.table = Table(priced, sequence, slots)
        # Beside what the table knows: what is never dropped, and the cotangents of early losses.
        lasting = {graph.owners[i] for i in stages.permanent}
        constant = sum(graph[i].nbytes for i in lasting if not graph[i].resident)
        constant += sum(graph.rows[n].nbytes for n in waiting_seeds(stages))
        found = self.table.steps()
        self.points = [
            CornerPlan(constant + self.table.nbytes(m), price, self, m)
            for m, price in zip(found, self.table.costs(found), strict=True)
        ]
        self.notes: dict[str, Any] = {
            "optimal": "among persistent schedules for these stages and options",
            "stages": len(stages),
            **({} if self.runs is None else {"runs": len(self.runs.spans)}),
            "cuts": list(stages.cuts),
            "kinds": len(kinds),
            "options": sum(len(choice.tapes) + len(choice.visits) for choice in kinds),
            "slots": self.table.slots,
            "slot_nbytes": self.table.nbytes(1),
        }

    def actions(self, slots: int) -> list[Action]:
        """A plan, Compute by Compute and Backward by Backward."""
        actions: list[Action] = []
        operations = self.table.operations(slots)
        if self.runs is not None:
            operations = self.runs.operations(operations)
        compute, _, backward = vocabulary(len(self.graph), len(self.graph.steps))
        for word, first, last in operations:
            clock.check()
            sofar = len(actions)
            for k in range(first, last + 1 if word == "advance" else first + 1):
                numbers, steps = self.cut.numbering[k], self.stages[k].backwards
                for action in _actions_of(self.choices[k], word, last):
                    match action:
                        case Compute(i):
                            actions.append(compute[numbers[i]])
                        case Backward(q):
                            actions.append(backward[steps[q]])
                        case _:
                            assert_never(action)
            clock.spend(COMPUTED * (len(actions) - sofar))
        permanent = self.stages.permanent
        return needed_only(self.graph, _once(actions, permanent), permanent)


def _actions_of(choice: Choices, word: str, option: int) -> tuple[Action, ...]:
    if word == "advance":
        return choice.advance
    if word == "tape":
        return choice.tapes[option].forward
    if word == "backward":
        return choice.tapes[option].backward
    return choice.visits[option].forward + choice.visits[option].backward


def _once(actions: list[Action], permanent: frozenset[int]) -> list[Action]:
    """``actions`` without second Computes of permanent values."""
    done: set[int] = set()
    first = []
    for action in actions:
        if isinstance(action, Compute) and action.node in permanent:
            if action.node in done:
                continue
            done.add(action.node)
        first.append(action)
    return first
