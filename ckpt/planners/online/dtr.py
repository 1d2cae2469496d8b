"""Dynamic tensor rematerialization: evict when memory runs out, recompute what is missed.

The paper decides online, while the program runs. Here its machine is run ahead of time, on bytes
and cost, over the program's own order; what it did is the Schedule.
"""

from __future__ import annotations

from ckpt.errors import BudgetError, UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base.cost import Cost, flops
from ckpt.planners.base.emit import compute_all
from ckpt.planners.base.registry import fits, over_budget, planner
from ckpt.planners.online.heuristics import HEURISTICS
from ckpt.planners.online.machine import BufferGraph
from ckpt.schedule import Compute, Schedule
from ckpt.units import format_bytes

THRASHING = 2.0
"""The slowdown of the step, cost with over cost without recomputation, that is reported."""


@planner("dtr", monotone=False, takes="heuristic")
def dtr(
    graph: Graph,
    budget: int | None = None,
    *,
    cost: Cost | None = None,
    heuristic: str = "dtr_eq",
    max_computes: int = 1_000_000,
    smallest: bool = True,
    max_cost: int | None = None,
) -> Schedule:
    """Evict the value of least ``heuristic`` score until what comes next fits; recompute on demand.

    Source: Kirisame et al., "Dynamic Tensor Rematerialization", ICLR 2021 (arXiv:2006.09616),
    section 2 and appendices A-C. With c the cost of a buffer's ops, m its bytes, s the cost
    performed since it was last read or written, and e* the evicted neighbourhood (evicted ancestors
    and descendants that are reached through evicted values), the scores are::

        dtr        (c + sum of c over e*) / (m s)        dtr_local  c / (m s)
        dtr_eq     as dtr, e* by union-find: undirected,  lru        1 / s
                   and never split when one comes back    size       1 / m
        msps       (c + sum over evicted ancestors) / m

    Guarantee: the simulated peak is within the budget; nothing about the cost, and a larger budget
    may cost more. Where it fails, the budget it names is one that it meets, found by bisection (to
    1 %), and not always its smallest: what fits is not monotone in the budget either. With
    ``smallest=False`` it names none, and doesn't look.
    Deviations: a free op ages values by one unit, so that scores stay finite; an instruction's
    cotangents are part of its need, and are never evicted; captured arrays stay until nothing can
    need them; values without a reader left are evicted at once (the paper's eager eviction), and
    leave e* once nothing can need them (its banishing).
    Ignores: what is still to come - it is an online policy.
    Cost: one vectorised scan over the buffers an eviction, O(buffers); ``dtr`` and ``msps`` also
    walk e* each time. A run of more than ``max_computes`` Computes, or whose Computes cost more
    than ``max_cost``, is given up. ``notes`` tells the slowdown of the step, and says ``thrashing``
    from 2 x on.
    """
    if heuristic not in HEURISTICS:
        raise UsageError(f"dtr has no heuristic {heuristic!r}; choose from {', '.join(HEURISTICS)}")
    price = cost or flops(graph)
    run = BufferGraph(graph, price, HEURISTICS[heuristic], max_computes, max_cost)
    ceiling = simulate(graph, Schedule(tuple(compute_all(graph)))).peak
    instructions = run(ceiling if budget is None else budget)
    if instructions is None:
        assert budget is not None
        if not smallest:
            raise BudgetError(f"dtr: no schedule within {format_bytes(budget)} ({budget} bytes)")
        # A step may write over a value that dies, which a run can't foresee: the peak that is named
        # lies below the budget that gave it, and asked for it we must come by the same ones again.
        low, high, instructions = 0, ceiling, run(ceiling)
        assert instructions is not None  # at the store-all peak nothing is evicted for room
        timeline = simulate(graph, Schedule(tuple(instructions)))
        while not fits(timeline, budget):
            if high - low <= max(1, high // 100):
                raise over_budget(graph, timeline, "dtr", budget)
            middle = (low + high) // 2
            attempt = run(middle)
            if attempt is None:
                low = middle
            else:
                high, instructions = middle, attempt
                timeline = simulate(graph, Schedule(tuple(instructions)))
    plain = price.forward(graph) + price.backward()
    computed = sum(price.nodes[s.node] for s in instructions if isinstance(s, Compute))
    slowdown = (computed + price.backward()) / plain if plain else 1.0
    notes = {
        "heuristic": heuristic,
        "evictions": run.evictions,
        "slowdown": round(slowdown, 4),
        "thrashing": slowdown >= THRASHING,
        "assumptions": "online: each eviction is decided without knowing what comes",
    }
    return Schedule(
        tuple(instructions), graph=graph.digest, planner="dtr", budget=budget, notes=notes
    )
