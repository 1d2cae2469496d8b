"""Keep nothing: each Backward restarts from the inputs."""

from __future__ import annotations

from ckpt.errors import UsageError
from ckpt.graph import Graph
from ckpt.planners.base import clock
from ckpt.planners.base.emit import Emitter
from ckpt.planners.base.registry import planner
from ckpt.schedule import Schedule

MOST_COMPUTES = 1_000_000
"""Quadratic plans longer than this are refused: they help no one, and fill the memory."""


@planner("recompute_all")
def recompute_all(graph: Graph, budget: int | None = None) -> Schedule:
    """Before each Backward compute what it reads from the inputs alone, and let go of it after.

    Guarantee: nothing but outputs, captured arrays and cotangents outlives a Backward. (It is not
    always the smallest peak: values that two branches share are all live at once.) Ignores: the
    budget, but for refusing one that it exceeds. Cost: O(n²) instructions; UsageError above
    MOST_COMPUTES.
    """
    emitter = Emitter(graph)
    emitter.settle(emitter.compute(graph.outputs))
    for k, step in enumerate(graph.steps):
        clock.check()
        computed = emitter.compute(step.reads)
        emitter.backward(k)
        emitter.settle(computed)
        if len(emitter.actions) > MOST_COMPUTES:
            raise UsageError(
                f"recompute_all needs more than {MOST_COMPUTES} Computes for the {len(graph)} "
                "nodes of this graph; revolve keeps nearly as little at far less cost"
            )
    return emitter.schedule("recompute_all", budget)
