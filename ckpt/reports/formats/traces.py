"""A step for the readers of others: Chrome's and Perfetto's trace viewers, and speedscope.

Neither knows FLOPs. In a trace a FLOP is a nanosecond, and each instruction takes one at least, so
that a moment of the trace is one of the schedule; what is shown as time is therefore work.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from ckpt.graph import Graph
from ckpt.schedule import Backward, Compute, Free, Instruction
from ckpt.text import printable
from ckpt.timeline import KINDS, PHASES, Timeline, holdings

STEP, BUFFERS = 1, 2
"""Processes of a trace."""

SPEEDSCOPE = "https://www.speedscope.app/file-format-schema.json"


def trace_events(graph: Graph, timeline: Timeline) -> dict[str, Any]:
    """The step as trace events: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU

    A process of instructions, a slice each, on a thread a phase, and counters of the live bytes by
    kind after each; and one of buffers, the life of each an asynchronous slice.
    """
    columns = timeline.columns
    starts = [0, *accumulate(max(flops, 1) for flops in columns["flops"])]
    events: list[dict[str, Any]] = [
        _event("M", "process_name", 0, args={"name": printable(graph.name) or "a step"}),
        _event("M", "process_name", 0, process=BUFFERS, args={"name": "what is live"}),
        _event("M", "process_sort_index", 0, process=BUFFERS, args={"sort_index": 1}),
    ]
    for k, phase in enumerate(PHASES):
        events.append(_event("M", "thread_name", 0, thread=k, args={"name": phase}))
        events.append(_event("M", "thread_sort_index", 0, thread=k, args={"sort_index": k}))
    for p, instruction in enumerate(timeline.schedule):
        events.append(
            _event(
                "X",
                _label(graph, instruction),
                starts[p],
                thread=columns["phase"][p],
                dur=(starts[p + 1] - starts[p]) / 1000,
                cat=PHASES[columns["phase"][p]],
                args={
                    "instruction": p,
                    "source": _place(graph, instruction)[1],
                    "flops": columns["flops"][p],
                    "workspace_nbytes": columns["workspace"][p],
                },
            )
        )
        live = {kind: columns[kind][p] for kind in KINDS[:4]}
        events.append(_event("C", "live bytes", starts[p], args=live))
        events.append(_event("C", "high bytes", starts[p], args={"high": columns["high"][p]}))
    for number, buffer in enumerate(timeline.buffers):
        whose = "nobody's" if buffer.whose is None else printable(graph.describe(buffer.whose))
        node = None if buffer.whose is None else graph[buffer.whose]
        of = "nobody's" if node is None else printable(f"{node.op} {node.source}".strip())
        name, args = f"{buffer.kind}: {of}", {"of": whose, "nbytes": buffer.nbytes}
        for kind, at in (("b", buffer.born), ("e", buffer.died)):
            events.append(
                _event(
                    kind, name, starts[at],
                    process=BUFFERS, cat=buffer.kind, id=number, args=args,
                )
            )  # fmt: skip
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {"time": "1 ns is 1 FLOP", "peak_nbytes": timeline.peak},
    }


def _event(
    kind: str, name: str, flops: int, *, process: int = STEP, thread: int = 0, **more: Any
) -> dict[str, Any]:
    """An event; times are in microseconds, as the format wants them."""
    return {"ph": kind, "name": name, "ts": flops / 1000, "pid": process, "tid": thread, **more}


def speedscope(graph: Graph, timeline: Timeline) -> dict[str, Any]:
    """The step as flame graphs: what is live at the peak in bytes, and its FLOPs in their order.

    A stack is a scope within a scope, the line of the program, and the op; those of FLOPs begin
    with the phase.
    """
    frames: dict[tuple[str, str], int] = {}

    def stack(parts: Iterable[str], source: str) -> list[int]:
        keys = [(printable(part), "") for part in parts if part]
        keys[-1] = keys[-1][0], source
        return [frames.setdefault(key, len(frames)) for key in keys]

    held = [
        (stack(_value(graph, found.whose, found.kind), _source(graph, found.whose)), found.nbytes)
        for found in holdings(graph, timeline, timeline.peak_position)
    ] if len(timeline) else []  # fmt: skip
    work = []
    for p, instruction in enumerate(timeline.schedule):
        if flops := timeline.columns["flops"][p]:
            scope, source = _place(graph, instruction)
            phase = PHASES[timeline.columns["phase"][p]]
            parts = [phase, *scope.split("/"), source, _label(graph, instruction)]
            work.append((stack(parts, source), flops))
    profiles = [
        _sampled("live at the peak", "bytes", held),
        _sampled("FLOPs of the step, as it runs", "none", work),
    ]
    return {
        "$schema": SPEEDSCOPE,
        "shared": {"frames": [_frame(name, source) for name, source in frames]},
        "profiles": profiles,
        "name": printable(graph.name) or "a step",
        "activeProfileIndex": 0,
        "exporter": "ckpt",
    }


def _sampled(name: str, unit: str, found: list[tuple[list[int], int]]) -> dict[str, Any]:
    return {
        "type": "sampled",
        "name": name,
        "unit": unit,
        "startValue": 0,
        "endValue": sum(weight for _, weight in found),
        "samples": [stack for stack, _ in found],
        "weights": [weight for _, weight in found],
    }


def _frame(name: str, source: str) -> dict[str, Any]:
    file, colon, line = source.rpartition(":")
    if not (colon and line.isdecimal()):
        return {"name": name}
    return {"name": name, "file": printable(file), "line": int(line)}


def _value(graph: Graph, whose: int | None, kind: str) -> list[str]:
    if whose is None:
        return ["(nobody's)", kind]
    node = graph[whose]
    shape = "x".join(map(str, node.shape)) or "scalar"
    return [*node.scope.split("/"), node.source, f"{kind}: {node.op} {shape} {node.dtype}"]


def _source(graph: Graph, whose: int | None) -> str:
    return "" if whose is None else graph[whose].source


def _label(graph: Graph, instruction: Instruction) -> str:
    match instruction:
        case Compute(node):
            return printable(graph[node].op)
        case Free(node):
            return f"free {printable(graph[node].op)}"
        case Backward(step):
            return f"backward of {printable(graph.steps[step].label)}"


def _place(graph: Graph, instruction: Instruction) -> tuple[str, str]:
    """Scope and source line."""
    match instruction:
        case Compute(node) | Free(node):
            return graph[node].scope, graph[node].source
        case Backward(step):
            at = graph.steps[step].at
            return "" if at is None else graph[at].scope, graph.steps[step].source
