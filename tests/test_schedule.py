"""Schedules: their text, and what the reference machine refuses, in which words."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt.errors import ScheduleError
from ckpt.graph import BackwardStep, Graph, Node
from ckpt.machine import simulate
from ckpt.schedule import (
    Backward,
    Compute,
    Free,
    Instruction,
    Proof,
    Schedule,
    describe_instruction,
    parse,
    spell,
)

KINDS = {"C": Compute, "F": Free, "B": Backward}
INSTRUCTIONS: st.SearchStrategy[Instruction] = st.one_of(
    *(st.builds(kind, st.integers(0, 10**6)) for kind in (Compute, Free, Backward))
)


# -- instructions ----------------------------------------------------------------------------------


def test_instructions_of_different_kinds_are_never_equal() -> None:
    assert Compute(1) == Compute(1)
    assert len({Compute(1), Free(1), Backward(1), Compute(2), Compute(1)}) == 4
    assert Compute(1) != Free(1)  # type: ignore[comparison-overlap]
    assert Free(1) != Backward(1)  # type: ignore[comparison-overlap]
    assert Backward(1) != Compute(1)  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("instruction", [Compute(1), Free(1), Backward(1)])
def test_instructions_are_frozen_and_hashable(instruction: Any) -> None:
    assert {instruction: 5}[type(instruction)(1)] == 5
    for name in ("node", "step"):
        with pytest.raises((FrozenInstanceError, TypeError)):
            setattr(instruction, name, 2)


def test_instructions_are_spelled_in_whole_words() -> None:
    assert spell(Compute(7)) == "compute 7"
    assert spell(Free(7)) == "free 7"
    assert spell(Backward(7)) == "backward 7"


@given(INSTRUCTIONS)
def test_what_is_spelled_is_parsed(instruction: Instruction) -> None:
    assert parse(spell(instruction)) == instruction


@pytest.mark.parametrize(
    "text",
    [
        "", "compute", "compute 1 2", "compute 1 free 2", "compute 1;", "compute x", "compute -1",
        "compute 1.0", "Compute 1", "offload 1", "compute1", " compute 1", "1 compute", 7, None,
    ],
)  # fmt: skip
def test_any_other_text_is_no_instruction(text: Any) -> None:
    with pytest.raises(ScheduleError) as caught:
        parse(text)
    expected = f"{text!r} is no instruction; write 'compute N', 'free N' or 'backward N'"
    assert str(caught.value) == expected


def test_an_endless_number_is_no_instruction() -> None:
    with pytest.raises(ScheduleError, match=r"^line 1: "):
        Schedule.from_text("compute " + "9" * 5000)


# -- schedules -------------------------------------------------------------------------------------


def test_a_schedule_is_a_sequence_of_instructions() -> None:
    schedule = Schedule([Compute(1), Free(1)])  # type: ignore[arg-type]
    assert schedule.instructions == (Compute(1), Free(1))
    assert list(schedule) == [Compute(1), Free(1)]
    assert len(schedule) == 2


def test_a_schedule_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Schedule(()).planner = "mine"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Proof(1, "flops").bound = 2  # type: ignore[misc]


@given(st.lists(INSTRUCTIONS))
def test_text_is_read_back(instructions: list[Instruction]) -> None:
    schedule = Schedule(tuple(instructions))
    assert Schedule.from_text(schedule.to_text()) == schedule


def test_text_is_a_line_an_instruction() -> None:
    assert (
        Schedule((Compute(1), Backward(0), Free(1))).to_text() == "compute 1\nbackward 0\nfree 1\n"
    )


def test_text_may_name_the_values_and_is_read_back() -> None:
    schedule = Schedule((Compute(1), Compute(2), Backward(0), Free(1)))
    text = schedule.to_text(GRAPH)
    assert text == (
        "compute 1  # a\ncompute 2  # loss\nbackward 0  # tanh\nfree 1  # a\n"
    )  # node 1 is called a, 2 loss; step 0 is the backward of tanh
    assert Schedule.from_text(text) == schedule


def test_blank_lines_comments_and_spaces_are_passed_over() -> None:
    text = "# a plan\n\n  compute   1 # one\n\tfree 1\t\n   \n"
    assert Schedule.from_text(text).instructions == (Compute(1), Free(1))


@pytest.mark.parametrize("junk", ["free 1 2", "free 1; compute 2", "free", "free 1 //", "2"])
def test_a_line_that_is_no_instruction_is_named(junk: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        Schedule.from_text(f"compute 1\n\n{junk}\n")
    assert str(caught.value).startswith(f"line 3: {junk!r} is no instruction")
    assert "\n" not in str(caught.value)


# -- what is refused -------------------------------------------------------------------------------

X = Node(name="x", op="input", shape=(2,), nbytes=8, resident=True)
GRAPH = Graph(
    (
        X,
        Node(name="a", op="tanh", deps=(0,), shape=(2,), nbytes=8, source="m.py:1"),
        Node(name="loss", op="sum", deps=(1,), nbytes=4),
        Node(name="mask", op="draw", deps=(1,), captured=True, shape=(2,), nbytes=8),
        Node(name="b", op="exp", deps=(2, 3), shape=(2,), nbytes=8),
    ),
    (
        BackwardStep(label="tanh", reads=(1,), at=1, source="m.py:1"),
        BackwardStep(label="sum", reads=(0, 3)),
    ),
    outputs=(2,),
)
A = "1 (2 float32, 8 B, output of tanh 'a', m.py:1)"
LOSS = "2 (scalar float32, 4 B, output of sum 'loss')"
MASK = "3 (2 float32, 8 B, draw 'mask')"
B = "4 (2 float32, 8 B, output of exp 'b')"


def made(text: str) -> Schedule:
    """``"C1 F1 B0"``: compute 1, free 1, backward 0."""
    kinds: dict[str, Any] = KINDS
    return Schedule(tuple(kinds[w[0]](int(w[1:])) for w in text.split()))


def refused(text: str, graph: Graph = GRAPH) -> str:
    """What is said of the schedule's last instruction."""
    schedule = made(text)
    with pytest.raises(ScheduleError) as caught:
        simulate(graph, schedule)
    assert caught.value.position == len(schedule) - 1
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(f"instruction {len(schedule) - 1}")
    return said


REFUSALS = {
    # of a Compute
    "C9": "instruction 0: the graph has no node 9",
    "C-1": "instruction 0: the graph has no node -1",
    "C0": "compute 0 (2 float32, 8 B, input 'x'): an input or parameter is resident: drop this "
    "instruction",
    "C1 C2 C1": f"compute {A}: it is live since instruction 0: drop this, or free it first",
    "C1 F1 C1 C1": f"compute {A}: it is live since instruction 2: drop this, or free it first",
    "C2": f"compute {LOSS}: a dep isn't live: {A} was never computed: put 'compute 1' before it",
    "C1 F1 C1 F1 C2": f"compute {LOSS}: a dep isn't live: {A} was freed by instruction 3: free it "
    "later, or put 'compute 1' before this",
    "C1 C2 F2 C4": f"compute {B}: a dep isn't live: {LOSS} was freed by instruction 2: free it",
    "C1 C2 C4": f"compute {B}: a dep isn't live: {MASK} was never computed",
    "C1 C3 F3 C3": f"compute {MASK}: a captured value can't be rematerialized: keep it until its "
    "last reader",
    # of a Free
    "F5": "instruction 0: the graph has no node 5",
    "F-1": "instruction 0: the graph has no node -1",
    "F0": "free 0 (2 float32, 8 B, input 'x'): an input or parameter is resident and can't be "
    "freed: drop this instruction",
    "F1": f"free {A}: it isn't live: it was never computed; drop this instruction",
    "C1 F1 F1": f"free {A}: it isn't live: instruction 1 freed it; drop this instruction",
    "C1 C2 B0 F2": f"free {LOSS}: it is an output, live from the first Backward to the end: don't "
    "free it",
    # of a Backward
    "B2": "instruction 0: the backward has no step 2, but 2 steps",
    "B-1": "instruction 0: the backward has no step -1, but 2 steps",
    "C1 C2 B1": "backward 1 (of sum): the backward has one order, so that sums of cotangents keep "
    "their bits: backward 0 comes next",
    "C1 C2 B0 B0": "backward 0 (of tanh, m.py:1): instruction 2 did it already: drop this",
    "C1 C2 F1 B0": f"{A} was freed by instruction 2: free it later, or put 'compute 1' before this",
    "C1 C2 B0 B1": f"{MASK} was never computed: put 'compute 3' before it",
    "C1 B0": "backward 0 (of tanh, m.py:1): the first Backward comes after the outputs: "
    f"{LOSS} was never computed: put 'compute 2' before it",
    "C1 C2 F2 B0": f"comes after the outputs: {LOSS} was freed by instruction 2: free it later",
}


@pytest.mark.parametrize("text", REFUSALS)
def test_a_wrong_instruction_is_refused_with_the_way_out(text: str) -> None:
    assert REFUSALS[text] in refused(text)


def test_nobody_is_told_to_compute_a_captured_value_again() -> None:
    assert "put 'compute 3'" not in refused("C1 C2 C3 F3 B0 B1")


def test_a_result_wants_its_call() -> None:
    graph = Graph((X, Node(name="n", op="n", deps=(0,), call=True), replace(GRAPH[2], deps=(1,))))
    said = refused("C1 F1 C2", graph)
    assert "a dep isn't live: 1 (scalar float32, 0 B, output of n) was freed by instr" in said
    # Its bytes are there while the call is; but nobody has taken it yet.
    assert "it isn't live: it was never computed" in refused("C1 F2", graph)


def test_no_node_is_counted_from_the_end() -> None:
    assert "the graph has no node -1" in refused("C1 C2 C3 C-1")
    assert "the graph has no node -1" in refused("C1 C2 C3 C4 F-1")


def test_a_step_after_the_last_is_refused() -> None:
    assert "the backward has no step 2" in refused("C1 C2 C3 B0 B1 B2")


def test_a_missing_step_is_named() -> None:
    with pytest.raises(ScheduleError) as caught:
        simulate(GRAPH, made("C1 C2 C3 B0"))
    assert str(caught.value) == ("the schedule ends without backward 1 (backward of sum): add it")
    assert caught.value.position is None


@pytest.mark.parametrize("text", ["C1", "C1 C2 F2"])
def test_a_missing_output_is_named(text: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        simulate(replace(GRAPH, steps=()), made(text))
    assert str(caught.value) == (
        f"the schedule ends without output {LOSS} live: compute it, or don't free it"
    )
    assert caught.value.position is None


def test_an_effect_that_is_an_output_comes_before_the_first_step() -> None:
    graph = replace(GRAPH, outputs=(2, 3))
    assert f"comes after the outputs: {MASK} was never computed" in refused("C1 C2 B0", graph)


def test_an_output_s_owner_may_be_freed_during_backward() -> None:
    view = Node(name="v", op="v", deps=(1,), alias_of=1, shape=(2,), nbytes=8)
    graph = Graph((X, GRAPH[1], view), GRAPH.steps[:1], outputs=(2,))
    timeline = simulate(graph, made("C1 C2 B0 F1"))
    assert list(timeline.columns["live"]) == [8, 8, 8, 8]
    assert "it is an output" in refused("C1 C2 B0 F1 F2", graph)


def test_an_instruction_of_another_kind_is_an_error() -> None:
    with pytest.raises(AssertionError):
        simulate(GRAPH, Schedule(("compute 1",)))  # type: ignore[arg-type]


def test_an_empty_schedule_does_nothing() -> None:
    timeline = simulate(replace(GRAPH, steps=(), outputs=()), Schedule(()))
    assert (timeline.peak, timeline.peak_position, len(timeline)) == (0, 0, 0)


def test_instructions_in_words() -> None:
    assert describe_instruction(Compute(1), GRAPH) == f"compute {A}"
    assert describe_instruction(Free(2), GRAPH) == f"free {LOSS}"
    assert describe_instruction(Backward(0), GRAPH) == "backward 0 (of tanh, m.py:1)"
