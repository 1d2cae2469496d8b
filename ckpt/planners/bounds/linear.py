"""A lower bound on recompute that holds for every schedule: what is live at chosen Backwards.

Columns, for moment v (a Backward at which memory is counted) and node i: ``L[v,i]`` i is live then;
``Z[v,i]`` i is computed at least once between moment v-1 and v; ``K[v,i]`` i is carried, live all
the while between them. Any schedule, in whatever order it computes, satisfies:

- what is computed or read has, or is, something live at the moment before or computed since;
- what is live at a moment was carried to it, or computed since the moment before;
- what is live at a moment fits beside that Backward's cotangents and workspace;
- what a Compute needs by itself fits beside what is carried past it;
- outputs are live at every moment.

Calls are never live: their results are, which hold as many bytes. Other memory between moments
isn't counted, and what may be written over is not counted beside the result, so the optimum is a
bound: what Checkmate's program (Jain et al. 2020, §4) says when the order of Computes isn't fixed.
"""

from __future__ import annotations

from math import inf

from ckpt.graph import Graph
from ckpt.planners.base.cost import Cost
from ckpt.planners.base.reads import closure, divide, read_by
from ckpt.planners.base.solver import INFEASIBLE, LinearProgram, proven_cost, unit
from ckpt.planners.bounds.simple import Bound, most_saved


def linear_bound(
    graph: Graph,
    budget: int,
    cost: Cost,
    *,
    time_limit: float = 10.0,
    integer: bool = False,
    max_size: int = 20_000,
) -> Bound | None:
    """The bound at up to as many Backwards as keep the program within ``max_size`` columns.

    ``integer`` asks that what is live be whole: a tighter bound, at exponential cost; what HiGHS
    has proven when the clock stops it counts. None if nothing is proven in ``time_limit`` seconds.
    Raises MissingExtraError without SciPy.
    """
    count = max(1, min(len(graph.steps), max_size // max(1, len(graph))))
    moments = [group.start for group in divide(graph, count) if group]
    program, cost_unit, whole = _program(graph, moments, budget, cost)
    solution = program.solve(time_limit=time_limit, integer=integer)
    name = "integer program" if integer else "linear program"
    if solution.status == INFEASIBLE:
        return Bound(name, None)
    if solution.bound == -inf:
        return None
    proven = proven_cost(solution.bound, cost_unit, whole) - cost.forward(graph)
    return Bound(name, max(0, proven))


def _program(
    graph: Graph, moments: list[int], budget: int, cost: Cost
) -> tuple[LinearProgram, float, bool]:
    """The program; the unit its costs are in, and whether that makes them whole."""
    nodes, owners, steps = graph.nodes, graph.owners, graph.steps
    needed = graph.computed
    byte_unit, _ = unit(nodes[i].nbytes for i in needed)
    cost_unit, whole = unit(cost.nodes[i] for i in needed)
    program = LinearProgram()
    total: dict[int, list[tuple[int, float]]] = {i: [] for i in needed}
    outputs = {i for o in graph.outputs for i in (o, owners[o]) if not nodes[i].resident}

    def buffers(table: dict[int, int]) -> list[tuple[int, float]]:
        return [(c, nodes[i].nbytes / byte_unit) for i, c in table.items() if owners[i] == i]

    # What Backwards from each moment on may have a use for.
    last = len(steps)
    useful = [closure(graph, read_by(graph, range(q, last))) | outputs for q in moments]
    live: dict[int, int] = {}
    begin = 0
    for v, end in enumerate([*moments, last]):
        wanted = read_by(graph, range(begin, last)) | (set() if v else outputs)
        computed = {i: program.column() for i in sorted(closure(graph, wanted))}
        tables = (live, computed)
        for j, column in computed.items():
            total[j].append((column, -1.0))
            for dep in dict.fromkeys(nodes[j].deps):
                if not nodes[dep].resident:
                    program.row([*_present(dep, tables), (column, -1.0)], low=0)
        for i in sorted(read_by(graph, range(begin, min(end + 1, last)))):
            program.row(_present(i, tables), low=1)
        if end == last:
            break
        after = {i: program.column(integer=True) for i in sorted(useful[v]) if not nodes[i].call}
        for i in read_by(graph, [end]) | outputs:
            program.low[after[i]] = 1
        room = budget - steps[end].during + most_saved(steps[end])
        program.row(buffers(after), high=room / byte_unit)
        carried = {i: program.column() for i in after if i in live}
        for i, column in after.items():
            program.row([*_present(i, (carried, computed)), (column, -1.0)], low=0)
        for i, column in carried.items():
            program.row([(live[i], 1.0), (column, -1.0)], low=0)
        for table in (after, carried):
            for i, column in table.items():
                if owners[i] != i and not nodes[owners[i]].resident:
                    program.row([(table[owners[i]], 1.0), (column, -1.0)], low=0)
        load = program.column(0, inf)
        program.row([*buffers(carried), (load, -1.0)], low=0, high=0)
        least = min(graph.between[begin : end + 1])
        for i, column in computed.items():
            own = {owners[j] for j in nodes[i].deps if not nodes[owners[j]].resident}
            beside = graph.making[i]
            if not nodes[i].call:
                own |= {owners[i]} if not nodes[owners[i]].resident else set()
                beside = nodes[i].workspace
            needs = sum(nodes[o].nbytes for o in own) + beside - most_saved(nodes[i])
            counted = [(carried[o], -nodes[o].nbytes / byte_unit) for o in own if o in carried]
            terms = [(load, 1.0), *counted, (column, needs / byte_unit)]
            program.row(terms, high=(budget - least) / byte_unit)
        live, begin = after, end + 1

    for i in needed:
        # Once at least; for an output that once may lie outside what is counted here.
        most = 1.0 if nodes[i].captured else inf
        times = program.column(1.0, most, cost=cost.nodes[i] / cost_unit)
        program.row([(times, 1.0), *total[i]], low=0)
    return program, cost_unit, whole


def _present(i: int, tables: tuple[dict[int, int], ...]) -> list[tuple[int, float]]:
    return [(table[i], 1.0) for table in tables if i in table]
