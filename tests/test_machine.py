"""The reference machine on graphs made by hand: every byte is worked out beside its test.

Node 0 of every graph is an input, whose bytes count nowhere in the peak.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ckpt.graph import BackwardRow, BackwardStep, Graph, Node
from ckpt.machine import simulate
from ckpt.schedule import Backward, Compute, Free, Schedule
from ckpt.timeline import Timeline

X = Node(name="x", op="input", nbytes=1000, resident=True)


def f(*deps: int, **more: Any) -> Node:
    return Node(name="f", op="f", deps=deps, **more)


def step(*reads: int, **more: Any) -> BackwardStep:
    return BackwardStep(label="f", reads=reads, **more)


def row(kind: Any, nbytes: int, first: int, last: int, whose: int | None = None) -> BackwardRow:
    return BackwardRow(kind=kind, nbytes=nbytes, first=first, last=last, whose=whose)


def run(graph: Graph, text: str) -> Timeline:
    """``"C1 F1 B0"``: compute 1, free 1, backward 0."""
    kinds: dict[str, Any] = {"C": Compute, "F": Free, "B": Backward}
    return simulate(graph, Schedule(tuple(kinds[w[0]](int(w[1:])) for w in text.split())))


def column(timeline: Timeline, name: str) -> list[int]:
    return list(timeline.columns[name])


def live(graph: Graph, text: str) -> list[int]:
    return column(run(graph, text), "live")


def high(graph: Graph, text: str) -> list[int]:
    return column(run(graph, text), "high")


# -- values and views ------------------------------------------------------------------------------


def test_a_value_is_live_from_its_compute_to_its_free() -> None:
    graph = Graph((X, f(0, nbytes=8), f(1, nbytes=4)))
    assert live(graph, "C1 C2 F1 F2") == [8, 12, 4, 0]


def test_workspace_counts_while_the_value_is_computed() -> None:
    graph = Graph((X, f(0, nbytes=8, workspace=3), f(1, nbytes=4)))
    timeline = run(graph, "C1 C2")
    assert column(timeline, "high") == [8 + 3, 12]
    assert column(timeline, "workspace") == [3, 0]
    assert timeline.peak == 12


VIEWS = Graph((X, f(0, nbytes=8), f(1, nbytes=8, alias_of=1), f(2, nbytes=8, alias_of=2)))


def test_a_view_costs_nothing_and_pins_its_owner() -> None:
    assert live(VIEWS, "C1 C2 F1 F2") == [8, 8, 8, 0]
    assert live(VIEWS, "C1 C2 F2 F1") == [8, 8, 8, 0]


def test_a_view_of_a_view_pins_the_same_buffer() -> None:
    assert live(VIEWS, "C1 C2 C3 F1 F2 F3") == [8, 8, 8, 8, 8, 0]


def test_the_owner_of_a_pinned_buffer_is_made_anew() -> None:
    assert live(VIEWS, "C1 C2 F1 C1 F2 F1") == [8, 8, 8, 16, 8, 0]


def test_a_view_goes_with_the_buffer_that_it_was_made_of() -> None:
    # The second view lies in the second buffer: freeing the owner leaves that one.
    assert live(VIEWS, "C1 C2 F1 C1 F2 C2 F1 F2") == [8, 8, 8, 16, 8, 8, 8, 0]


def test_a_view_of_an_input_costs_nothing() -> None:
    graph = Graph((X, f(0, nbytes=1000, alias_of=0), f(1, nbytes=4)))
    assert live(graph, "C1 C2 F1 F2") == [0, 4, 4, 0]


# -- calls -----------------------------------------------------------------------------------------

NORM = Graph((
    X,
    f(0, call=True, flops=50, workspace=1),
    f(1, nbytes=8),  # its output
    f(1, nbytes=2),  # its statistics
    f(2, nbytes=8, alias_of=2),  # a view of the output alone
))  # fmt: skip


def test_results_are_made_together_at_the_cost_of_the_call_once() -> None:
    timeline = run(NORM, "C1 C2 C3 F1")
    assert column(timeline, "live") == [8 + 2, 10, 10, 10]
    assert column(timeline, "high") == [8 + 2 + 1, 10, 10, 10]
    assert column(timeline, "flops") == [50, 0, 0, 0]


def test_the_statistics_of_a_norm_outlive_its_output() -> None:
    assert live(NORM, "C1 C2 C3 F1 F2 F3") == [10, 10, 10, 10, 2, 0]


def test_the_output_of_a_norm_outlives_its_statistics() -> None:
    assert live(NORM, "C1 C2 C3 F1 F3 F2") == [10, 10, 10, 10, 8, 0]


def test_a_result_that_is_not_taken_dies_with_the_call() -> None:
    assert live(NORM, "C1 C2 F1") == [10, 10, 8]


def test_a_call_has_a_share_in_its_results() -> None:
    # Freed while the call is there, the output stays, and is there to be taken again.
    assert live(NORM, "C1 C2 F2 C2 F1 F2") == [10, 10, 10, 10, 8, 0]


def test_a_view_of_one_result_pins_that_result() -> None:
    assert live(NORM, "C1 C2 C3 C4 F1 F2 F3 F4") == [10, 10, 10, 10, 10, 10, 8, 0]


def test_results_without_a_node_are_the_call_s_own_bytes() -> None:
    graph = Graph((X, f(0, call=True, nbytes=3), f(1, nbytes=8)))
    assert live(graph, "C1 C2 F1 F2") == [11, 11, 8, 0]


def test_a_second_run_of_a_call_costs_again() -> None:
    timeline = run(NORM, "C1 C2 C3 F1 F2 C1 C2 F1")
    assert column(timeline, "live") == [10, 10, 10, 10, 2, 10, 10, 10]
    assert timeline.forward_flops == 50
    assert timeline.recompute_flops == 50
    assert list(timeline.counts) == [0, 2, 2, 1, 0]


def test_a_second_run_makes_what_is_live_already_for_a_moment() -> None:
    # The output is there; a second one and the statistics are made, and it is let go of at once.
    timeline = run(NORM, "C1 C2 F1 C1 C3 F1 F3 F2")
    assert column(timeline, "live") == [10, 10, 8, 10, 10, 10, 8, 0]
    assert column(timeline, "high")[3] == 8 + (8 + 2) + 1


def test_a_result_is_freed_only_when_its_second_call_is_too() -> None:
    assert live(NORM, "C1 C2 F1 C1 F2 F1") == [10, 10, 8, 10, 10, 0]


# -- overwriting -----------------------------------------------------------------------------------

# 2 may overwrite 1: of its 8 + 8 + 1 bytes it then needs 6 less. Node 3 is a view of 1.
OVER = Graph((
    X,
    f(0, nbytes=8),
    f(1, nbytes=8, workspace=1, overwrites=((1, 6),)),
    f(1, nbytes=8, alias_of=1),
    f(0, nbytes=4),
))  # fmt: skip
WHOLE, SAVED = 8 + 8 + 1, 8 + 8 + 1 - 6


def test_a_value_freed_right_behind_is_overwritten() -> None:
    timeline = run(OVER, "C1 C2 F1 F2")
    assert column(timeline, "high") == [8, SAVED, 8, 0]
    assert column(timeline, "live") == [8, 8, 8, 0]
    assert timeline.takeovers == {1: 1}
    assert [(b.whose, b.born, b.died) for b in timeline.buffers] == [(1, 0, 1), (2, 1, 3)]


def test_other_frees_may_stand_between() -> None:
    # 4 more bytes are there throughout the second Compute.
    assert high(OVER, "C4 C1 C2 F4 F1") == [4, 12, 4 + SAVED, 8, 8]


def test_a_value_freed_later_or_never_is_not_overwritten() -> None:
    for text in ("C1 C2", "C1 C2 C4 F1"):
        timeline = run(OVER, text)
        assert column(timeline, "high")[1] == WHOLE
        assert column(timeline, "live")[1] == 8 + 8
        assert timeline.takeovers == {}


def test_a_value_that_a_view_shares_is_not_overwritten() -> None:
    assert high(OVER, "C1 C3 C2 F1 F3")[2] == WHOLE
    assert high(OVER, "C1 C3 C2 F3 F1")[2] == WHOLE
    assert live(OVER, "C1 C3 C2 F1 F3") == [8, 8, 16, 16, 8]


def test_a_value_whose_view_is_gone_is_overwritten() -> None:
    assert high(OVER, "C1 C3 F3 C2 F1")[3] == SAVED


def test_a_value_is_made_anew_after_it_was_overwritten() -> None:
    assert live(OVER, "C1 C2 F1 C1 F2 F1") == [8, 8, 8, 16, 8, 0]


def test_of_several_that_die_the_one_is_overwritten_that_saves_most() -> None:
    graph = Graph((X, f(0, nbytes=8), f(0, nbytes=4), f(1, 2, overwrites=((1, 1), (2, 3)))))
    assert high(graph, "C1 C2 C3 F1 F2")[2] == 12 - 3
    assert run(graph, "C1 C2 C3 F2 F1").takeovers == {2: 2}
    assert high(graph, "C1 C2 C3 F1")[2] == 12 - 1


def test_an_input_is_not_overwritten() -> None:
    view = f(0, nbytes=8, alias_of=0)
    graph = Graph((X, view, f(0, 1, nbytes=8, overwrites=((0, 8),))))
    assert high(graph, "C1 C2 F1") == [0, 8, 8]


def test_a_result_is_overwritten_once_its_call_is_freed() -> None:
    graph = Graph((X, f(0, call=True), f(1, nbytes=8), f(2, nbytes=8, overwrites=((2, 8),))))
    assert high(graph, "C1 C2 F1 C3 F2") == [8, 8, 8, 8, 8]
    assert high(graph, "C1 C2 C3 F2 F1") == [8, 8, 16, 16, 8]  # the call had a share
    assert live(graph, "C1 C2 F1 C3 F2 C1") == [8, 8, 8, 8, 8, 16]


def test_a_step_overwrites_what_is_freed_right_behind_it() -> None:
    # It holds 10 beside the forward, 3 of which stay; in place of the 8 that it reads, 5 less.
    steps = (step(1, during=10, overwrites=((1, 5),)), step(during=3))
    graph = Graph((X, f(0, nbytes=8)), steps, (row("cotangent", 3, 0, 1),))
    timeline = run(graph, "C1 B0 F1 B1")
    assert column(timeline, "high") == [8, 8 + 10 - 5, 3, 3]
    assert column(timeline, "live") == [8, 3, 3, 0]
    assert timeline.takeovers == {1: 1}
    assert high(graph, "C1 B0 B1 F1") == [8, 8 + 10, 8 + 3, 0]


# -- captured values, effects, outputs -------------------------------------------------------------


def test_a_captured_value_may_have_deps_and_is_a_kind_of_its_own() -> None:
    graph = Graph((X, f(0, nbytes=8), f(1, nbytes=4, captured=True)))
    timeline = run(graph, "C1 C2 F1 F2")
    assert column(timeline, "activations") == [8, 8, 0, 0]
    assert column(timeline, "captured") == [0, 4, 4, 0]
    assert column(timeline, "live") == [8, 12, 4, 0]


def test_a_captured_result_is_captured_bytes() -> None:
    # A batch norm's new statistics are state; its output can be had again.
    graph = Graph((X, f(0, call=True), f(1, nbytes=8), f(1, nbytes=2, captured=True)))
    assert column(run(graph, "C1 C2 C3 F1 F2"), "captured") == [2, 2, 2, 2, 2]


def test_an_effect_of_no_bytes_is_an_output() -> None:
    graph = Graph((X, f(0, nbytes=8), f(0, captured=True)), (step(),), outputs=(1, 2))
    assert live(graph, "C1 C2 B0") == [8, 8, 8]


def test_an_output_stays_to_the_end() -> None:
    graph = Graph((X, f(0, nbytes=8), f(1, nbytes=4)), (step(1), step()), outputs=(2,))
    timeline = run(graph, "C1 C2 B0 F1 B1")
    assert column(timeline, "live") == [8, 12, 12, 4, 4]
    assert timeline.buffers[1] == (2, "activations", 4, 1, 5)


def test_an_output_may_be_dropped_and_made_again_before_the_first_step() -> None:
    graph = Graph((X, f(0, nbytes=8)), (step(1),), outputs=(1, 0))
    assert live(graph, "C1 F1 C1 B0") == [8, 0, 8, 8]


# -- backward's own bytes --------------------------------------------------------------------------


def layer(kind: str, first: int, last: tuple[int, int], during: tuple[int, int]) -> Graph:
    """h = f(w), loss = f(h, v). Step 0 takes the seed of 2 bytes, and makes h's cotangent of 4 and
    v's gradient of 10; step 1 makes w's gradient of 8."""
    w, v = (replace(X, nbytes=n) for n in (8, 10))
    return Graph(
        (w, v, f(0, nbytes=4), f(2, 1, nbytes=2)),
        (step(2, during=during[0]), step(during=during[1])),
        (
            row("seed", 2, 0, 0, 3),
            row("cotangent", 4, 0, 1, 2),
            row("gradient", 10, first, last[0], 1),
            row("gradient", 8, 1, last[1], 0),
        ),
        outputs=(3,),
        gradients=kind,
    )


# Seed and cotangent; cotangent.
BEFOREHAND = layer("beforehand", 0, (2, 2), (2 + 4, 4))
# The same and v's gradient; then cotangent and both.
APPEAR = layer("appear", 0, (2, 2), (2 + 4 + 10, 4 + 10 + 8))
# The same; then only w's, since v's was added to what was there.
ADDED = layer("added", 0, (0, 1), (2 + 4 + 10, 4 + 8))
STEPS = "C2 C3 B0 F2 B1"


def test_gradients_beforehand_are_beside_the_peak() -> None:
    timeline = run(BEFOREHAND, STEPS)
    # h, h + loss; those and 6; loss + cotangent; loss, and 4 while step 1 runs.
    assert column(timeline, "high") == [4, 6, 6 + 6, 2 + 4, 2 + 4]
    assert column(timeline, "live") == [4, 6, 6 + 4, 2 + 4, 2]
    assert column(timeline, "gradients") == [0, 0, 10, 10, 18]
    assert (timeline.peak, timeline.gradients_beside) == (12, 18)
    assert timeline.whole_peak == 12 + 18 + 18  # with parameters


def test_gradients_that_appear_count_in_the_peak() -> None:
    timeline = run(APPEAR, STEPS)
    assert column(timeline, "high") == [4, 6, 6 + 16, 2 + 4 + 10, 2 + 22]
    assert column(timeline, "live") == [4, 6, 6 + 14, 2 + 14, 2 + 18]
    assert (timeline.peak, timeline.gradients_beside) == (24, 0)
    assert timeline.whole_peak == 24 + 18


def test_gradients_that_are_added_count_for_a_moment() -> None:
    timeline = run(ADDED, STEPS)
    # w's has gone too when step 1 is done: its row ends there.
    assert column(timeline, "high") == [4, 6, 6 + 16, 2 + 4, 2 + 12]
    assert column(timeline, "live") == [4, 6, 6 + 4, 2 + 4, 2]
    assert (timeline.peak, timeline.gradients_beside) == (22, 18)
    assert timeline.whole_peak == 22 + 18 + 18


def test_rows_and_steps_may_be_nobody_s() -> None:
    graph = Graph((X, f(0, nbytes=8)), (step(during=7, at=None),), (row("cotangent", 5, 0, 1),))
    timeline = run(graph, "C1 B0 F1")
    assert column(timeline, "live") == [8, 8 + 5, 5]
    assert column(timeline, "high") == [8, 8 + 7, 5]
    assert timeline.buffers[1] == (None, "cotangents", 5, 1, 3)


# -- what a second Compute needs, and what counts nowhere ------------------------------------------

DRAW = Graph((X, f(0, nbytes=8, state_nbytes=5)))


def test_a_single_draw_remembers_no_state() -> None:
    assert high(DRAW, "C1 F1") == [8, 0]
    assert column(run(DRAW, "C1 F1"), "states") == [0, 0]


def test_a_state_is_held_from_the_first_draw_to_the_last() -> None:
    timeline = run(DRAW, "C1 F1 C1 F1 C1 F1")
    assert column(timeline, "states") == [5, 5, 5, 5, 0, 0]
    assert column(timeline, "live") == [8 + 5, 5, 8 + 5, 5, 8, 0]
    # While the last one runs, its state is still there.
    assert column(timeline, "high") == [8 + 5, 5, 8 + 5, 5, 8 + 5, 0]
    assert timeline.buffers[1] == (1, "states", 5, 0, 4)


def test_workspace_again_is_on_top_and_only_then() -> None:
    graph = Graph((X, f(0, nbytes=8, workspace=3, workspace_again=7)))
    assert high(graph, "C1 F1 C1 F1 C1") == [8 + 3, 0, 8 + 3 + 7, 0, 8 + 3 + 7]


def test_scratch_is_told_and_counts_nowhere() -> None:
    graph = Graph((X, f(0, nbytes=8, scratch=100)), (step(1, during=2, scratch=50),))
    timeline = run(graph, "C1 B0 F1")
    assert column(timeline, "scratch") == [100, 50, 0]
    assert column(timeline, "high") == [8, 8 + 2, 0]
    assert timeline.peak == 10
