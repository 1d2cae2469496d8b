"""What no schedule can beat: the least memory, and the least recompute within a budget.

Every bound here holds for all schedules that `ckpt.simulate` accepts - any order of Computes, any
pattern of freeing - because it uses only what they share: each Backward runs once, in one order;
what is live while it runs fits in the budget, the outputs included; and where it may write over
what dies with it, it saves no more than it says.

- `memory_floor`: what one instruction needs by itself.
- `knapsack_bound`: when a Backward runs, what doesn't fit and is read later is computed again.
- `chain_bound`: the closed form of Griewank & Walther 2000 for a chain, with its smallest state
  and its cheapest step; exact in the slots where the stages are equal.
- `bounds.pairs`: a linear relaxation of what is live at some Backwards and computed between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cmp_to_key
from math import comb
from typing import Any

from ckpt.graph import BackwardStep, Graph, Node
from ckpt.planners.base import clock
from ckpt.planners.base.cost import Cost
from ckpt.planners.base.reads import closure, read_by
from ckpt.schedule import Backward, Compute, Instruction, describe_instruction


@dataclass(frozen=True)
class Floor:
    """The least bytes any schedule needs at some instruction, and that instruction in words."""

    nbytes: int
    instruction: str


@dataclass(frozen=True)
class Bound:
    """Recomputing costs at least ``cost``; None: no schedule fits the budget at all."""

    name: str
    cost: int | None
    solver: str = ""
    """What solved it, of a linear program."""

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "recompute_cost": self.cost, "solver": self.solver}


def most_saved(instruction: Node | BackwardStep) -> int:
    """The most that it can need less by writing over something."""
    return max((saved for _, saved in instruction.overwrites), default=0)


def memory_floor(graph: Graph) -> Floor:
    """The most that any one instruction needs live by itself: a peak below it is impossible.

    A Compute needs its deps, its result and its workspace; a Backward what it reads, the outputs,
    and what it holds beside; the end needs the outputs. Captured values that a Backward has read
    and a later one reads again can't be dropped between. O(nodes + edges).
    """
    nodes = graph.nodes

    def held(values: set[int]) -> int:
        owners = {graph.owners[i] for i in values}
        return sum(nodes[o].nbytes for o in owners if not nodes[o].resident)

    needs: list[tuple[int, Instruction]] = []
    for i in graph.computed:
        node = nodes[i]
        beside = held({i}) + node.workspace
        if node.call:
            beside = graph.making[i]
        elif graph.owners[i] in {graph.owners[d] for d in node.deps}:
            beside = node.workspace
        needs.append((held(set(node.deps)) + beside - most_saved(node), Compute(i)))
    spans = {
        i: (readers[0], readers[-1])
        for i, readers in enumerate(graph.step_readers)
        if readers and nodes[graph.owners[i]].captured
    }
    for q, step in enumerate(graph.steps):
        pinned = {c for c, (first, last) in spans.items() if first <= q <= last}
        need = held({*step.reads, *pinned, *graph.outputs}) + step.during - most_saved(step)
        needs.append((need, Backward(q)))
    nbytes, instruction = max(needs, key=lambda need: need[0], default=(0, None))
    at_end = held(set(graph.outputs))
    if instruction is None or at_end > nbytes:
        return Floor(at_end, "the outputs, live at the end")
    return Floor(nbytes, describe_instruction(instruction, graph))


def knapsack_bound(graph: Graph, budget: int, cost: Cost, *, moments: int = 16) -> Bound:
    """The fractional knapsack bound, at up to ``moments`` Backwards; the best of them.

    When a Backward runs, whatever an earlier Backward or this one needed has been computed. What a
    later one reads and isn't live then is computed again, so recomputing costs at least what all
    such values do, less the most that fits in the budget. A buffer and its views are one item, and
    so are the results of a call, which is computed again unless all are kept; captured values must
    be live. O(moments x nodes log nodes).
    """
    nodes, owners = graph.nodes, graph.owners
    chosen = set(_spread(len(graph.steps), moments))
    computed: set[int] = set()
    always = {owners[o] for o in graph.outputs}
    best = 0
    for q, step in enumerate(graph.steps):
        computed |= closure(graph, read_by(graph, [q]), computed)
        if q not in chosen:
            continue
        if clock.stopped():
            break  # the best so far is a bound
        values: dict[int, int] = {}
        for j in computed:
            owner = owners[j]
            readers = graph.step_readers[j]
            if readers and readers[-1] > q and not nodes[owner].resident:
                # Without the owner's buffer a view is made again from a new one.
                values[owner] = values.get(owner, cost.nodes[owner])
                values[owner] += cost.nodes[j] if j != owner else 0
        live = always | {owners[j] for j in step.reads} | {o for o in values if nodes[o].captured}
        room = budget - step.during + most_saved(step)
        room -= sum(nodes[o].nbytes for o in live if not nodes[o].resident)
        if room < 0:
            return Bound("knapsack", None)
        items = {o: (value, nodes[o].nbytes) for o, value in values.items() if o not in live}
        _charge_calls(graph, cost, items)
        total = sum(value for value, _ in items.values())
        best = max(best, total - _fill(list(items.values()), room))
    return Bound("knapsack", best)


def _charge_calls(graph: Graph, cost: Cost, items: dict[int, tuple[int, int]]) -> None:
    """Make one item of the results of a call, where they cost nothing by themselves."""
    for call, results in graph.results.items():
        wanted = [r for r in results if r in items]
        if wanted and not any(items[r][0] for r in wanted):
            nbytes = sum(items.pop(r)[1] for r in wanted)
            items[call] = cost.nodes[call], nbytes


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


def chain_bound(graph: Graph, budget: int, cost: Cost) -> Bound | None:
    """Griewank & Walther's optimum for a chain of equal steps no dearer than this one's cheapest.

    Source: Griewank & Walther 2000, Proposition 1: to visit the states p, ..., 1 of a chain in
    turn, of which m fit at once beside the input, takes ``advances(m, p + 1)`` steps. The states
    are the values that Backwards read; each costs at least the cheapest step, and takes at least
    the bytes of the smallest value. The room counted is that of a Backward: the two values that a
    step needs while it runs are left out, so the bound is below the optimum where those matter.
    None where the values that Backwards read don't form a chain. O(nodes).
    """
    states = _chain_states(graph, cost)
    if not states:
        return None
    smallest = min(state.smallest for state in states)
    if not smallest:
        return None
    best = 0
    room = {
        state.moment: budget - step.during + most_saved(step)
        for state in states
        for step in (graph.steps[state.moment],)
    }
    for skipped in range(min(3, len(states))):  # the earliest states may have more room
        visited = states[skipped:]
        slots = max(room[s.moment] // smallest for s in visited)
        if slots < 1:
            return Bound("chain", None)
        again = advances(slots, len(visited) + 1) - len(visited)
        best = max(best, again * min(state.cost for state in visited))
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
    """Which step of the backward reads it last."""
    cost: int
    smallest: int
    """The fewest bytes of any value on the step."""


def _chain_states(graph: Graph, cost: Cost) -> list[_State]:
    nodes = graph.nodes
    read: dict[int, int] = {}  # owner -> the last step that reads it or a view of it
    for j, readers in enumerate(graph.step_readers):
        owner = graph.owners[j]
        if readers and not nodes[owner].resident:
            read[owner] = max(read.get(owner, 0), readers[-1])
    if not read:
        return []
    states: list[_State] = []
    previous: int | None = None
    spent, smallest = 0, []
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
        spent += cost.nodes[i]
        smallest.append(node.nbytes)
        if i in read:
            states.append(_State(read[i], spent, min(smallest)))
            spent, smallest = 0, []
    moments = [state.moment for state in states]
    return states if moments == sorted(moments, reverse=True) else []


def _spread(count: int, most: int) -> Iterator[int]:
    """Up to ``most`` positions among ``count``, the first included, evenly apart."""
    return (k * count // most for k in range(most)) if count > most else iter(range(count))
