"""A step for the readers of others, held to what their formats ask for.

Chrome's trace viewer (the one in catapult's repository, built by its ``trace2html``) imported a
plan of gpt without a warning, and speedscope 1.25.0 opened its flame graphs.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

import ckpt
from ckpt.graph import BackwardStep, Graph, Node
from ckpt.reports.formats.traces import speedscope, trace_events
from ckpt.timeline import KINDS, PHASES, holdings
from tests.graphs import chain

HOSTILE = "</script><script>alert(1)</script><b>\"'&\x1b]0;x\x07\u202e"


def hostile_graph() -> Graph:
    nodes = (
        Node(name=HOSTILE, op="input", resident=True, shape=(1,), nbytes=8),
        Node(
            name=HOSTILE, op=HOSTILE, deps=(0,), nbytes=4, flops=3, source=HOSTILE + ":7",
            scope=f"{HOSTILE}/b", dtype=HOSTILE, requires_grad=True,
        ),
    )  # fmt: skip
    steps = (BackwardStep(label=HOSTILE, source=HOSTILE, reads=(1,), flops=2, during=4, at=1),)
    return Graph(nodes, steps=steps, outputs=(1,), name=HOSTILE)


# -- the trace event format ------------------------------------------------------------------------

REQUIRED = {
    "M": {"name", "ph", "pid", "tid", "args"},
    "X": {"name", "ph", "pid", "tid", "ts", "dur", "cat"},
    "C": {"name", "ph", "pid", "ts", "args"},
    "b": {"name", "ph", "pid", "tid", "ts", "cat", "id"},
    "e": {"name", "ph", "pid", "tid", "ts", "cat", "id"},
}
"""What the format asks of an event of each phase that we write."""

METADATA = {
    "process_name": (str, "name"),
    "process_sort_index": (int, "sort_index"),
    "thread_name": (str, "name"),
    "thread_sort_index": (int, "sort_index"),
}
"""Metadata events, and what their args hold."""


@pytest.mark.parametrize("graph", [chain(12), hostile_graph(), Graph(())])
def test_a_trace_is_what_its_format_asks_for(graph: Graph) -> None:
    timeline = ckpt.simulate(graph, ckpt.make_schedule(graph, "store_all"))
    trace = json.loads(json.dumps(trace_events(graph, timeline)))
    begun: dict[tuple[str, int, str], float] = {}
    ends: dict[int, float] = {}
    for event in trace["traceEvents"]:
        assert REQUIRED[event["ph"]] <= event.keys()
        assert isinstance(event["name"], str) and event["name"].isprintable()
        if event["ph"] == "M":
            kind, said = METADATA[event["name"]]
            assert isinstance(event["args"][said], kind)
            continue
        assert isinstance(event["ts"], (int, float)) and event["ts"] >= 0
        if event["ph"] == "X":  # slices of a thread follow each other
            assert event["dur"] > 0
            assert event["ts"] >= ends.get(event["tid"], 0.0) - 1e-9
            ends[event["tid"]] = event["ts"] + event["dur"]
        if event["ph"] == "C":
            assert event["args"]
            assert all(isinstance(value, int) for value in event["args"].values())
        if event["ph"] == "b":
            begun[event["cat"], event["id"], event["name"]] = event["ts"]
        if event["ph"] == "e":
            assert begun.pop((event["cat"], event["id"], event["name"])) <= event["ts"]
    assert not begun


def test_a_trace_says_what_the_timeline_does() -> None:
    graph = chain(12)
    timeline = ckpt.simulate(graph, ckpt.make_schedule(graph, "sqrt"))
    events = trace_events(graph, timeline)["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    assert len(slices) == len(timeline)
    for phase in PHASES[:3]:
        flops = sum(e["args"]["flops"] for e in slices if e["cat"] == phase)
        assert flops == timeline.flops_by_phase[phase]
    highs = [e["args"]["high"] for e in events if e["name"] == "high bytes"]
    assert highs == list(timeline.columns["high"])
    live = [e["args"] for e in events if e["name"] == "live bytes"]
    assert [row["activations"] for row in live] == list(timeline.columns["activations"])
    assert set(live[0]) == set(KINDS[:4])


# -- speedscope's format ---------------------------------------------------------------------------


NUMBER = (int, float)
FILE = {
    "$schema": str, "shared": dict, "profiles": list, "name": str, "activeProfileIndex": NUMBER,
    "exporter": str,
}  # fmt: skip
FRAME = {"name": str, "file": str, "line": NUMBER, "col": NUMBER}
SAMPLED = {
    "type": str, "name": str, "unit": str, "startValue": NUMBER, "endValue": NUMBER,
    "samples": list, "weights": list,
}  # fmt: skip
UNITS = ("bytes", "microseconds", "milliseconds", "nanoseconds", "none", "seconds")
"""The rules of file-format-schema.json in the npm package speedscope 1.25.0, for what we write."""


def conforms(found: dict[str, Any], known: dict[str, Any], required: set[str]) -> None:
    assert required <= found.keys() <= known.keys()
    for key, value in found.items():
        assert isinstance(value, known[key]) and not isinstance(value, bool), key


@pytest.mark.parametrize("graph", [chain(12), hostile_graph(), Graph(())])
def test_a_flame_graph_is_what_speedscope_reads(graph: Graph) -> None:
    timeline = ckpt.simulate(graph, ckpt.make_schedule(graph, "store_all"))
    data = json.loads(json.dumps(speedscope(graph, timeline)))
    conforms(data, FILE, {"$schema", "shared", "profiles"})
    assert data["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    assert data["shared"].keys() == {"frames"}
    frames = data["shared"]["frames"]
    for frame in frames:
        conforms(frame, FRAME, {"name"})
        assert frame["name"].isprintable()
    assert 0 <= data["activeProfileIndex"] < len(data["profiles"])
    for profile in data["profiles"]:
        conforms(profile, SAMPLED, set(SAMPLED))
        assert profile["type"] == "sampled"
        assert profile["unit"] in UNITS
        assert len(profile["samples"]) == len(profile["weights"])
        assert profile["endValue"] - profile["startValue"] == sum(profile["weights"])
        for stack, weight in zip(profile["samples"], profile["weights"], strict=True):
            assert stack and all(0 <= frame < len(frames) for frame in stack)
            assert isinstance(weight, int) and weight > 0


def test_a_flame_graph_adds_up_to_the_peak_and_to_the_work() -> None:
    graph = chain(12)
    timeline = ckpt.simulate(graph, ckpt.make_schedule(graph, "sqrt"))
    live, work = speedscope(graph, timeline)["profiles"]
    held = holdings(graph, timeline, timeline.peak_position)
    assert live["endValue"] == sum(found.nbytes for found in held)
    assert work["endValue"] == timeline.step_flops
