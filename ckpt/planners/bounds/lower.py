"""All bounds that apply to a graph and a budget."""

from __future__ import annotations

from ckpt.errors import MissingExtraError
from ckpt.graph import Graph
from ckpt.planners.base.cost import Cost, flops
from ckpt.planners.bounds.linear import linear_bound
from ckpt.planners.bounds.simple import Bound, chain_bound, knapsack_bound

LINEAR_NODES = 120
"""Of larger graphs the linear program is left out."""


def lower_bounds(
    graph: Graph, budget: int, cost: Cost | None = None, *, time_limit: float = 10.0
) -> list[Bound]:
    """All bounds that apply, best first; the linear program needs SciPy, and a graph of at most
    `LINEAR_NODES` computed nodes: coarser ones than fit have been seen to prove nothing."""
    price = cost or flops(graph)
    found = [knapsack_bound(graph, budget, price)]
    chain = chain_bound(graph, budget, price)
    if chain is not None:
        found.append(chain)
    if len(graph.computed) <= LINEAR_NODES and all(bound.cost is not None for bound in found):
        try:
            linear = linear_bound(graph, budget, price, time_limit=time_limit)
        except MissingExtraError:
            linear = None
        if linear is not None:
            found.append(linear)
    return sorted(found, key=lambda bound: (bound.cost is not None, -(bound.cost or 0)))
