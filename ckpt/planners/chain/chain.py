"""The chain planner: any graph as a chain of unequal stages, and the best nesting of snapshots."""

from __future__ import annotations

from typing import NamedTuple

from ckpt.graph import Graph
from ckpt.planners.base.cost import Cost, flops
from ckpt.planners.base.registry import planner
from ckpt.planners.chain.plans import tables_of
from ckpt.schedule import Schedule
from ckpt.units import at_least


@planner("chain", takes="max_stages")
def chain(
    graph: Graph,
    budget: int | None = None,
    *,
    cost: Cost | None = None,
    slots: int | None = None,
    options: bool = True,
    max_stages: int | None = None,
    widest: int | None = None,
) -> Schedule:
    """The cheapest nesting of snapshots and tapes over stages of unequal bytes and cost.

    Source: rotor's persistent dynamic programme (Beaumont et al. 2019, section 4) with the
    cotangent that its recurrence omits, and options per stage (Rockmate, Zhao et al. 2023): see
    `chain_dp` for the recurrence and `options` for what may be kept inside a stage. The graph is
    cut in several ways, between blocks and within them; for each budget the cheapest plan counts.
    Guarantee: optimal among persistent schedules (what is kept is kept until its last use) for the
    stages and options found, with bytes counted in slots. The true optimum may be lower: on random
    chains of 4 to 6 one-node stages its forward and recompute cost is 5 % less on average, and a
    third less near the smallest budget. The peak is within the budget. A larger budget never
    costs more, if no value crosses several cuts or the graph is small enough to simulate every step
    of its frontier; in others a plan may turn out cheaper than its table says, and so, by a
    little, than the plan for a larger budget.
    Ignores: schedules that drop a snapshot before its segment is done, or recompute across cuts;
    and that a stage's input may go early if the backward of the stage before reads it, too.
    Options: ``slots`` that storing everything takes, about (None: 40 a stage, but at least 500, and
    no more than take a quarter of a second); ``options`` inside a stage (False: keep a
    stage's full tape or nothing); ``max_stages`` to cut the graph into (``chain:8``), ``widest``
    that a boundary may be, in bytes (with either, one way to cut only).
    Cost: one table for each graph, which answers every budget: L stages take O(L^3 slots), O(p L^2
    slots) if they repeat with period p. Of a long chain that repeats, runs of equal blocks are
    planned once and are stages of a shorter one (see `runs`), so that a thousand equal layers take
    as long as a hundred, beside passes over the graph.
    """
    tables = tables_of(graph, cost or flops(graph), slots, options, max_stages, widest)
    return tables.within(budget)


class Corner(NamedTuple):
    """A budget at which the chain planner's cost falls, and to what."""

    budget: int
    recompute_cost: int


def frontier(
    graph: Graph,
    *,
    cost: Cost | None = None,
    slots: int | None = None,
    options: bool = True,
    max_stages: int | None = None,
    widest: int | None = None,
) -> list[Corner]:
    """All that more memory buys, ascending: from the smallest budget to that which stores all.

    Read off the tables, so cost may be exact to seven digits only; `chain` never needs more than
    the budget given here.
    """
    tables = tables_of(graph, cost or flops(graph), slots, options, max_stages, widest)
    return [Corner(point.nbytes, point.cost) for point in tables.frontier]


def least_peak(graph: Graph, recompute_cost: int, *, cost: Cost | None = None) -> Schedule:
    """The other way round: of the plans that recompute for at most ``recompute_cost`` the one
    whose peak is least."""
    tables = tables_of(graph, cost or flops(graph), None, True, None, None)
    return tables.costing(at_least(0, "recompute_cost", recompute_cost))
