"""What a search asks planners and the local search for; workers may begin it ahead."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Executor, Future, wait
from typing import Any, TypeVar

from ckpt import workers
from ckpt.errors import BudgetError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base import clock, registry
from ckpt.planners.base.clock import Deadline
from ckpt.planners.base.cost import Cost
from ckpt.planners.search.improve import Improved, improve
from ckpt.schedule import Schedule
from ckpt.timeline import Timeline

R = TypeVar("R")

Options = dict[str, Any]

Known = Mapping[str, Schedule | int]
"""What planners answered to the same question, by name: a schedule, or the smallest budget that one
that refused knows of."""

GRACE = 0.5
"""Seconds that a worker whose time is up has to hand back the best that it has."""


class Ahead:
    """Plans and improvements of one graph, made when they are asked for.

    What is asked for next depends on what was found, but can often be guessed: it may be begun on
    an executor before. What nobody began is done here, and what nobody asks for counts nothing: so
    all comes to the same wherever it is done. Raises StoppedError where the time is up before.
    """

    def __init__(
        self, executor: Executor | None, graph: Graph, budget: int | None, cost: Cost,
        known: Known | None = None,
    ) -> None:  # fmt: skip
        self.executor = executor
        self.known = known or {}
        self.problem = graph, budget, cost
        self.begun: dict[Hashable, Future[Any]] = {}

    def begin_plan(self, name: str, options: Options) -> None:
        if name not in self.known:
            self._begin((name, *options.items()), _plan, name, options)

    def plan(self, name: str, options: Options) -> Timeline:
        known = self.known.get(name)
        if isinstance(known, Schedule):
            return simulate(self.problem[0], known)
        if known is not None:
            raise BudgetError(f"{name}: needs {known} bytes", smallest=known)
        return self._made((name, *options.items()), _plan, name, options)

    def begin_improving(self, timeline: Timeline, iterations: int) -> None:
        self._begin((id(timeline), iterations), _improve, timeline.schedule, iterations)

    def improved(self, timeline: Timeline, iterations: int) -> Improved:
        return self._made((id(timeline), iterations), _improve, timeline.schedule, iterations)

    def close(self) -> None:
        """Nothing else will be asked for."""
        if self.executor is not None:
            workers.drop(self.executor, self.begun.values())

    def _begin(self, key: Hashable, function: Callable[..., object], *args: Any) -> None:
        if self.executor is not None and key not in self.begun:
            left = clock.left()
            ends = None if left is None else time.time() + left
            task = ends, function, (*self.problem, *args)
            self.begun[key] = workers.begin(self.executor, _under_clock, task)

    def _made(self, key: Hashable, function: Callable[..., R], *args: Any) -> R:
        future = self.begun.get(key)
        if future is None:
            return function(*self.problem, *args)
        while not future.done():
            wait([future], clock.LISTEN)
            if clock.stopped() and wait([future], GRACE).not_done:
                clock.check()
        return workers.result(future)  # type: ignore[no-any-return]


def _under_clock(task: tuple[float | None, Callable[..., R], tuple[Any, ...]]) -> R:
    """On a worker: the time ends there too."""
    ends, function, args = task
    with Deadline(None if ends is None else max(ends - time.time(), 0.0)).running():
        return function(*args)


def _plan(graph: Graph, budget: int | None, cost: Cost, name: str, options: Options) -> Timeline:
    found, given = registry.get(name)
    return found.simulated(graph, budget, cost, **given, **options)


def _improve(
    graph: Graph, budget: int | None, cost: Cost, schedule: Schedule, iterations: int
) -> Improved:
    return improve(graph, schedule, budget, iterations, cost=cost)
