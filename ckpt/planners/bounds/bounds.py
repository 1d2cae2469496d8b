"""What no schedule can beat: the least memory, and the least recompute within a budget.

Every bound here holds for all schedules that `ckpt.simulate` accepts - any order of Computes, any
pattern of freeing - because it uses only what they share: each Backward runs once, in one order,
and what is live while it runs fits in the budget.

- `memory_floor`: what one instruction needs by itself.
- `knapsack_bound`: when a Backward runs, what doesn't fit and is read later is computed again.
- `chain_bound`: the closed form of Griewank & Walther 2000 for a chain, with its smallest state
  and its cheapest step; exact in the slots where the stages are equal.
- `lp_bound` (`ckpt.planners.bounds.lp`): the linear relaxation of what is live at some Backwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cmp_to_key
from math import comb
from typing import Any

from ckpt.errors import MissingExtraError
from ckpt.graph import Graph
from ckpt.planners.base.memory import memory_of
from ckpt.planners.exact.stagewise import closure, read_by
from ckpt.schedule import Backward, Compute, Instruction, describe_instruction

LINEAR_NODES = 120
"""Of larger graphs the linear program is left out."""


@dataclass(frozen=True)
class Floor:
    """The least bytes any schedule needs at some instruction, and that instruction in words."""

    nbytes: int
    instruction: str


@dataclass(frozen=True)
class Bound:
    """At least ``flops`` are recomputed; None: no schedule fits the budget at all."""

    name: str
    flops: int | None

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "recompute_flops": self.flops}


def memory_floor(graph: Graph) -> Floor:
    """The most that any one instruction needs live by itself: a peak below it is impossible.

    A Compute needs its deps, its result and its workspace; a Backward its residuals, the cotangents
    live by then, and its workspace; the end needs the outputs. Captured arrays that a Backward
    has read and a later one reads again can't be dropped between. O(nodes + edges).
    """
    nodes = graph.nodes
    memory = memory_of(graph)

    def held(positions: set[int]) -> int:
        owners = {graph.owners[i] for i in positions}
        return sum(nodes[o].nbytes for o in owners if not nodes[o].resident)

    needs: list[tuple[int, Instruction]] = []
    for i in sorted(graph.needed):
        if not nodes[i].resident:
            needs.append((held({i, *nodes[i].deps}) + nodes[i].workspace, Compute(i)))
    spans = {
        i: (readers[-1], readers[0])
        for i, readers in enumerate(graph.backward_readers)
        if readers and nodes[graph.owners[i]].captured
    }
    for q, i in enumerate(graph.backward_order):
        pinned = {c for c, (first, last) in spans.items() if last <= i <= first}
        needs.append((held({*nodes[i].residuals, *pinned}) + memory.during[q], Backward(i)))
    nbytes, step = max(needs, key=lambda need: need[0], default=(0, None))
    at_end = held(set(graph.outputs))
    if step is None or at_end > nbytes:
        return Floor(at_end, "the outputs, live at the end")
    return Floor(nbytes, describe_instruction(step, graph))


def knapsack_bound(graph: Graph, budget: int, *, moments: int = 16) -> Bound:
    """The fractional knapsack bound, at up to ``moments`` Backwards; the best of them.

    When a Backward runs, whatever an earlier Backward or this one needed has been computed. What a
    later one reads and isn't live then is computed again, so recompute is at least the FLOPs of all
    such values less the most that fits in the budget. A buffer and its views are one item; captured
    arrays must be live. O(moments x nodes log nodes).
    """
    order, nodes = graph.backward_order, graph.nodes
    memory = memory_of(graph)
    chosen = set(_spread(len(order), moments))
    computed: set[int] = set()
    best = 0
    for q, i in enumerate(order):
        computed |= closure(graph, read_by(graph, [q]), computed)
        if q not in chosen:
            continue
        reading = {graph.owners[j] for j in nodes[i].residuals if not nodes[j].resident}
        values: dict[int, int] = {}
        for j in computed:
            owner = graph.owners[j]
            readers = graph.backward_readers[j]
            if readers and readers[0] < i and not nodes[owner].resident:
                # Without the owner's buffer a view is made again from a new one.
                values[owner] = values.get(owner, nodes[owner].flops)
                values[owner] += nodes[j].flops if j != owner else 0
        reading.update(o for o in values if nodes[o].captured)
        room = budget - memory.during[q]
        room -= sum(nodes[o].nbytes for o in reading if not nodes[o].resident)
        if room < 0:
            return Bound("knapsack", None)
        items = [(value, nodes[o].nbytes) for o, value in values.items() if o not in reading]
        best = max(best, sum(value for value, _ in items) - _fill(items, room))
    return Bound("knapsack", best)


def _fill(items: list[tuple[int, int]], room: int) -> int:
    """The most value that fits, where items (value, bytes) can be cut."""
    saved = 0
    for value, nbytes in sorted(items, key=cmp_to_key(_density)):
        if nbytes > room:
            # Rounded down: the whole items that a schedule keeps save whole numbers of FLOPs.
            return saved + value * room // nbytes
        saved += value
        room -= nbytes
    return saved


def _density(one: tuple[int, int], other: tuple[int, int]) -> int:
    """Orders items (value, bytes) from the densest on, exactly: whole numbers only."""
    return other[0] * one[1] - one[0] * other[1]


def chain_bound(graph: Graph, budget: int) -> Bound | None:
    """Griewank & Walther's optimum for a chain of equal steps no dearer than this one's cheapest.

    Source: Griewank & Walther 2000, Proposition 1: to visit the states p, ..., 1 of a chain in
    turn, of which m fit at once beside the input, takes ``advances(m, p + 1)`` steps. The states
    are the values that Backwards read; each costs at least the cheapest step, and takes at least
    the bytes of the smallest value. The room counted is that of a Backward: the two values that a
    step needs while it runs are left out, so the bound is below the optimum where those matter.
    None where the values that Backwards read don't form a chain. O(nodes).
    """
    states = _chain_states(graph)
    if not states:
        return None
    memory = memory_of(graph)
    smallest = min(state.smallest for state in states)
    if not smallest:
        return None
    best = 0
    for skipped in range(min(3, len(states))):  # the earliest states may have more room
        visited = states[skipped:]
        slots = max((budget - memory.during[s.moment]) // smallest for s in visited)
        if slots < 1:
            return Bound("chain", None)
        again = advances(slots, len(visited) + 1) - len(visited)
        best = max(best, again * min(state.flops for state in visited))
    return Bound("chain", best)


def advances(slots: int, steps: int) -> int:
    """Untaped forward steps to reverse ``steps`` with ``slots``, the initial state's included.

    Griewank & Walther 2000: r n - C(s + r, r - 1) with the least r such that n <= C(s + r, s).
    """
    r = 0
    while comb(slots + r, slots) < steps:
        r += 1
    return r * steps - comb(slots + r, r - 1) if r else 0


@dataclass(frozen=True)
class _State:
    """A value of a chain that a Backward reads, and the step to it from the one before."""

    moment: int
    """Which Backward reads it, counted along ``backward_order``."""
    flops: int
    smallest: int
    """The fewest bytes of any value on the step."""


def _chain_states(graph: Graph) -> list[_State]:
    nodes = graph.nodes
    position = {i: q for q, i in enumerate(graph.backward_order)}
    read: dict[int, int] = {}  # owner -> the last Backward that reads it or a view of it
    for j, readers in enumerate(graph.backward_readers):
        owner = graph.owners[j]
        if readers and not nodes[owner].resident:
            read[owner] = max(read.get(owner, 0), position[readers[0]])
    if not read:
        return []
    states: list[_State] = []
    previous: int | None = None
    flops, smallest = 0, []
    for i in range(max(read) + 1):
        node = nodes[i]
        if node.resident or i not in graph.needed:
            continue
        before = {graph.owners[dep] for dep in node.deps if not nodes[graph.owners[dep]].resident}
        if graph.owners[i] != i:
            if not before <= {graph.owners[i]}:
                return []
            continue
        if node.captured or before != (set() if previous is None else {previous}):
            return []
        previous = i
        flops += node.flops
        smallest.append(node.nbytes)
        if i in read:
            states.append(_State(read[i], flops, min(smallest)))
            flops, smallest = 0, []
    moments = [state.moment for state in states]
    return states if moments == sorted(moments, reverse=True) else []


def lower_bounds(graph: Graph, budget: int, *, time_limit: float = 10.0) -> list[Bound]:
    """All bounds that apply, best first; the linear program needs SciPy, and a graph of at most
    `LINEAR_NODES` computed nodes: coarser ones than fit have been seen to prove nothing."""
    found = [knapsack_bound(graph, budget)]
    chain = chain_bound(graph, budget)
    if chain is not None:
        found.append(chain)
    computed = sum(not graph[i].resident for i in graph.needed)
    if computed <= LINEAR_NODES and all(bound.flops is not None for bound in found):
        from ckpt.planners.bounds.lp import lp_bound

        try:
            linear = lp_bound(graph, budget, time_limit=time_limit)
        except MissingExtraError:
            linear = None
        if linear is not None:
            found.append(linear)
    return sorted(found, key=lambda bound: (bound.flops is not None, -(bound.flops or 0)))


def _spread(count: int, most: int) -> Iterator[int]:
    """Up to ``most`` positions among ``count``, the first included, evenly apart."""
    return (k * count // most for k in range(most)) if count > most else iter(range(count))
