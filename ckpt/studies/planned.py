"""The rows of a frontier: planners at budgets, each a task by itself, here or on workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from ckpt import workers
from ckpt.errors import CkptError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.planners.base.clock import Deadline
from ckpt.planners.base.registry import BUILT_IN
from ckpt.planners.bounds.lower import lower_bounds
from ckpt.schedule import Schedule

Row = dict[str, Any]

COLUMNS = (
    "planner", "budget_nbytes", "predicted_peak_nbytes", "measured_peak_nbytes",
    "recompute_flops", "overhead", "bound_flops", "gap_percent", "planning_seconds", "error",
)  # fmt: skip
"""Of a row, in order; what wasn't found or measured is None."""

EFFORT = 100_000_000
"""Of the linear program among the bounds, a budget."""


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
    ends: float | None
    """When all planning ends, by `time.time`."""
    left: float
    """So many tasks, this one included, share the time that is left."""

    @property
    def key(self) -> tuple[str | None, int]:
        return self.planner, self.limit


def planned(
    graph: Graph,
    planners: Sequence[str],
    limits: Sequence[int],
    *,
    iterations: int,
    time_limit: float | None,
    known: Iterable[Row] = (),
    on_row: Callable[[Row], None] | None = None,
    jobs: int | None = None,
    executor: Executor | None = None,
    cluster: str | None = None,
) -> list[AtBudget]:
    """Each planner at each of the ``limits``, which ascend. See `frontier.frontier`."""
    rows: dict[tuple[str | None, int], Any] = {(r["planner"], r["budget_nbytes"]): r for r in known}
    wanted = [
        (limit, name) for limit in limits for name in (None, *planners) if (name, limit) not in rows
    ]
    ends = None if time_limit is None else time.time() + time_limit
    tasks = [
        _Task(
            graph, limit, name, {"iterations": iterations} if name == "auto" else {}, ends,
            (len(wanted) - k) / (jobs or 1),
        )
        for k, (limit, name) in enumerate(wanted)
    ]  # fmt: skip
    told = _Told(planners, limits, rows, on_row)
    away = jobs is not None or executor is not None or cluster is not None
    own = [t for t in tasks if away and t.planner and t.planner.partition(":")[0] not in BUILT_IN]
    there = [task for task in tasks if task not in own]
    told.go_on()
    made = workers.each(_run, there, jobs=jobs, executor=executor, cluster=cluster)
    with closing(made):
        for key, result in _results(made, own):
            rows[key] = result
            told.go_on()
    return told.found


def _results(made: Iterator[Any], own: Sequence[_Task]) -> Iterator[Any]:
    return chain(made, map(_run, own))


def _run(task: _Task) -> tuple[tuple[str | None, int], Any]:
    """On a worker: the row that a planner makes of a budget; without a planner the bound."""
    seconds = None
    if task.ends is not None:  # twice its share
        share = 2 * (task.ends - time.time()) / max(task.left, 1)
        seconds = round(max(share, 0.1), 2)
    with Deadline(seconds).running():
        if task.planner is None:
            return task.key, lower_bounds(task.graph, task.limit, effort=EFFORT)[0].cost
        return task.key, _row(task.graph, task.planner, task.limit, task.options)


def _row(graph: Graph, name: str, limit: int, options: dict[str, Any]) -> Row:
    """One planner at one budget; a refusal is a row too."""
    row: Row = dict.fromkeys((*COLUMNS, "schedule", "refusal"))
    row.update(planner=name, budget_nbytes=limit)
    start = time.perf_counter()
    try:
        made = make_schedule(graph, name, limit, **options)
    except CkptError as error:  # over budget or time, not this kind of graph, or no solver
        row.update(error=str(error), refusal=error)
    else:
        timeline = simulate(graph, made)
        row.update(
            predicted_peak_nbytes=timeline.peak,
            recompute_flops=timeline.recompute_flops,
            overhead=timeline.overhead,
            schedule=made,
        )
    row["planning_seconds"] = time.perf_counter() - start
    return row


class _Told:
    """Rows in the order in which they can be told: once the bound and the planner's row for the
    next smaller budget, which stands where it is no dearer, are there."""

    def __init__(
        self,
        planners: Sequence[str],
        limits: Sequence[int],
        rows: dict[tuple[str | None, int], Any],
        on_row: Callable[[Row], None] | None,
    ) -> None:
        self.planners = planners
        self.rows = rows
        self.on_row = on_row
        self.waiting = [(limit, name) for limit in limits for name in planners]
        self.cheapest: dict[str, Row] = {}
        self.by_limit = {limit: AtBudget(limit) for limit in limits}
        self.done: dict[tuple[str, int], Row] = {}

    def go_on(self) -> None:
        """Tell what can be told by now."""
        held: set[str] = set()
        left = []
        for limit, name in self.waiting:
            if name in held or (name, limit) not in self.rows or (None, limit) not in self.rows:
                held.add(name)
                left.append((limit, name))
            else:
                self._tell(limit, name)
        self.waiting = left

    def _tell(self, limit: int, name: str) -> None:
        row, bound = dict(self.rows[name, limit]), self.rows[None, limit]
        if "schedule" in row:  # it isn't from an earlier run
            smaller = self.cheapest.get(name)
            if smaller is not None and (row["error"] or _price(smaller) <= _price(row)):
                row.update({key: smaller[key] for key in _PLAN}, error=None, refusal=None)
            row["bound_flops"] = bound
            if row["error"] is None:
                again = row["recompute_flops"]
                row["gap_percent"] = 0.0 if not again else None
                if again and bound is not None:
                    row["gap_percent"] = 100 * max((again - bound) / again, 0.0)
                self.cheapest[name] = dict(row)
        self.done[name, limit] = row
        if self.on_row is not None:
            self.on_row({key: value for key, value in row.items() if key not in _ASIDE})

    @property
    def found(self) -> list[AtBudget]:
        for limit, found in self.by_limit.items():
            found.bound = self.rows[None, limit]
            for name in self.planners:
                row = self.done[name, limit]
                found.schedules.append(row.pop("schedule", None))
                if (error := row.pop("refusal", None)) is not None:
                    found.errors.append(error)
                found.rows.append(row)
        return list(self.by_limit.values())


_PLAN = ("predicted_peak_nbytes", "recompute_flops", "overhead", "schedule")
_ASIDE = ("schedule", "refusal")


def _price(row: Row) -> tuple[int, int]:
    return row["recompute_flops"], row["predicted_peak_nbytes"]
