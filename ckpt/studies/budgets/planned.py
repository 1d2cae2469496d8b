"""The rows of a frontier: planners at budgets, each a task by itself, here or on workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from ckpt import workers
from ckpt.errors import CkptError
from ckpt.graph import Graph
from ckpt.planners import get, make_timeline
from ckpt.planners.base import clock
from ckpt.planners.base.clock import WORK_LIMIT, Deadline
from ckpt.planners.base.registry import BUILT_IN
from ckpt.planners.bounds.lower import lower_bounds
from ckpt.schedule import Schedule

Row = dict[str, Any]

COLUMNS = (
    "planner", "budget_nbytes", "predicted_peak_nbytes", "measured_peak_nbytes",
    "recompute_flops", "overhead", "bound_flops", "gap_percent", "planning_seconds",
    "smallest_nbytes", "error",
)  # fmt: skip
"""Of a row, in order; what wasn't found or measured is None. ``smallest_nbytes``: of a refusal, the
smallest budget that the planner knows."""

EFFORT = 100_000_000
"""Of the linear program among the bounds, a budget."""

WORK = 40_000_000
"""Of a planner, at all budgets together: see `clock.Deadline`."""

FIRST = 0.1
"""Seconds that whatever is asked first has, so that there is something however little the time."""

FLOOR = 8
"""Of the time that is left, this part may go into the floor."""

AUTO = "auto"

ASKED_FIRST = ("store_all", "every", "sqrt", "chain")
"""Of the planners: those that are quick, and that which finds most, of tables that answer every
budget. They may take twice as long as others, so that a clock that cuts the rest off leaves these.
"""

Key = tuple[str | None, int]
"""A planner, or None for what no planner can beat, and a budget."""


def is_late(row: Row) -> bool:
    """Did the clock stop it, so that it might be another one if it is tried again?"""
    error = row["error"] or ""
    return error.startswith("stopped early") and WORK_LIMIT not in error


@dataclass(eq=False)
class AtBudget:
    """What is known of a budget, the planners in the order in which they were named."""

    limit: int
    bound: int | None = None
    """In FLOPs; None: no schedule fits."""
    rows: list[Row] = field(default_factory=list)
    schedules: list[Schedule | None] = field(default_factory=list)
    errors: list[CkptError] = field(default_factory=list)


@dataclass(frozen=True)
class _Task:
    """A planner at a budget, or without one the bound there: plain data, for a worker."""

    graph: Graph
    limit: int
    planner: str | None
    options: dict[str, Any]
    work: int
    ends: float | None
    """When this round of planning ends, by `time.time`."""
    left: float
    """So many tasks, this one included, share the time that is left."""
    least: float
    """Seconds that it has in any case."""

    @property
    def key(self) -> Key:
        return self.planner, self.limit


def planned(
    graph: Graph,
    planners: Sequence[str],
    place: Callable[[Sequence[Row]], list[int]],
    most: int,
    *,
    iterations: int,
    time_limit: float | None,
    known: Iterable[Row] = (),
    on_row: Callable[[Row], None] | None = None,
    jobs: int | None = None,
    executor: Executor | None = None,
    cluster: str | None = None,
) -> list[AtBudget]:
    """Each planner at up to ``most`` budgets, ascending; see `frontier.frontier` for the rest.

    ``place`` names the next budgets, given the rows of those before, until it names none. Whatever
    is asked may take its share of `WORK`, and twice its share of the time that is left. `auto` and
    the bound come last, and are told what the others found.
    """
    away = jobs is not None or executor is not None or cluster is not None
    ends = None if time_limit is None else time.time() + time_limit
    told = _Told(planners, known, on_row)
    with workers.pool(jobs=jobs, executor=executor, cluster=cluster) as there:
        while limits := _placed(place, told, ends):
            least = 0.0 if told.limits else FIRST
            share = min(1.0, 2 * len(limits) / max(most - len(told.limits), 1))
            until = None if ends is None else time.time() + share * (ends - time.time())
            wanted = told.begin(limits)
            left = len(wanted)
            for last in (False, True):
                asked = [key for key in wanted if (key[0] in (None, AUTO)) is last]
                asked.sort(key=lambda key: key[0] is not None and key[0] not in ASKED_FIRST)
                tasks = [
                    _Task(
                        graph, limit, name, told.options(name, limit, iterations), WORK // most,
                        until, (left - k) / (jobs or 1) / (1 + (name in ASKED_FIRST)), least,
                    )
                    for k, (name, limit) in enumerate(asked)
                ]  # fmt: skip
                left -= len(tasks)
                own = [task for task in tasks if away and not _built_in(task.planner)]
                theirs = [task for task in tasks if task not in own]
                with closing(workers.each(_run, theirs, executor=there)) as made:
                    for key, result in chain(made, map(_run, own)):
                        told.add(key, result)
    return told.found()


def _placed(
    place: Callable[[Sequence[Row]], list[int]], told: _Told, ends: float | None
) -> list[int]:
    """The next budgets: what that takes, such as the floor, heeds the clock, too."""
    seconds = None if ends is None or not told.limits else max(ends - time.time(), 0) / FLOOR
    with Deadline(seconds).running():
        return place(told.rows)


def _built_in(planner: str | None) -> bool:
    return planner is None or planner.partition(":")[0] in BUILT_IN


def _run(task: _Task) -> tuple[Key, Any]:
    """On a worker: the row that a planner makes of a budget; without a planner the bound."""
    seconds = None
    if task.ends is not None:  # twice its share
        share = 2 * (task.ends - time.time()) / max(task.left, 1)
        seconds = round(max(share, task.least), 2)
    with Deadline(seconds, work=task.work).running():
        if task.planner is None and clock.stopped():
            return task.key, 0
        if task.planner is None:
            return task.key, lower_bounds(task.graph, task.limit, **task.options)[0].cost
        return task.key, _row(task.graph, task.planner, task.limit, task.options)


def _row(graph: Graph, name: str, limit: int, options: dict[str, Any]) -> Row:
    """One planner at one budget; a refusal is a row too."""
    row: Row = dict.fromkeys((*COLUMNS, "schedule", "refusal"))
    row.update(planner=name, budget_nbytes=limit)
    start = time.perf_counter()
    try:
        clock.check()  # not all listen while they begin, which takes seconds on a large graph
        timeline = make_timeline(graph, name, limit, **options)
    except CkptError as error:  # over budget or time, not this kind of graph, or no solver
        row.update(
            error=str(error), refusal=error, smallest_nbytes=getattr(error, "smallest", None)
        )
    else:
        row.update(
            predicted_peak_nbytes=timeline.peak,
            recompute_flops=timeline.recompute_flops,
            overhead=timeline.overhead,
            schedule=timeline.schedule,
        )
    row["planning_seconds"] = time.perf_counter() - start
    return row


class _Told:
    """What was asked, and what of it is answered."""

    def __init__(
        self, planners: Sequence[str], known: Iterable[Row], on_row: Callable[[Row], None] | None
    ) -> None:
        self.planners = planners
        self.on_row = on_row
        self.limits: list[int] = []
        self.answers: dict[Key, Any] = {}
        for row in known:
            self.answers[row["planner"], row["budget_nbytes"]] = row
            if row["bound_flops"] is not None:
                self.answers[None, row["budget_nbytes"]] = row["bound_flops"]

    @property
    def rows(self) -> list[Row]:
        """Those of the budgets so far."""
        return [self.answers[name, limit] for limit in self.limits for name in self.planners]

    def begin(self, limits: Sequence[int]) -> list[Key]:
        """What has to be asked of these budgets; the rest is told."""
        self.limits += limits
        wanted: list[Key] = []
        for limit in limits:
            for name in (None, *self.planners):
                if (name, limit) not in self.answers and name is not None:
                    self._infer(name, limit)
                if (name, limit) not in self.answers:
                    wanted.append((name, limit))
                elif name is not None:
                    self._tell(name, limit)
        return wanted

    def _infer(self, name: str, limit: int) -> None:
        """What a planner said of a larger budget may answer for this one.

        A refusal that isn't about the budget stands; of planners that never do worse with more
        also a plan that takes no more than this.
        """
        monotone = get(name)[0].monotone
        for larger in sorted(other for other in self.limits if other > limit):
            row = self.answers.get((name, larger))
            if row is None:
                continue
            stands = row["smallest_nbytes"] is None and not is_late(row)
            if row["error"] is None:
                stands = monotone and row["predicted_peak_nbytes"] <= limit
            if stands:
                self.answers[name, limit] = {**row, "budget_nbytes": limit, "planning_seconds": 0.0}
                return

    def options(self, planner: str | None, limit: int, iterations: int) -> dict[str, Any]:
        """What those that come last are told of a budget."""
        rows = {name: self.answers.get((name, limit), {}) for name in self.planners}
        if planner is None:
            found = [row["recompute_flops"] for row in rows.values() if row.get("error", 0) is None]
            return {"effort": EFFORT, "known": min(found, default=None)}
        if planner != AUTO:
            return {}
        answers = {n: row.get("schedule") or row.get("smallest_nbytes") for n, row in rows.items()}
        known = {name: answer for name, answer in answers.items() if answer is not None}
        return {"iterations": iterations, "known": known}

    def add(self, key: Key, answer: Any) -> None:
        self.answers[key] = answer
        name, limit = key
        if name is not None:
            self._tell(name, limit)

    def _tell(self, name: str, limit: int) -> None:
        if self.on_row is not None:
            row = _bounded(self.answers[name, limit], self.answers.get((None, limit)))
            self.on_row({key: value for key, value in row.items() if key != "refusal"})

    def found(self) -> list[AtBudget]:
        """By rising budget. What is proven of a budget holds for smaller ones, and a planner's plan
        for a smaller budget stands where it is no dearer."""
        bounds: dict[int, int | None] = {}
        bound: int | None = 0
        for limit in sorted(self.limits, reverse=True):
            own = self.answers[None, limit]
            bound = None if bound is None or own is None else max(bound, own, self._proven(limit))
            bounds[limit] = bound
        cheapest: dict[str, Row] = {}
        found = []
        for limit in sorted(self.limits):
            at = AtBudget(limit, bounds[limit])
            for name in self.planners:
                row = {"schedule": None, "refusal": None, **self.answers[name, limit]}
                smaller = cheapest.get(name)
                if smaller is not None and (row["error"] or _price(smaller) <= _price(row)):
                    row |= {key: smaller[key] for key in _PLAN}
                    row |= dict.fromkeys(("error", "refusal", "smallest_nbytes"))
                row = _bounded(row, at.bound)
                if row["error"] is None:
                    cheapest[name] = row
                at.schedules.append(row["schedule"])
                if row["refusal"] is not None:
                    at.errors.append(row["refusal"])
                at.rows.append({key: row[key] for key in COLUMNS})
            found.append(at)
        return found

    def _proven(self, limit: int) -> int:
        """What planners proved of all schedules within a budget."""
        made = [self.answers[name, limit].get("schedule") for name in self.planners]
        proofs = [schedule.proof for schedule in made if schedule and schedule.budget == limit]
        return max((p.bound for p in proofs if p and not p.assumptions), default=0)


_PLAN = ("predicted_peak_nbytes", "recompute_flops", "overhead", "schedule")


def _bounded(row: Row, bound: int | None) -> Row:
    """``row`` beside what is proven of its budget."""
    again = row["recompute_flops"]
    gap = None
    if row["error"] is None and (not again or bound is not None):
        gap = 100 * max((again - (bound or 0)) / again, 0.0) if again else 0.0
    return {**row, "bound_flops": bound, "gap_percent": gap}


def _price(row: Row) -> tuple[int, int]:
    return row["recompute_flops"], row["predicted_peak_nbytes"]
