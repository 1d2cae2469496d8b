"""What dtr's clock measures - the cost performed since a value was last read or written - and when
values go that the program reads no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base import registry as base
from ckpt.schedule import Backward, Compute, Free
from tests.graphs import Build, masked

dtr = base.get("dtr")[0]


def evicted(graph: Graph, budget: int, heuristic: str) -> list[int]:
    """The nodes freed before the first Backward, in order."""
    found = []
    for instruction in dtr(graph, budget, heuristic=heuristic):
        if isinstance(instruction, Backward):
            break
        if isinstance(instruction, Free):
            found.append(instruction.node)
    return found


def values(*costs: int, skip: bool = False) -> Graph:
    """1, 2 and 3 of four bytes, 4 of one, then 5 of six, and 6 of one, each reading the one before;
    with ``skip``, 4 reads 1 as well. Every Backward reads what the node read."""
    b = Build()
    x = b.resident(1, name="x")
    for k, (nbytes, cost) in enumerate(zip((4, 4, 4, 1, 6, 1), costs, strict=True), 1):
        deps = (x, 1) if skip and k == 4 else (x,)
        x = b.op("f", *deps, nbytes=nbytes, flops=cost, reads=[0])
    return b.graph(x)


ROOM = 19
"""Bytes for 1, 2, 3, 4, 5 and the seed but one: one of 1, 2 and 3 must make room for 5."""


def test_the_least_recently_used_is_not_the_first_one_made() -> None:
    """Where 4 reads 3, and 1 again, 2 is the one not read since 3 was made."""
    assert evicted(values(5, 5, 5, 5, 5, 5), ROOM, "lru")[0] == 1
    assert evicted(values(5, 5, 5, 5, 5, 5, skip=True), ROOM, "lru")[0] == 2


@pytest.mark.parametrize("heuristic", ["dtr", "dtr_eq", "dtr_local"])
def test_of_equals_the_older_goes(heuristic: str) -> None:
    assert evicted(values(5, 5, 5, 5, 5, 5, skip=True), ROOM, heuristic)[0] == 2


def test_ages_are_measured_in_cost() -> None:
    """When 5 comes, 1, 2 and 3 were last read by 2, 3 and 4, so c2 + c3 + c4, c3 + c4 and c4 ago,
    and one for each op beside: 33, 12 and 2. c / s is 50 / 33 = 1.5, 20 / 12 = 1.7, 9 / 2 = 4.5.
    Counted in ops - three, two and one ago - it would be 16.7, 10 and 9: the other order.
    """
    assert evicted(values(50, 20, 9, 1, 1, 1), ROOM, "dtr_local")[0] == 1


def test_a_free_op_ages_values_by_one() -> None:
    """Where nothing costs anything ages are 3, 2 and 1, and no score is infinite or undefined."""
    assert evicted(values(0, 0, 0, 0, 0, 0), ROOM, "lru")[0] == 1


def test_to_be_read_by_a_backward_is_to_be_used() -> None:
    """In the forward, 1 was last read by 2, before 2 was by 3. But the first Backward reads 1, and
    the second, which reads 3, needs one byte more than there is beside 1, 2 and 3: 2 is older."""
    b = Build()
    x = b.resident(1, name="x")
    for k in range(1, 6):
        wide = {"backward_work": 9} if k == 4 else {}
        x = b.op("f", x, nbytes=4 if k < 4 else 1, flops=5, reads=[0], **wide)
    graph = b.graph(x)
    first = replace(graph.steps[0], reads=(1,))
    graph = Graph(graph.nodes, (first, *graph.steps[1:]), graph.rows, graph.outputs)
    held = 4 + 4 + 4 + 1  # and 5, the output
    schedule = dtr(graph, held + graph.steps[1].during - 1, heuristic="lru").instructions
    between = schedule[schedule.index(Backward(0)) + 1 : schedule.index(Backward(1))]
    assert between == (Free(2),)


def test_what_the_program_reads_no_more_goes_at_once() -> None:
    """u is read by v alone and by no Backward: it is freed right behind v."""
    b = Build()
    x = b.resident(1, name="x")
    u = b.op("u", x, nbytes=4, flops=5, reads=[0])
    v = b.op("v", u, nbytes=4, flops=5, reads=["out"])
    w = b.op("w", v, nbytes=4, flops=5, reads=["out"])
    schedule = dtr(b.graph(w)).instructions
    assert schedule[:3] == (Compute(u), Compute(v), Free(u))
    # v's own Backward, between w's and u's, is the last to read v.
    assert schedule[schedule.index(Backward(1)) + 1] == Free(v)


def test_captured_arrays_are_never_dropped_while_something_may_need_them() -> None:
    """They can't be computed again: at every budget each is computed once."""
    graph = masked(6)
    captured = [i for i, node in enumerate(graph) if node.captured]
    stored = simulate(graph, dtr(graph)).peak
    for budget in range(stored, stored // 2, -20):
        try:
            schedule = dtr(graph, budget)
        except base.BudgetError:
            break
        timeline = simulate(graph, schedule)
        assert {timeline.counts[i] for i in captured} == {1}
    assert budget < stored - 20
