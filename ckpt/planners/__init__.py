"""Planners: a Graph and a budget in, a Schedule out. One planner a file."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from ckpt.graph import Graph
from ckpt.planners.base.cost import Cost
from ckpt.planners.base.registry import Planner, get, names, planner
from ckpt.schedule import Schedule
from ckpt.timeline import Timeline
from ckpt.units import format_bytes, parse_bytes

__all__ = ["Planner", "get", "make_schedule", "make_timeline", "names", "planner", "resolve_budget"]


def make_schedule(
    graph: Graph,
    planner: str = "auto",
    budget: int | str | None = None,
    cost: Cost | None = None,
    **options: Any,
) -> Schedule:
    """A schedule for ``graph`` by the planner of that name (``"every:4"`` sets its main option).

    ``budget`` bounds the simulated peak: bytes, ``"64MiB"``, ``"25%"`` of the store-all peak, or
    None. More than the store-all peak asks nothing of a planner: the schedule is then store-all,
    whatever the planner, and its notes say so. The planner minimises ``cost``, by default FLOPs.

    Raises UsageError for an unknown planner or option, UnitError for a budget that can't be read,
    BudgetError if the planner finds nothing within it.
    """
    return make_timeline(graph, planner, budget, cost, **options).schedule


def make_timeline(
    graph: Graph,
    planner: str = "auto",
    budget: int | str | None = None,
    cost: Cost | None = None,
    **options: Any,
) -> Timeline:
    """What the schedule of `make_schedule` comes to."""
    found, preset = get(planner)
    limit, store_all, peak = resolve_budget(graph, budget)
    if limit is not None and limit > peak:
        note = f"the budget exceeds the {format_bytes(peak)} that store-all needs: nothing to plan"
        notes = {"asked_for": planner, "note": note}
        return replace(_stored(graph), schedule=replace(store_all, budget=limit, notes=notes))
    return found.simulated(graph, limit, cost, **{**preset, **options})


def resolve_budget(graph: Graph, budget: int | str | None) -> tuple[int | None, Schedule, int]:
    """The budget in bytes, the store-all schedule, and its peak, of which percentages are taken."""
    kept = _stored(graph)
    limit = None if budget is None else parse_bytes(budget, of=kept.peak)
    return limit, kept.schedule, kept.peak


@lru_cache(maxsize=2)  # it takes 2 s on 70,000 nodes, and a frontier asks for each row
def _stored(graph: Graph) -> Timeline:
    return get("store_all")[0].simulated(graph)
