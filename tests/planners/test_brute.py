"""The exact search, against one that knows no shortcut; then it is the oracle for the others."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count
from typing import Any

import pytest

from ckpt.errors import BudgetError, UsageError
from ckpt.graph import BackwardStep, Graph, Node, Overwrites
from ckpt.machine import _Machine, simulate
from ckpt.planners.base import registry as base
from ckpt.schedule import Backward, Compute, Free, Instruction, Schedule
from tests.graphs import Build

brute = base.get("brute")[0]


def small_dag(size: int, seed: int) -> Graph:
    """A random graph with an input, a captured array, views, skips and shared cotangents."""
    rng = random.Random(seed)
    build = Build()
    build.resident(3, name="x")
    build.captured(2)
    for i in range(2, size):
        deps = [i - 1 if i > 2 else 0]
        if rng.random() < 0.4:
            deps.append(rng.randrange(i - 1))
        deps = list(dict.fromkeys(deps))
        view = rng.random() < 0.2 and not build.nodes[deps[0]].captured
        choices: list[int | str] = [*range(len(deps)), "out"]
        build.op(
            "view" if view else "f",
            *deps,
            nbytes=build.nodes[deps[0]].nbytes if view else rng.randint(1, 8),
            flops=rng.randint(0, 9),
            reads=() if view else rng.sample(choices, rng.randint(0, len(deps))),
            kinds=[rng.choice(["fresh", "handed", "view"]) for _ in deps],
            work=rng.randint(0, 2),
            backward_work=rng.randint(0, 1),
            view=view,
        )
    return build.graph(size - 1, name=f"dag-{size}-{seed}")


def dag_with_call(seed: int) -> Graph:
    """A random graph with an op of two results, and perhaps a view of one of them."""
    rng = random.Random(seed)
    build = Build()

    def op(name: str, *deps: int, **more: Any) -> int:
        more = {"nbytes": rng.randint(1, 8), "flops": rng.randint(0, 9), **more}
        return build.op(name, *deps, work=rng.randint(0, 2), kinds="handed", **more)

    def some(*reads: int | str) -> list[int | str]:
        return [r for r in reads if rng.random() < 0.5]

    x = op("f", build.resident(3, name="x"), reads=some("out"))
    call = op("call", x, nbytes=rng.choice([0, 0, 2]), reads=some(0))
    build.nodes[call] = replace(build.nodes[call], call=True)
    results = [op("result", call, flops=0, reads=some("out")) for _ in range(2)]
    first = results[0]
    if rng.random() < 0.5:
        first = op("view", first, nbytes=build.nodes[first].nbytes, view=True)
    y = op("f", first, *rng.sample([x, results[1]], rng.randint(0, 2)), reads=some(0, "out"))
    loss = op("f", *rng.sample([y, *results], 2), reads=some(0, 1))
    return build.graph(loss, name=f"call-{seed}")


def overwriting(graph: Graph, seed: int) -> Graph:
    """The graph, with values that its nodes and steps may overwrite."""
    rng = random.Random(seed)

    def pairs(read: tuple[int, ...], beside: int) -> tuple[tuple[int, int], ...]:
        owned = [r for r in read if not graph[r].call and graph[r].alias_of is None]
        chosen = [r for r in owned if rng.random() < 0.7]
        return tuple((r, rng.randint(0, beside + graph[r].nbytes)) for r in chosen)

    nodes = [replace(node, overwrites=pairs(node.deps, node.workspace)) for node in graph]
    steps = [
        replace(step, overwrites=pairs(step.reads, step.during - after))
        for step, after in zip(graph.steps, graph.between[1:], strict=True)
    ]
    return replace(graph, nodes=tuple(nodes), steps=tuple(steps))


def f(*deps: int, **more: Any) -> Node:
    return Node(name="f", op="f", deps=deps, **more)


def by_hand(*nodes: Node, reads: tuple[int, ...], **more: Any) -> Graph:
    """An input, these nodes from 1 on, and a backward of one step."""
    x = Node(name="x", op="input", resident=True)
    return Graph((x, *nodes), (BackwardStep(label="f", reads=reads, **more),))


@dataclass
class Prefix:
    """The first instructions of a schedule, as the machine performed them."""

    graph: Graph
    steps: tuple[Instruction, ...] = ()

    def __post_init__(self) -> None:
        machine = _Machine(self.graph, Schedule(self.steps))
        machine.perform()
        self.done = machine.done
        self.counts = machine.counts
        self.live = {i for i, live in enumerate(machine.live) if live}
        self.whole = self.done == len(self.graph.steps) and self.live >= {*self.graph.outputs}
        self.high = list(machine.timeline().columns["high"])
        actions = (p for p, s in enumerate(self.steps) if not isinstance(s, Free))
        self.last = max(actions, default=-1)

    def peak(self) -> int:
        """At least what it will be, whatever is freed next: the last action may yet overwrite."""
        saved = max((saved for _, saved in self.pending()), default=0)
        return max((h - saved * (p == self.last) for p, h in enumerate(self.high)), default=0)

    def pending(self) -> Overwrites:
        """What the last action would overwrite if more were freed."""
        over: Overwrites = ()
        match self.steps[self.last] if self.steps else None:
            case Compute(i):
                over = self.graph[i].overwrites
            case Backward(k):
                over = self.graph.steps[k].overwrites
        return over if any(value in self.live for value, _ in over) else ()

    def state(self) -> object:
        """Two prefixes of the same state can go on in the same ways, at the same cost."""
        now = self.held(len(self.steps)), self.done, tuple(map(bool, self.counts))
        return (now, self.steps[self.last], self.held(self.last + 1)) if self.pending() else now

    def held(self, end: int) -> object:
        """Which live values lie in the same buffer. A live call has a share, (call, result), in
        that of each of its results."""
        graph, live = self.graph, set()
        lies = {i: -1 for i, node in enumerate(graph) if node.resident}
        """For each value live, and for each result of a call that is: which buffer, as numbered."""
        for position, step in enumerate(self.steps[:end]):
            match step:
                case Compute(i):
                    live.add(i)
                    node, results = graph[i], graph.results.get(i, ())
                    lies.update({r: position * len(graph) + r for r in results if r not in live})
                    if node.alias_of is not None:
                        lies[i] = lies[node.alias_of]
                    elif not node.deps or not graph[node.deps[0]].call:
                        lies[i] = position * len(graph) + i
                case Free(i):
                    live.remove(i)
        buffers: dict[int, set[object]] = {}
        for i in live:
            buffers.setdefault(lies[i], set()).add(i)
            for result in graph.results.get(i, ()):
                buffers.setdefault(lies[result], set()).add((i, result))
        return frozenset(frozenset(b) for b in buffers.values())

    def more(self) -> Iterator[tuple[int, Prefix]]:
        """All that may come next, and what it costs. The order of Frees in a run means nothing, so
        they ascend."""
        graph, last = self.graph, self.steps[-1] if self.steps else None
        for i, node in enumerate(graph):
            spent = node.captured and self.counts[i]
            if i not in self.live and not spent and self.live >= {*node.deps}:
                yield node.flops * bool(self.counts[i]), Prefix(graph, (*self.steps, Compute(i)))
            free = i in self.live and not node.resident and not (self.done and i in graph.outputs)
            if free and not (isinstance(last, Free) and last.node > i):
                yield 0, Prefix(graph, (*self.steps, Free(i)))
        if self.done < len(graph.steps):
            outputs = () if self.done else graph.outputs
            if self.live >= {*graph.steps[self.done].reads, *outputs}:
                yield 0, Prefix(graph, (*self.steps, Backward(self.done)))


def plain_search(graph: Graph) -> dict[int, int]:
    """The least cost of recomputing for each peak that any schedule has, as far as it is less than
    for a lower one: by trying every instruction everywhere and letting the machine judge."""
    serial = count()
    start = Prefix(graph)
    queue = [(0, 0, next(serial), start)]
    seen: dict[object, int] = {}
    found: dict[int, int] = {}
    lowest = 1 << 60
    while queue:  # by ascending cost, then peak
        cost, peak, _, prefix = heappop(queue)
        state = prefix.state()
        if peak >= min(lowest, seen.get(state, lowest)):
            continue
        seen[state] = peak
        if prefix.whole and max(prefix.high) < lowest:
            lowest = max(prefix.high)
            found[lowest] = cost
        for added, after in prefix.more():
            if after.peak() < lowest:
                heappush(queue, (cost + added, after.peak(), next(serial), after))
    return found


def agrees(graph: Graph) -> None:
    """For each budget both searches find the same least cost, or none."""
    found = plain_search(graph)
    for budget in range(1, max(found) + 2):
        expected = min((cost for peak, cost in found.items() if peak <= budget), default=None)
        try:
            timeline = simulate(graph, brute(graph, budget))
        except BudgetError:
            assert expected is None, budget
        else:
            assert timeline.peak <= budget
            assert timeline.recompute_flops == expected, budget


# Seeds whose optimum changes with the budget, and that take about a second or less.


@pytest.mark.parametrize("seed", [2, 6, 10, 13, 15, 17])
def test_the_optimum_is_that_of_a_search_without_shortcuts(seed: int) -> None:
    agrees(small_dag(8, seed))


@pytest.mark.parametrize("seed", [42, 48, 54])
def test_the_optimum_with_a_view_of_an_input_is_that_of_the_plain_search(seed: int) -> None:
    graph = small_dag(6, seed)
    assert any(node.alias_of == 0 for node in graph)
    agrees(graph)


@pytest.mark.parametrize("seed", [2, 3, 9, 18, 31, 34])
def test_the_optimum_with_a_call_is_that_of_the_plain_search(seed: int) -> None:
    agrees(dag_with_call(seed))


@pytest.mark.parametrize("seed", [1, 10, 11, 15, 20])
def test_the_optimum_with_overwriting_is_that_of_the_plain_search(seed: int) -> None:
    agrees(overwriting(small_dag(7, seed), seed))


@pytest.mark.parametrize("seed", [0, 1, 2, 6, 9, 33])
def test_the_optimum_of_a_call_and_overwriting_is_that_of_the_plain_search(seed: int) -> None:
    agrees(overwriting(dag_with_call(seed), seed))


def test_an_overwritten_value_wants_no_room_beside_the_result() -> None:
    # One after the other in one buffer of 8 bytes; a's view would pin it.
    graph = by_hand(f(0, nbytes=8), f(1, nbytes=8, overwrites=((1, 8),)), reads=(2,))
    assert plain_search(graph) == {8: 0}
    agrees(graph)


def test_overwriting_saves_what_it_says_and_no_more() -> None:
    # c of 4 bytes, a of it, b over a. With c there b needs 4 + 8 + 8 - 4; freed, c costs 5 again.
    c, a, b = f(0, nbytes=4, flops=5), f(1, nbytes=8), f(2, nbytes=8, overwrites=((2, 4),))
    graph = by_hand(c, a, b, reads=(1, 3))
    assert plain_search(graph) == {16: 0, 12: 5}
    agrees(graph)


def test_a_call_freed_alone_lets_its_result_be_overwritten() -> None:
    call, result = f(0, call=True), f(1, nbytes=8)
    graph = by_hand(call, result, f(2, nbytes=8, overwrites=((2, 8),)), reads=(3,))
    assert plain_search(graph) == {8: 0}  # compute 1, compute 2, free 1, compute 3, free 2
    agrees(graph)


def test_a_view_freed_alone_lets_its_owner_be_overwritten() -> None:
    # The last reads a, whose view its other dep was made of: a, b of 1 byte, and c over a.
    graph = by_hand(
        f(0, nbytes=8, flops=3),
        f(1, nbytes=8, alias_of=1),
        f(2, nbytes=1),
        f(1, 3, nbytes=8, overwrites=((1, 8),)),
        reads=(4,),
    )
    assert plain_search(graph) == {9: 0}
    agrees(graph)


def test_of_several_that_die_that_one_is_overwritten_which_saves_most() -> None:
    # 3 may write over 1 and save nothing, or over 2 and save 8. 4 beside it takes 8 + 12.
    graph = by_hand(
        f(0, nbytes=8, flops=1),
        f(0, nbytes=8, flops=1),
        f(1, 2, nbytes=8, overwrites=((1, 0), (2, 8))),
        f(3, nbytes=12),
        f(0),
        reads=(4, 5),
    )
    assert plain_search(graph) == {20: 0}
    agrees(graph)


def test_an_output_is_not_overwritten_by_the_first_step() -> None:
    graph = by_hand(f(0, nbytes=8), reads=(1,), during=8, overwrites=((1, 8),))
    graph = replace(graph, outputs=(1,))
    assert plain_search(graph) == {16: 0}
    agrees(graph)


@pytest.mark.parametrize(
    "graph", [small_dag(7, 2), small_dag(7, 34), dag_with_call(36), dag_with_call(38)]
)
def test_no_optimum_with_overwriting_is_missed(graph: Graph) -> None:
    agrees(overwriting(graph, int(graph.name.rpartition("-")[2])))


@pytest.mark.parametrize("seed", range(8))
def test_the_smallest_budget_named_is_the_smallest(seed: int) -> None:
    graph = small_dag(10, seed)
    with pytest.raises(BudgetError) as caught:
        brute(graph, 1)
    smallest = caught.value.smallest
    assert smallest is not None
    assert simulate(graph, brute(graph, smallest)).peak == smallest
    with pytest.raises(BudgetError):
        brute(graph, smallest - 1)


def test_more_bytes_never_cost_more() -> None:
    graph = small_dag(12, 1)
    with pytest.raises(BudgetError) as caught:
        brute(graph, 1)
    assert caught.value.smallest is not None
    costs = [
        simulate(graph, brute(graph, b)).recompute_flops for b in range(caught.value.smallest, 60)
    ]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 0
    assert costs[-1] == 0


def test_what_it_finds_is_proven_and_its_assumption_is_told() -> None:
    graph = small_dag(12, 1)
    schedule = brute(graph, 40)
    assert schedule.proof is not None
    assert schedule.proof.bound == simulate(graph, schedule).recompute_flops
    assert schedule.proof.assumptions == ()
    a, view = f(0, nbytes=8), f(1, nbytes=8, alias_of=1)
    viewed = by_hand(a, view, f(1, 2, nbytes=8, overwrites=((1, 8),)), reads=(3,))
    proof = brute(viewed, 99).proof
    assert proof is not None
    assert proof.assumptions == ("no value is computed again beside a view of it",)


def test_a_large_graph_is_refused_by_its_size() -> None:
    with pytest.raises(UsageError, match="at most 20"):
        brute(small_dag(30, 0), 10)
    with pytest.raises(UsageError, match="10 states"):
        brute(small_dag(12, 5), 30, max_states=10)
