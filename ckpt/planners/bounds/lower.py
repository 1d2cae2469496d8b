"""All bounds that apply to a graph and a budget."""

from __future__ import annotations

from ckpt.graph import Graph
from ckpt.planners.base import clock
from ckpt.planners.base.cost import Cost, flops
from ckpt.planners.bounds.moments import pair_bound
from ckpt.planners.bounds.simple import Bound, chain_bound, knapsack_bound

EFFORT = 1_800_000_000
"""Of the linear program, by default: a few seconds; see `moments.pair_bound`."""


def lower_bounds(
    graph: Graph,
    budget: int,
    cost: Cost | None = None,
    *,
    effort: int = EFFORT,
    known: int | None = None,
    solver: str | None = None,
    given: Bound | None = None,
) -> list[Bound]:
    """All bounds that apply, best first: no schedule within ``budget`` recomputes for less.

    The linear program comes last, with ``effort`` (none: 0), and not at all where the others prove
    ``known``, the recompute of a plan, or that nothing fits. More effort never proves less.
    ``given``: what is proven already, by this program or better; it stands in its place.
    """
    price = cost or flops(graph)
    if known == 0:
        return [Bound("nothing is recomputed", 0)]
    found = [knapsack_bound(graph, budget, price)]
    chain = chain_bound(graph, budget, price)
    if chain is not None:
        found.append(chain)
    impossible = any(bound.cost is None for bound in found)
    proven = max(bound.cost or 0 for bound in found)
    if given is not None:
        found.append(given)
    elif effort and not (impossible or clock.stopped()) and (known is None or proven < known):
        pairs = pair_bound(
            graph, budget, price, effort=effort, at_least=proven, known=known, solver=solver
        )
        if pairs is not None:
            found.append(pairs)
    return sorted(found, key=lambda bound: (bound.cost is not None, -(bound.cost or 0)))
