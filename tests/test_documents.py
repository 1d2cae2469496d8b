"""What the waist writes to files and reads back: whole, or refused in one line; and the digest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given

from ckpt.errors import GraphError, ScheduleError, UsageError
from ckpt.graph import BackwardRow, BackwardStep, Graph, Node
from ckpt.machine import simulate
from ckpt.schedule import Proof, Schedule
from ckpt.timeline import Timeline
from tests.graphs import graphs

# Every field of every row is said at least once.
GRAPH = Graph(
    (
        Node(name="w", op="input", nbytes=8, shape=(2,), resident=True, scope="net", source="a:1"),
        Node(
            name="norm",
            op="norm",
            deps=(0,),
            call=True,
            flops=3,
            workspace=1,
            workspace_again=2,
            scratch=3,
            moved_nbytes=4,
        ),
        Node(name="out", op="part", deps=(1,), nbytes=8),
        Node(name="flat", op="reshape", deps=(2,), alias_of=2, nbytes=8, regions=(1, 2), keep=True),
        Node(name="y", op="drop", deps=(3, 2), nbytes=8, overwrites=((2, 8),), state_nbytes=4),
        Node(name="mask", op="mask", deps=(0,), nbytes=4, captured=True, requires_grad=False),
    ),
    (
        BackwardStep(
            label="drop",
            reads=(4, 5),
            flops=1,
            moved_nbytes=2,
            during=20,
            scratch=3,
            overwrites=((5, 4),),
            at=4,
            source="b:2",
        ),
        BackwardStep(label="norm", reads=(2,), during=16),
    ),
    (
        BackwardRow(kind="seed", nbytes=8, first=0, last=0, whose=4),
        BackwardRow(kind="cotangent", nbytes=8, first=0, last=1, whose=2),
        BackwardRow(kind="gradient", nbytes=8, first=1, last=2),
    ),
    outputs=(4,),
    gradients="appear",
    name="net",
)
SCHEDULE = Schedule(
    Schedule.from_text(
        "compute 1\ncompute 2\ncompute 3\ncompute 5\ncompute 4\nfree 3\nbackward 0\nfree 5\n"
        "backward 1\n"
    ).instructions,
    graph=GRAPH.digest,
    planner="brute",
    budget=64,
    proof=Proof(3, "flops", ("none",)),
    notes={"states": [1, 2]},
)
TIMELINE = replace(simulate(GRAPH, SCHEDULE), source="execute", measured={"seconds": 0.5})

Kind = type[Graph] | type[Schedule] | type[Timeline]
KINDS: list[tuple[Kind, Any, type[Exception]]] = [
    (Graph, GRAPH.to_json(), GraphError),
    (Schedule, SCHEDULE.to_json(), ScheduleError),
    (Timeline, TIMELINE.to_json(), UsageError),
]
EACH = pytest.mark.parametrize(
    ("kind", "document", "error"), KINDS, ids=["graph", "schedule", "timeline"]
)


def written(value: Any) -> Any:
    return json.loads(json.dumps(value))


# -- round trips -----------------------------------------------------------------------------------


@EACH
def test_what_was_written_is_read_back(kind: Kind, document: Any, error: type[Exception]) -> None:
    assert kind.from_json(written(document)).to_json() == document


def test_a_graph_and_a_schedule_come_back_equal() -> None:
    assert Graph.from_json(written(GRAPH.to_json())) == GRAPH
    assert Schedule.from_json(written(SCHEDULE.to_json())) == SCHEDULE
    plain = Schedule(SCHEDULE.instructions)
    assert Schedule.from_json(written(plain.to_json())) == plain


def test_a_timeline_comes_back_row_by_row() -> None:
    found = Timeline.from_json(written(TIMELINE.to_json()))
    assert list(found) == list(TIMELINE)
    assert list(found.buffers) == list(TIMELINE.buffers)
    assert list(found.counts) == list(TIMELINE.counts)
    assert found.takeovers == TIMELINE.takeovers == {6: 5}
    assert (found.whole_peak, found.source) == (TIMELINE.whole_peak, "execute")
    assert found.measured == {"seconds": 0.5}


@given(graphs())
def test_any_graph_comes_back_equal_and_of_the_same_digest(graph: Graph) -> None:
    found = Graph.from_json(written(graph.to_json()))
    assert found == graph
    assert found.digest == graph.digest


def test_defaults_are_left_out_of_a_file() -> None:
    assert GRAPH.to_json()["nodes"][2] == {"name": "out", "op": "part", "deps": (1,), "nbytes": 8}


# -- damage ----------------------------------------------------------------------------------------


def read_or_refused(kind: Kind, document: Any, error: type[Exception]) -> str:
    """What the reader said; "" if it took the document. Any other exception goes through."""
    said = ""
    try:
        kind.from_json(document)
    except error as caught:
        said = str(caught)
    assert "\n" not in said
    return said


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from paths(value[key], (*path, key))


def with_junk(document: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    made = deepcopy(document)
    at = made
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = junk
    return made


JUNK: list[Any] = [None, "x", -1, 5, 10**30, 1.5, [], {}, ["x"], [[1]], {"a": 1}]


@EACH
def test_whatever_is_damaged_there_is_one_clear_line(
    kind: Kind, document: Any, error: type[Exception]
) -> None:
    document = written(document)
    for path in paths(document):
        if "overwrites" not in path:  # see the next test
            for junk in JUNK:
                read_or_refused(kind, with_junk(document, path, junk), error)


@pytest.mark.parametrize("rows", ["nodes", "steps"])
def test_a_damaged_pair_to_overwrite_is_refused(rows: str) -> None:
    document = written(GRAPH.to_json())
    document[rows][4 if rows == "nodes" else 0]["overwrites"] = [[1]]
    assert "damaged" in read_or_refused(Graph, document, GraphError)


@pytest.mark.parametrize(
    ("path", "junk"),
    [
        (("columns", "high"), []),
        (("columns", "phase", 0), 5),
        (("counts",), []),
        (("buffers", 4), []),
        (("buffers", 0), None),
    ],
)
def test_a_timeline_whose_columns_do_not_match_is_refused(path: Any, junk: Any) -> None:
    document = with_junk(written(TIMELINE.to_json()), path, junk)
    assert read_or_refused(Timeline, document, UsageError)


@pytest.mark.parametrize(("key", "junk"), [("op", 5), ("shape", 5), ("resident", "x")])
def test_a_node_of_wrong_types_is_refused(key: str, junk: Any) -> None:
    document = with_junk(written(GRAPH.to_json()), ("nodes", 0, key), junk)
    assert read_or_refused(Graph, document, GraphError)


@EACH
def test_each_part_is_missed(kind: Kind, document: Any, error: type[Exception]) -> None:
    for key in document:
        left = {k: v for k, v in written(document).items() if k != key}
        assert read_or_refused(kind, left, error), key


@EACH
def test_another_version_is_refused(kind: Kind, document: Any, error: type[Exception]) -> None:
    for version in (1, 3):
        said = read_or_refused(kind, {**written(document), "version": version}, error)
        assert f"has version {version}; this release reads version 2: make it again" in said


@EACH
def test_another_document_is_refused(kind: Kind, document: Any, error: type[Exception]) -> None:
    for other in [d for k, d, _ in KINDS if k is not kind] + [None, [], {}, "text", 5]:
        said = read_or_refused(kind, other, error)
        assert said.startswith(f"not a {document['format']} document (its format is ")


def test_what_is_damaged_is_said() -> None:
    def said(path: tuple[Any, ...], junk: Any) -> str:
        return read_or_refused(Graph, with_junk(written(GRAPH.to_json()), path, junk), GraphError)

    assert said(("nodes", 1, "deps"), [1]) == "node 1 (norm): its dep 1 does not come before it"
    assert "this ckpt-graph document is damaged: " in said(("nodes", 0), {"op": "f"})
    assert "unexpected keyword argument 'colour'" in said(("steps", 0, "colour"), 5)


def test_a_wrong_instruction_in_a_file_is_named() -> None:
    document = with_junk(written(SCHEDULE.to_json()), ("instructions", 0), "melt 3")
    assert read_or_refused(Schedule, document, ScheduleError).startswith("'melt 3' is no instr")


def test_a_wrong_schedule_in_a_timeline_is_named() -> None:
    document = with_junk(written(TIMELINE.to_json()), ("schedule", "version"), 1)
    said = read_or_refused(Timeline, document, UsageError)
    assert said.startswith("this ckpt-schedule document has version 1;")


# -- the digest ------------------------------------------------------------------------------------

# For each field a node to change it in, and another value, with which the graph is one still.
NODE: dict[str, tuple[int, Any]] = {
    "op": (4, "tanh"), "deps": (4, (2, 3)), "shape": (4, (1,)), "dtype": (4, "float64"),
    "nbytes": (4, 9), "flops": (4, 1), "moved_nbytes": (4, 1), "workspace": (4, 1),
    "workspace_again": (4, 1), "scratch": (4, 1), "state_nbytes": (4, 5), "resident": (0, False),
    "captured": (2, True), "requires_grad": (4, False), "call": (1, False), "alias_of": (4, 2),
    "overwrites": (4, ((2, 7),)),
}  # fmt: skip
STEP = {
    "reads": (5, 4), "flops": 2, "moved_nbytes": 3, "during": 21, "scratch": 4,
    "overwrites": ((5, 3),), "at": 3,
}  # fmt: skip
ROW = {"kind": "gradient", "nbytes": 7, "first": 1, "last": 2, "whose": 3}
NODE_LABELS = {"regions": (7,), "keep": True}


def changed(part: str, number: int, **fields: Any) -> Graph:
    rows = list(getattr(GRAPH, part))
    rows[number] = replace(rows[number], **fields)
    more: dict[str, Any] = {part: tuple(rows)}
    return replace(GRAPH, **more)


@pytest.mark.parametrize("field", NODE)
def test_the_digest_knows_each_field_of_a_node(field: str) -> None:
    number, value = NODE[field]
    assert changed("nodes", number, **{field: value}).digest != GRAPH.digest


@pytest.mark.parametrize("field", STEP)
def test_the_digest_knows_each_field_of_a_step(field: str) -> None:
    assert changed("steps", 0, **{field: STEP[field]}).digest != GRAPH.digest


@pytest.mark.parametrize("field", ROW)
def test_the_digest_knows_each_field_of_a_row(field: str) -> None:
    assert changed("rows", 1, **{field: ROW[field]}).digest != GRAPH.digest


def test_every_field_is_tried() -> None:
    assert {f.name for f in fields(Node)} == {*NODE, *NODE_LABELS, "name", "scope", "source"}
    assert {f.name for f in fields(BackwardStep)} == {*STEP, "label", "source"}
    assert {f.name for f in fields(BackwardRow)} == {*ROW}


def test_the_digest_knows_what_is_asked_for() -> None:
    digests = {
        GRAPH.digest,
        replace(GRAPH, outputs=(4, 2)).digest,
        replace(GRAPH, outputs=()).digest,
        replace(GRAPH, gradients="added").digest,
        replace(GRAPH, gradients="beforehand").digest,
        replace(GRAPH, rows=GRAPH.rows[:2]).digest,
        replace(GRAPH, rows=(GRAPH.rows[1], GRAPH.rows[0], GRAPH.rows[2])).digest,
        replace(GRAPH, steps=GRAPH.steps[:1], rows=()).digest,
        replace(GRAPH, nodes=(*GRAPH.nodes, GRAPH.nodes[5])).digest,
    }
    assert len(digests) == 9


def test_the_digest_does_not_know_labels() -> None:
    for name in ("name", "scope", "source"):
        assert changed("nodes", 4, **{name: "other"}).digest == GRAPH.digest
    for name, value in NODE_LABELS.items():
        assert changed("nodes", 4, **{name: value}).digest == GRAPH.digest
    for name in ("label", "source"):
        assert changed("steps", 0, **{name: "other"}).digest == GRAPH.digest
    assert replace(GRAPH, name="other").digest == GRAPH.digest


def test_the_lines_of_source_are_texts_and_no_part_of_what_a_graph_is() -> None:
    lines = {"net.py:3": "return x @ w"}
    found = Graph.from_json(written(replace(GRAPH, lines=lines).to_json()))
    assert found.lines == lines
    assert found == GRAPH
    assert found.digest == GRAPH.digest
    assert "lines" not in GRAPH.to_json()
    for junk in ({"net.py:3": 3}, ["net.py:3"], None):
        with pytest.raises(GraphError, match="lines is"):
            Graph.from_json({**GRAPH.to_json(), "lines": junk})


def test_a_digest_is_sixteen_hexadecimal_digits() -> None:
    assert len(GRAPH.digest) == 16
    int(GRAPH.digest, 16)
