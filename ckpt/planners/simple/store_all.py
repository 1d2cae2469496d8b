"""Keep every value until its last reader."""

from __future__ import annotations

from ckpt.graph import Graph
from ckpt.planners.base.lower import lower
from ckpt.planners.base.registry import planner
from ckpt.schedule import Schedule


@planner("store_all")
def store_all(graph: Graph, budget: int | None = None) -> Schedule:
    """Compute everything once and free each value at its last read: plain reverse mode.

    Guarantee: no recomputation; no schedule without recomputation has a lower peak in this order.
    Ignores: nothing. Cost: linear in the nodes.
    """
    return lower(graph, range(len(graph)), planner="store_all", budget=budget)
