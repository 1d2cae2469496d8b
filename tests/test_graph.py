"""The graph: what is read off it, and what is none."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from ckpt.errors import GraphError
from ckpt.graph import BackwardRow, BackwardStep, Graph, Node


def leaf(nbytes: int = 0) -> Node:
    return Node(name="w", op="input", nbytes=nbytes, resident=True)


def f(*deps: int, **more: Any) -> Node:
    return Node(name="f", op="f", deps=deps, **more)


def step(*reads: int, **more: Any) -> BackwardStep:
    return BackwardStep(label="f", reads=reads, **more)


def row(kind: Any, nbytes: int, first: int, last: int, whose: int | None = None) -> BackwardRow:
    return BackwardRow(kind=kind, nbytes=nbytes, first=first, last=last, whose=whose)


# -- the forward -----------------------------------------------------------------------------------


def norm() -> Graph:
    """A norm of two inputs: a call (2) with its output (3) and statistics (4), a view (5) of the
    output and a view (6) of that; the loss (7); and something that nobody wants (8)."""
    return Graph(
        (
            leaf(100),
            leaf(20),
            f(0, 1, call=True, nbytes=1, workspace=5, flops=50),
            f(2, nbytes=8),
            f(2, nbytes=2, workspace=3),
            f(3, nbytes=8, alias_of=3),
            f(5, nbytes=8, alias_of=5, workspace=4),
            f(0, 6, nbytes=6, flops=7),
            f(4, 0, 4, nbytes=9, flops=1000),
        ),
        (step(3), step(4, 3)),
        outputs=(7,),
    )


def test_needed_is_what_outputs_and_steps_depend_on() -> None:
    # 7 wants 0 and 6, which wants 5, 3, 2, 0, 1; the steps want 3 and 4.
    assert norm().needed == {0, 1, 2, 3, 4, 5, 6, 7}
    assert norm().computed == (2, 3, 4, 5, 6, 7)


def test_computed_ascend_where_a_set_does_not() -> None:
    assert Graph((leaf(), *[f(0)] * 64), outputs=(64, 9)).computed == (9, 64)


def test_flops_of_the_forward_are_those_of_needed_nodes() -> None:
    assert norm().forward_flops == 57  # 50 + 7, not 1000


def test_readers_are_named_once_and_ascend() -> None:
    # By their deps: 0 is read by 2, 7 and 8; 4 is read twice by 8.
    assert norm().readers == ((2, 7, 8), (2,), (3, 4), (5,), (8,), (6,), (7,), (), ())
    assert norm().step_readers == ((), (), (), (0, 1), (1,), (), (), (), ())


def test_a_view_of_a_view_has_the_owner_of_the_buffer() -> None:
    assert norm().owners == (0, 1, 2, 3, 4, 3, 3, 7, 8)
    assert norm().sharers[3] == (3, 5, 6)
    assert norm().sharers[7] == (7,)
    assert 5 not in norm().sharers


def test_results_of_a_call_are_those_whose_only_dep_it_is() -> None:
    assert norm().results == {2: (3, 4)}


def test_a_call_makes_all_its_results() -> None:
    # 2: its own 1 + workspace 5 + 8 + 2; its results only their workspace, as a view does.
    assert norm().making == (100, 20, 16, 0, 3, 0, 4, 6, 9)


def test_resident_bytes_are_the_inputs() -> None:
    assert norm().resident_nbytes == 120


def test_a_graph_is_a_sequence_of_nodes_and_an_output_is_said_once() -> None:
    graph = Graph((leaf(), f(0)), outputs=(1, 0, 1))
    assert len(graph) == 2
    assert list(graph) == [graph[0], graph[1]]
    assert graph.outputs == (1, 0)


def test_graphs_and_their_rows_are_plain_values() -> None:
    assert norm() == norm()
    assert hash(norm()) == hash(norm())
    for value, field in (
        (norm(), "name"),
        (f(), "op"),
        (step(), "flops"),
        (row("seed", 1, 0, 0), "nbytes"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field, 5)


def test_parts_given_as_lists_become_tuples() -> None:
    graph = Graph([leaf(), f(0)], [step(1, during=2)], [row("seed", 2, 0, 1)], [1])  # type: ignore[arg-type]
    assert graph == Graph((leaf(), f(0)), (step(1, during=2),), (row("seed", 2, 0, 1),), (1,))


# -- the backward ----------------------------------------------------------------------------------


def test_positions_follow_at_and_reads_and_never_ascend() -> None:
    graph = Graph(
        (leaf(), f(0), f(1), f(2), f(3), f(4), leaf()),
        (
            step(at=5),  # 5
            step(1),  # not below 4, which a later step reads
            step(4, at=2),  # not below 4, which it reads
            step(at=5),  # not above the 4 of the step before
            step(3, 6, 0),  # 3: residents don't count
            step(1, at=2),  # 2, as it says
            step(6),  # nothing computed is read: 0
        ),
    )
    assert graph.positions == (5, 4, 4, 4, 3, 2, 0)


def with_rows(gradients: str) -> Graph:
    """Two steps, a seed of 2 bytes, cotangents of 4 and 1 bytes, gradients of 10 and 20."""
    return Graph(
        (leaf(10), leaf(20), f(0, 1)),
        (step(during=30, flops=3), step(during=60, flops=4)),
        (
            row("seed", 2, 0, 0, 2),  # gone when its step ends
            row("cotangent", 4, 0, 1),
            row("cotangent", 1, 0, 2),
            row("gradient", 10, 0, 1, 0),
            row("gradient", 20, 1, 2, 1),
        ),
        outputs=(2,),
        gradients=gradients,
    )


def test_a_row_is_live_after_its_first_step_and_gone_after_its_last() -> None:
    graph = with_rows("appear")
    assert graph.cotangents == (0, 4 + 1, 1)
    assert graph.rested == (0, 10, 20)


def test_a_seed_is_there_from_step_0_to_the_step_of_its_loss() -> None:
    rows = [row("seed", 3, 0, 1)]
    assert Graph((leaf(),), (step(during=3), step(during=3)), tuple(rows)).cotangents == (0, 3, 0)


@pytest.mark.parametrize("gradients", ["appear", "added"])
def test_between_counts_gradients_that_backward_makes(gradients: str) -> None:
    assert with_rows(gradients).between == (0, 5 + 10, 1 + 20)


def test_between_leaves_out_gradients_beforehand() -> None:
    assert with_rows("beforehand").between == (0, 5, 1)


def test_gradients_that_appear_are_no_constant() -> None:
    # Those that exist beforehand, and those to which new ones are added, are one.
    assert with_rows("beforehand").gradient_nbytes == 30
    assert with_rows("added").gradient_nbytes == 30
    assert with_rows("appear").gradient_nbytes == 0


def test_flops_of_the_backward_are_those_of_its_steps() -> None:
    assert with_rows("appear").backward_flops == 7


# -- in words --------------------------------------------------------------------------------------


def in_words() -> Graph:
    wide: Any = {"shape": (64, 256), "nbytes": 65536}
    return Graph(
        (
            Node(name="w", op="input", resident=True, shape=(256,), nbytes=1024, dtype="int32"),
            Node(name="tanh", op="tanh", deps=(0,), scope="layer 3", source="model.py:7", **wide),
            Node(name="mask", op="captured", captured=True, shape=(2, 3, 4), dtype="bool"),
            Node(name="", op="sum", deps=(1,), nbytes=4),
            Node(name="h", op="relu", deps=(1,), source="model.py:9", **wide),
        ),
        (
            BackwardStep(label="tanh", at=1, source="model.py:7"),
            BackwardStep(label="sum", source="model.py:8"),
            BackwardStep(label="relu", at=4),
        ),
    )


def test_a_value_in_words() -> None:
    said = [in_words().describe(i) for i in range(5)]
    assert said == [
        "256 int32, 1 KiB, input 'w'",
        "64x256 float32, 64 KiB, output of tanh, layer 3, model.py:7",
        "2x3x4 bool, 0 B, captured 'mask'",
        "scalar float32, 4 B, output of sum",
        "64x256 float32, 64 KiB, output of relu 'h', model.py:9",
    ]


def test_a_step_in_words() -> None:
    assert [in_words().describe_step(k) for k in range(3)] == [
        "backward of tanh, layer 3, model.py:7",
        "backward of sum, model.py:8",
        "backward of relu",
    ]


# -- what is no graph ------------------------------------------------------------------------------

CALL = f(0, call=True)

NO_NODES = {
    "a dep after it": ([leaf(), f(2), f(0)], "node 1 (f): its dep 2 does not come before it"),
    "itself": ([leaf(), f(1)], "its dep 1 does not come before it"),
    "below 0": ([leaf(), f(-1)], "its dep -1 does not come before it"),
    "of a call": ([leaf(), CALL, f(0, 1)], "it reads the call 1, and isn't a result"),
    "view of call": ([leaf(), CALL, f(1, alias_of=1)], "it reads the call 1, and isn't a result"),
    "view of none": ([leaf(), f(0), f(0, alias_of=1)], "it is a view of 1, which is no dep of it"),
    "input of deps": ([leaf(), replace(leaf(), deps=(0,))], "an input is neither computed"),
    "captured input": ([replace(leaf(), captured=True)], "an input is neither computed"),
    "input call": ([replace(leaf(), call=True)], "an input is neither computed nor captured"),
    "call and view": ([leaf(), f(0, call=True, alias_of=0)], "a call is no view"),
    "result again": (
        [leaf(), f(0, call=True, captured=True), f(1)],
        "node 2 (f): a result of a captured call is captured too",
    ),
    "overwrites a view": (
        [leaf(), f(0, nbytes=8), f(1, nbytes=8, alias_of=1), f(2, overwrites=((2, 8),))],
        "node 3 (f): it overwrites 2, which is a view: name the value that owns the buffer",
    ),
    "a call of a call": (
        [leaf(), f(0, call=True), f(1, call=True)],
        "node 2 (f): a result of a call is no call",
    ),
    "overwrites no dep": ([leaf(), f(0), f(0, overwrites=((1, 0),))], "it overwrites 1, which is"),
    "saves too much": (
        [leaf(), f(0, nbytes=8), f(1, workspace=3, overwrites=((1, 12),))],
        "node 2 (f): by overwriting 1 it saves more than it holds",
    ),
    "saves less than 0": ([leaf(8), f(0, overwrites=((0, -1),))], "by overwriting 0 it saves"),
}


@pytest.mark.parametrize(("nodes", "says"), NO_NODES.values(), ids=NO_NODES)
def test_nodes_that_form_no_graph_are_refused(nodes: list[Node], says: str) -> None:
    with pytest.raises(GraphError) as caught:
        Graph(tuple(nodes))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


SIZES = (
    "nbytes", "flops", "moved_nbytes", "workspace", "workspace_again", "scratch", "state_nbytes",
)  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_no_size_of_a_node_is_negative(size: str) -> None:
    Graph((leaf(), f(0, **{size: 0})))
    with pytest.raises(GraphError, match=r"node 1 \(f\): bytes and FLOPs can't be negative"):
        Graph((leaf(), f(0, **{size: -1})))


def test_what_just_passes() -> None:
    Graph((leaf(), f(0, nbytes=8), f(1, workspace=3, overwrites=((1, 11),))))
    Graph((leaf(), f(0, call=True, captured=True), f(1, captured=True)))
    Graph((leaf(), f(0, call=True), f(1, captured=True)))  # of its results, the state alone
    Graph((leaf(), f(0, captured=True), f(1)))  # captured, but no call
    Graph((leaf(), f(0, call=True), f(1), f(2, alias_of=2)))
    Graph((leaf(8), f(0)), (step(1, at=1),), (row("seed", 0, 1, 1, 1),), outputs=(0, 1))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (step(4), "backward step 0 (f): it reads 4, which is no value"),
        (step(-1), "it reads -1, which is no value"),
        (step(2), "it reads 2, which is no value"),  # but a call
        (step(at=4), "it is at 4, which is no node"),
        (step(at=-1), "it is at -1, which is no node"),
        (step(flops=-1), "bytes and FLOPs can't be negative"),
        (step(moved_nbytes=-1), "bytes and FLOPs can't be negative"),
        (step(during=-1), "bytes and FLOPs can't be negative"),
        (step(scratch=-1), "bytes and FLOPs can't be negative"),
        (step(overwrites=((1, 0),)), "it overwrites 1, which it doesn't read"),
        (step(1, overwrites=((1, -1),)), "by overwriting 1 it can't save less than nothing"),
    ],
)
def test_a_wrong_step_is_refused(wrong: BackwardStep, says: str) -> None:
    with pytest.raises(GraphError) as caught:
        Graph((leaf(), f(0, nbytes=8), CALL, f(2)), (wrong,))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (row("loss", 1, 0, 1), "its kind is seed or cotangent or gradient, not 'loss'"),
        (row("seed", -1, 0, 1), "bytes can't be negative"),
        (row("seed", 1, 1, 0), "it is there from step 1 to step 0 of 1"),
        (row("seed", 1, -1, 0), "it is there from step -1 to step 0 of 1"),
        (row("seed", 1, 0, 2), "it is there from step 0 to step 2 of 1"),
        (row("seed", 1, 0, 1, 2), "it is that of 2, which is no node"),
        (row("seed", 1, 0, 1, -1), "it is that of -1, which is no node"),
    ],
)
def test_a_wrong_row_is_refused(wrong: BackwardRow, says: str) -> None:
    fine = row("seed", 0, 0, 1)
    with pytest.raises(GraphError) as caught:
        Graph((leaf(), f(0)), (step(during=1),), (fine, wrong))
    assert str(caught.value) == f"row 1 of the backward: {says}"


def test_a_step_holds_the_rows_before_and_after_it() -> None:
    def held(during: int, first: int, last: int) -> Graph:
        return Graph(
            (leaf(),), (step(during=9), step(during=during)), (row("seed", 5, first, last),)
        )

    held(5, 0, 1)
    held(5, 1, 2)
    for first, last in ((0, 1), (1, 2)):
        with pytest.raises(GraphError, match=r"step 1 \(f\): it holds 4 bytes, and the rows .* 5"):
            held(4, first, last)


def test_a_step_saves_no_more_than_it_holds() -> None:
    def saving(saved: int) -> Graph:
        # It holds 10, of which 3 outlast it; beside them lie the 8 bytes of what it reads.
        steps = (step(1, during=10, overwrites=((1, saved),)),)
        return Graph((leaf(), f(0, nbytes=8)), steps, (row("cotangent", 3, 0, 1),))

    saving(10 - 3 + 8)
    with pytest.raises(GraphError, match=r"backward step 0 \(f\): by overwriting 1 it saves more"):
        saving(10 - 3 + 8 + 1)


def test_an_unknown_kind_of_gradients_is_refused() -> None:
    with pytest.raises(GraphError, match="beforehand or appear or added, not 'later'"):
        Graph((leaf(),), gradients="later")


@pytest.mark.parametrize("output", [3, -1, 1])
def test_an_output_is_a_value(output: int) -> None:
    with pytest.raises(GraphError, match=f"output {output} is no value of the 3 nodes"):
        Graph((leaf(), CALL, f(1)), outputs=(output,))
