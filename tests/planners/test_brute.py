"""The exact search, against one that knows no shortcut; then it is the oracle for the others."""

from __future__ import annotations

import random
from heapq import heappop, heappush

import pytest

from ckpt.errors import BudgetError, ScheduleError, UsageError
from ckpt.graph import Graph, Node
from ckpt.planners.base import registry as base
from ckpt.schedule import Backward, Compute, Free, Instruction, Schedule
from ckpt.simulate import simulate

brute = base.get("brute")[0]


def small_dag(size: int, seed: int) -> Graph:
    """A random graph with an input, a captured array, views, skips and shared cotangents."""
    rng = random.Random(seed)
    nodes = [
        Node(name="x", op="input", nbytes=3, resident=True),
        Node(name="mask", op="captured", nbytes=2, captured=True, requires_grad=False),
    ]
    for i in range(2, size):
        deps = [i - 1 if i > 2 else 0]
        if rng.random() < 0.4:
            deps.append(rng.randrange(i - 1))
        deps = list(dict.fromkeys(deps))
        is_view = rng.random() < 0.2 and not nodes[deps[0]].captured
        readable = [*deps, i]
        nodes.append(
            Node(
                name=f"n{i}",
                op="view" if is_view else "f",
                deps=tuple(deps),
                nbytes=nodes[deps[0]].nbytes if is_view else rng.randint(1, 8),
                flops=0 if is_view else rng.randint(0, 9),
                residuals=() if is_view else tuple(rng.sample(readable, rng.randint(0, len(deps)))),
                workspace=rng.randint(0, 2),
                backward_workspace=tuple(rng.randint(0, 1) for _ in deps),
                alias_of=deps[0] if is_view else None,
                cotangents=tuple(
                    rng.choice(["fresh", "handed", "view"]) if nodes[d].requires_grad else None
                    for d in deps
                ),
            )
        )
    return Graph(tuple(nodes), (size - 1,), name=f"dag-{size}-{seed}")


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
        for i in range(len(graph)):
            for step in (Compute(i), Free(i), Backward(i)):
                if accepts((*steps, step)):
                    serial += 1
                    again = isinstance(step, Compute) and i in computed
                    heappush(queue, (cost + again * graph.nodes[i].flops, serial, (*steps, step)))
    return None


def _peak_of_prefix(graph: Graph, steps: tuple[Instruction, ...]) -> int:
    from ckpt.simulate import _perform

    return max(_perform(graph, Schedule(steps)).columns["high"], default=0)


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
