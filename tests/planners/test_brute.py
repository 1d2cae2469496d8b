"""The exact search, against one that knows no shortcut; then it is the oracle for the others."""

from __future__ import annotations

import random
from heapq import heappop, heappush

import pytest

from ckpt.errors import BudgetError, ScheduleError, UsageError
from ckpt.graph import Graph
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


def plain_search(graph: Graph, budget: int) -> int | None:
    """Uniform-cost search that tries every instruction everywhere and lets `simulate` judge.

    Two prefixes are the same state if the same nodes are live in the same buffers, the same
    Backwards are done and the same nodes were ever computed.
    """

    def accepts(steps: tuple[Instruction, ...]) -> bool:
        try:
            return simulate(graph, Schedule(steps)).peak <= budget
        except ScheduleError as error:
            # A prefix lacks its end; any other complaint is about its last instruction.
            return error.position is None and _peak_of_prefix(graph, steps) <= budget

    queue: list[tuple[int, int, tuple[Instruction, ...]]] = [(0, 0, ())]
    seen = set()
    serial = 0
    while queue:
        cost, _, steps = heappop(queue)
        state = _state(graph, steps)
        if state in seen:
            continue
        seen.add(state)
        try:
            return simulate(graph, Schedule(steps)).recompute_flops
        except ScheduleError:
            pass
        computed = {s.node for s in steps if isinstance(s, Compute)}
        numbers = range(len(graph))
        more = [*map(Compute, numbers), *map(Free, numbers)]
        for step in (*more, *map(Backward, range(len(graph.steps)))):
            if accepts((*steps, step)):
                serial += 1
                again = isinstance(step, Compute) and step.node in computed
                added = graph[step.node].flops if again else 0
                heappush(queue, (cost + added, serial, (*steps, step)))
    return None


def _peak_of_prefix(graph: Graph, steps: tuple[Instruction, ...]) -> int:
    machine = _Machine(graph, Schedule(steps))
    machine.perform()
    return machine.timeline().peak


def _state(graph: Graph, steps: tuple[Instruction, ...]) -> object:
    """Live nodes by the Compute that made their buffer, Backwards done, nodes ever computed."""
    made: dict[int, int] = {}
    for position, step in enumerate(steps):
        if isinstance(step, Compute):
            owner = graph.nodes[step.node].alias_of
            made[step.node] = position if owner is None else made.get(owner, -1)
        elif isinstance(step, Free):
            del made[step.node]
    buffers: dict[int, list[int]] = {}
    for node, position in made.items():
        buffers.setdefault(position, []).append(node)
    return (
        frozenset(frozenset(b) for b in buffers.values()),
        sum(isinstance(s, Backward) for s in steps),
        frozenset(s.node for s in steps if isinstance(s, Compute)),
    )


@pytest.mark.parametrize("seed", range(8))
def test_the_optimum_is_that_of_a_search_without_shortcuts(seed: int) -> None:
    graph = small_dag(6, seed)
    ceiling = simulate(graph, brute(graph)).peak
    answers = []
    for budget in range(1, ceiling + 1):
        expected = plain_search(graph, budget)
        try:
            timeline = simulate(graph, brute(graph, budget))
        except BudgetError:
            assert expected is None
        else:
            assert timeline.peak <= budget
            assert timeline.recompute_flops == expected
        answers.append(expected)
    assert answers[0] is None
    assert answers[-1] == 0


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


def test_a_large_graph_is_refused_by_its_size() -> None:
    with pytest.raises(UsageError, match="at most 20"):
        brute(small_dag(30, 0), 10)
    with pytest.raises(UsageError, match="10 states"):
        brute(small_dag(12, 5), 30, max_states=10)
