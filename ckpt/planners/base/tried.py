"""What plans came to: remembered, so that another budget need not simulate them again."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from ckpt.graph import Graph
from ckpt.planners.base import clock
from ckpt.planners.base.clock import Deadline
from ckpt.planners.base.cost import Cost
from ckpt.timeline import Timeline


class Figures(NamedTuple):
    """Of a plan."""

    peak: int
    cost: int
    work: int
    """What making and simulating it took."""


class Tried:
    """The figures of a planner's plans, each known by what it is made from. Their timelines are
    not kept: of a large graph all of them would take gigabytes."""

    def __init__(self, cost: Cost) -> None:
        self.cost = cost
        self.figures: dict[Any, Figures] = {}

    def figures_of(self, plan: Any, make: Callable[[], Timeline]) -> Figures:
        """The work counts every time, so that no result depends on what was asked before."""
        if plan not in self.figures:
            with Deadline(apart=True).running() as own:
                made = make()
            self.figures[plan] = Figures(made.peak, self.cost.recompute(made.counts), own.spent)
        found = self.figures[plan]
        clock.spend(found.work)
        return found


@lru_cache(maxsize=8)
def tried(graph: Graph, cost: Cost, *planner: Any) -> Tried:
    """That of a planner, its name and its options, on a graph."""
    return Tried(cost)
