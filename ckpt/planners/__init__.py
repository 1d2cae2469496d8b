"""Planners: a Graph and a budget in, a Schedule out. One planner a file."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base.cost import Cost
from ckpt.planners.base.registry import Planner, get, names, planner
from ckpt.schedule import Schedule
from ckpt.units import format_bytes, parse_bytes

__all__ = ["Planner", "get", "make_schedule", "names", "planner", "resolve_budget"]


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
    found, preset = get(planner)
    limit, store_all, peak = resolve_budget(graph, budget)
    if limit is not None and limit > peak:
        note = f"the budget exceeds the {format_bytes(peak)} that store-all needs: nothing to plan"
        return replace(store_all, budget=limit, notes={"asked_for": planner, "note": note})
    return found(graph, limit, cost, **{**preset, **options})


def resolve_budget(graph: Graph, budget: int | str | None) -> tuple[int | None, Schedule, int]:
    """The budget in bytes, the store-all schedule, and its peak, of which percentages are taken."""
    store_all, peak = _stored(graph)
    return None if budget is None else parse_bytes(budget, of=peak), store_all, peak


@lru_cache(maxsize=2)  # it takes 2 s on 70,000 nodes, and a frontier asks for each row
def _stored(graph: Graph) -> tuple[Schedule, int]:
    store_all = get("store_all")[0](graph)
    return store_all, simulate(graph, store_all).peak
