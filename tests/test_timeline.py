"""Timelines: what is read off them, what was held at a moment, and who still reads it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.graph import BackwardRow, BackwardStep, Graph, Node
from ckpt.machine import simulate
from ckpt.schedule import Backward, Compute, Free, Schedule
from ckpt.timeline import KINDS, Buffer, Buffers, Holding, Timeline, holdings, next_reader

X = Node(name="x", op="input", nbytes=100, resident=True)


def f(*deps: int, **more: Any) -> Node:
    return Node(name="f", op="f", deps=deps, **more)


def step(*reads: int, **more: Any) -> BackwardStep:
    return BackwardStep(label="f", reads=reads, **more)


def run(graph: Graph, text: str) -> Timeline:
    """``"C1 F1 B0"``: compute 1, free 1, backward 0."""
    kinds: dict[str, Any] = {"C": Compute, "F": Free, "B": Backward}
    return simulate(graph, Schedule(tuple(kinds[w[0]](int(w[1:])) for w in text.split())))


# a, a view of a, b, the loss, a captured mask, an effect; steps that read b, then a's view and the
# mask, then b and a; a cotangent of nobody's, and one of b.
GRAPH = Graph(
    (
        X,
        f(0, nbytes=8, flops=10),
        f(1, nbytes=8, alias_of=1),
        f(2, nbytes=16, flops=20, workspace=2),
        f(3, nbytes=4, flops=3),
        f(0, nbytes=8, captured=True),
        f(0, captured=True),
    ),
    (
        step(3, flops=1, during=20),
        step(2, 5, flops=2, during=20),
        step(3, 1, flops=4, during=9),
    ),
    (
        BackwardRow(kind="seed", nbytes=4, first=0, last=0, whose=4),
        BackwardRow(kind="cotangent", nbytes=8, first=0, last=2),
        BackwardRow(kind="cotangent", nbytes=8, first=0, last=1, whose=3),
        BackwardRow(kind="gradient", nbytes=100, first=1, last=3, whose=0),
    ),
    outputs=(4, 6),
)
TEXT = "C1 C2 F1 C3 C4 F3 C5 C6 C3 B0 B1 F2 F5 C1 B2"
#       0  1  2  3  4  5  6  7  8  9  10 11 12 13 14


# -- what is read off ------------------------------------------------------------------------------


def test_a_row_says_all_of_one_instruction() -> None:
    row = run(GRAPH, TEXT)[9]
    assert row.instruction == Backward(0)
    # a's buffer, b and the loss; the mask; both cotangents (the seed has gone).
    assert (row.activations, row.captured, row.states) == (8 + 16 + 4, 8, 0)
    assert (row.cotangents, row.gradients) == (8 + 8, 0)
    assert row.live == 28 + 8 + 16
    assert row.high == 28 + 8 + 20  # what the step holds
    assert (row.workspace, row.scratch, row.flops) == (row.high - row.live, 0, 1)
    assert row.phase == "backward"


def test_phases_tell_a_second_compute_from_the_first() -> None:
    phases = [row.phase for row in run(GRAPH, "C1 C2 F1 C1 C3 C4 C5 C6 B0 B1 B2 F3")]
    f, b = "forward", "backward"
    assert phases == [f, f, "free", "recompute", f, f, f, f, b, b, b, "free"]


def test_flops_are_told_by_phase() -> None:
    timeline = run(GRAPH, TEXT)
    assert timeline.forward_flops == 10 + 20 + 3
    assert timeline.recompute_flops == 20 + 10  # b, then a
    assert timeline.backward_flops == 1 + 2 + 4
    assert timeline.step_flops == 33 + 30 + 7
    assert timeline.overhead == 30 / 33
    assert timeline.recomputations == 2
    assert list(timeline.counts) == [0, 2, 1, 2, 1, 1, 1]


def test_a_third_compute_is_another_recomputation() -> None:
    timeline = run(replace(GRAPH, steps=(), rows=(), outputs=()), "C1 F1 C1 F1 C1")
    assert (timeline.recomputations, timeline.recompute_flops) == (2, 20)


def test_no_forward_has_no_overhead() -> None:
    assert run(Graph((X,)), "").overhead == 0.0


def test_steps_are_found_in_the_schedule() -> None:
    assert run(GRAPH, TEXT).backwards == [9, 10, 14]


def test_the_peak_is_the_first_highest_moment() -> None:
    timeline = run(Graph((X, f(0, nbytes=8), f(0, nbytes=8))), "C1 F1 C2 F2 C1")
    assert (timeline.peak, timeline.peak_position) == (8, 0)
    timeline = run(GRAPH, TEXT)
    # Both steps 0 and 1 hold 20 beside 8 + 16 + 4 + 8.
    assert (timeline.peak, timeline.peak_position) == (56, 9)
    assert timeline.whole_peak == 56 + 100 + 100  # with x and its gradient


# -- comparing -------------------------------------------------------------------------------------


def test_a_timeline_has_the_live_bytes_of_itself() -> None:
    assert run(GRAPH, TEXT).same_live_bytes(run(GRAPH, TEXT)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_instruction_at_which_a_kind_differs_is_named(kind: str) -> None:
    timeline = run(GRAPH, TEXT)
    column = list(timeline.columns[kind])
    column[5] += 1
    column[9] += 1
    other = replace(timeline, columns={**timeline.columns, kind: column})
    assert timeline.same_live_bytes(other) == other.same_live_bytes(timeline) == 5


def test_bytes_of_another_kind_are_other_bytes() -> None:
    def ending(**more: Any) -> Timeline:
        return run(Graph((X, f(0, nbytes=8), f(0, nbytes=8, **more))), "C1 C2")

    assert list(ending().columns["live"]) == list(ending(captured=True).columns["live"])
    assert ending().same_live_bytes(ending(captured=True)) == 1


def test_what_is_beyond_live_bytes_may_differ() -> None:
    def needing(**more: Any) -> Timeline:
        return run(Graph((X, f(0, nbytes=8, **more))), "C1")

    assert needing().same_live_bytes(needing(workspace=5, scratch=5, flops=5)) is None


def test_a_longer_timeline_differs_where_the_shorter_ends() -> None:
    graph = Graph((X, f(0, nbytes=8), f(0)))
    short, long = run(graph, "C1"), run(graph, "C1 C2")
    assert short.same_live_bytes(long) == long.same_live_bytes(short) == 1
    assert run(graph, "").same_live_bytes(short) == 0


# -- buffers ---------------------------------------------------------------------------------------


def test_every_buffer_says_whose_it_is_and_how_long() -> None:
    assert list(run(GRAPH, TEXT).buffers) == [
        (1, "activations", 8, 0, 11),  # by its view, until that is freed
        (3, "activations", 16, 3, 5),
        (4, "activations", 4, 4, 15),  # 15 instructions: to the end
        (5, "captured", 8, 6, 12),
        (6, "captured", 0, 7, 15),
        (3, "activations", 16, 8, 15),
        (1, "activations", 8, 13, 15),
        (4, "cotangents", 4, 9, 9),
        (None, "cotangents", 8, 9, 14),
        (3, "cotangents", 8, 9, 10),
        (0, "gradients", 100, 10, 15),
    ]


def test_buffers_are_a_sequence() -> None:
    buffers = run(GRAPH, TEXT).buffers
    assert len(buffers) == 11
    assert buffers[0] == Buffer(1, "activations", 8, 0, 11)
    assert buffers[-1].kind == "gradients"
    assert buffers[1:3] == [buffers[1], buffers[2]]
    assert len(Buffers()) == 0
    assert Buffers().held(0) == []


def scanned(buffers: Buffers, position: int) -> list[Buffer]:
    """What `Buffers.held` should find, the plain way."""
    return [b for b in buffers if b.born <= position <= b.died]


def test_what_an_instruction_reads_makes_and_frees_is_held_while_it_runs() -> None:
    buffers = Buffers([1, 2], ["activations"] * 2, [8, 4], [1, 3], [3, 5])
    held = [[b.whose for b in buffers.held(p)] for p in range(7)]
    assert held == [[], [1], [1], [1, 2], [2], [2], []]


def lives(rng: Random, count: int, end: int) -> Buffers:
    """Some short, some to the end, in no order."""
    born = [rng.randrange(end) for _ in range(count)]
    died = [rng.choice([b, min(b + rng.randrange(9), end), rng.randint(b, end), end]) for b in born]
    return Buffers(range(count), ["activations"] * count, [1] * count, born, died)


@given(st.randoms(use_true_random=False), st.integers(0, 300), st.integers(1, 200))
def test_what_is_held_is_what_a_scan_finds(rng: Random, count: int, end: int) -> None:
    buffers = lives(rng, count, end)
    for position in range(end + 1):
        assert sorted(buffers.held(position)) == scanned(buffers, position)


class Counted(list[int]):
    """A list that counts how often it is looked into."""

    looks = 0

    def __getitem__(self, index: Any) -> Any:
        self.looks += 1
        return super().__getitem__(index)


def moments(buffers: Buffers, end: int) -> Iterator[tuple[int, int]]:
    """At every 97th moment: how many are held, and how many were looked at for it."""
    counted = Counted(buffers.died)
    watched = Buffers(*buffers.columns[:4], counted)
    watched.held(0)  # what it prepares, it prepares once
    for position in range(0, end, 97):
        before = counted.looks
        held = len(watched.held(position))
        yield held, counted.looks - before - held  # a Buffer made looks once more


@pytest.mark.parametrize("kept", [0, 50, 2000])
def test_few_more_are_looked_at_than_are_held(kept: int) -> None:
    # Of 20000 values, ``kept`` live on to the end and the others until the next instruction.
    end = 20_000
    died = [end if i % (end // kept if kept else end + 1) == 1 else i + 1 for i in range(end)]
    buffers = Buffers([None] * end, ["activations"] * end, [1] * end, range(end), died)
    for held, looked in moments(buffers, end):
        # Since the last snapshot no more than half of it, and 32, were born and died.
        assert looked <= 2 * held + 40


def test_what_is_prepared_is_no_more_than_a_few_times_the_buffers() -> None:
    buffers = lives(Random(0), 5000, 10_000)
    buffers.held(0)
    _, snapshots = buffers._snapshots
    assert sum(map(len, snapshots)) <= 4 * len(buffers)


# -- holdings --------------------------------------------------------------------------------------


def test_holdings_name_who_reads_them_next_largest_first() -> None:
    # While step 0 runs: b, which it reads; a's buffer, by its view read in step 1; the mask too.
    # Among equals nobody's come first, then by position.
    assert holdings(GRAPH, run(GRAPH, TEXT), 9) == [
        Holding(3, "activations", 16, 0),
        Holding(None, "cotangents", 8, None),
        Holding(1, "activations", 8, 1),
        Holding(3, "cotangents", 8, None),
        Holding(5, "captured", 8, 1),
        Holding(4, "activations", 4, None),  # the loss, an output
        Holding(4, "cotangents", 4, None),  # its seed
    ]


def test_a_step_that_is_done_reads_nothing_more() -> None:
    def readers(position: int) -> list[int | None]:
        found = holdings(GRAPH, run(GRAPH, TEXT), position)
        values = {h.whose: h.reader for h in found if h.kind in ("activations", "captured")}
        return [values[3], values[1], values[5]]

    # b is read in steps 0 and 2, a in 1 (by its view) and 2, the mask in 1. Instruction 10 is step
    # 1: it is not done while it runs.
    assert readers(9) == [0, 1, 1]
    assert readers(10) == [2, 1, 1]
    assert readers(11) == [2, 2, None]


def test_gradients_are_holdings_where_they_count() -> None:
    def kinds(gradients: str) -> set[str]:
        steps = tuple(replace(s, during=200) for s in GRAPH.steps)
        graph = replace(GRAPH, steps=steps, gradients=gradients)
        return {h.kind for h in holdings(graph, run(graph, TEXT), 11)}

    assert "gradients" not in kinds("beforehand")
    assert "gradients" in kinds("appear")
    assert "gradients" in kinds("added")


def test_a_remembered_state_is_a_holding_that_no_step_reads() -> None:
    graph = Graph((X, f(0, nbytes=8, state_nbytes=5)), (step(1),))
    found = holdings(graph, run(graph, "C1 F1 C1 B0"), 1)
    assert found == [Holding(1, "activations", 8, 0), Holding(1, "states", 5, None)]


def test_buffers_of_no_bytes_that_nothing_reads_are_not_listed() -> None:
    assert 6 not in {h.whose for h in holdings(GRAPH, run(GRAPH, TEXT), 9)}


def test_the_next_reader_of_a_buffer_reads_it_or_a_view() -> None:
    assert [next_reader(GRAPH, 1, done) for done in range(4)] == [1, 1, 2, None]
    assert [next_reader(GRAPH, 3, done) for done in range(4)] == [0, 2, 2, None]
    assert next_reader(GRAPH, 4, 0) is None
