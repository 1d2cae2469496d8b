"""A schedule in words: what is kept, what is recomputed and how often, and what sets the peak."""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, assert_never

from ckpt.graph import Graph
from ckpt.repeats import Repeats, find_repeats
from ckpt.reports.table import render
from ckpt.schedule import Backward, Compute, Free, Instruction, describe_instruction
from ckpt.text import printable
from ckpt.timeline import Timeline
from ckpt.units import format_bytes

KEPT = ("what", "source", "shape", "kept_nbytes", "share_percent", "text")
AGAIN = (
    "what", "source", "shape", "freed_nbytes", "times", "recompute_flops", "share_percent", "text",
)  # fmt: skip


def in_words(graph: Graph, timeline: Timeline, top: int = 12) -> list[str]:
    """The lines of a plan's summary. Values alike (op, source, shape, dtype) share a row."""
    texts = source_lines(graph)
    schedule, counts = timeline.schedule, timeline.counts
    kept: dict[tuple[str, ...], list[int]] = {}
    again: dict[tuple[str, ...], list[int]] = {}
    for i, node in enumerate(graph):
        if node.resident or not counts[i] or node.alias_of is not None:
            continue
        alike = node.op, node.source, "x".join(map(str, node.shape)) or "scalar", node.dtype
        if counts[i] > 1:
            again.setdefault(alike, []).append(i)
        elif graph.step_readers[i]:
            kept.setdefault(alike, []).append(i)
    budget = f" within {format_bytes(schedule.budget)}" if schedule.budget else ""
    peak = schedule.instructions[timeline.peak_position]
    note = schedule.notes.get("note")
    repeats = find_repeats(graph)
    return [
        f"{graph.name or 'program'} by {schedule.planner}{budget}: {len(schedule)} instructions",
        f"  predicted peak set by {describe_instruction(peak, graph)}",
        *(f"      {text}" for text in [line_of(peak, graph)] if text),
        *([f"  {note}"] if note else []),
        *([f"  {_repeated(graph, repeats)}"] if repeats else []),
        *_table(
            "kept from forward to backward",
            KEPT,
            kept,
            lambda i: {"kept_nbytes": graph[i].nbytes},
            texts,
            top,
        ),
        *_table(
            "freed, and recomputed for backward",
            AGAIN,
            again,
            lambda i: {
                "recompute_flops": graph[i].flops * (counts[i] - 1),
                "freed_nbytes": graph[i].nbytes,
                "times": counts[i] - 1,
            },
            texts,
            top,
        ),
    ]


def source_lines(graph: Graph) -> dict[str, str]:
    """The text of each line that nodes come from: as it was saved, or where its file is loaded
    here, and only one of that name."""
    if graph.lines:
        return {printable(source): printable(text) for source, text in graph.lines.items()}
    known: dict[str, set[str]] = {}
    loaded = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    for path in {*filter(None, loaded), *linecache.cache}:
        known.setdefault(os.path.basename(path), set()).add(path)
    found: dict[str, str] = {}
    for source in dict.fromkeys(place.source for place in (*graph, *graph.steps)):
        name, _, line = source.rpartition(":")
        paths = list(known.get(name, ()))
        if len(paths) == 1 and line.isdecimal():
            text = linecache.getline(paths[0], int(line)).strip()
            found |= {printable(source): printable(text)} if text else {}
    return found


def line_of(instruction: Instruction, graph: Graph) -> str:
    """What the source says where the instruction comes from; empty where that isn't known."""
    match instruction:
        case Compute(i) | Free(i):
            source = graph[i].source
        case Backward(k):
            source = graph.steps[k].source
        case _:
            assert_never(instruction)
    return source_lines(graph).get(printable(source), "")


def _repeated(graph: Graph, repeats: Repeats) -> str:
    """``32 x the same 28 values, row_mean (gpt.py:45) to add (gpt.py:49)``."""
    nodes = [i for i in repeats.nodes(0) if i in graph.needed]
    ends = [f"{graph[i].op} ({graph[i].source})".replace(" ()", "") for i in (nodes[0], nodes[-1])]
    return printable(f"{repeats.alike} x the same {repeats.period} values, {' to '.join(ends)}")


def _table(
    title: str,
    columns: Sequence[str],
    found: dict[tuple[str, ...], list[int]],
    figures: Callable[[int], dict[str, int]],
    texts: dict[str, str],
    top: int,
) -> list[str]:
    """A row for what is alike, largest by the first of its ``figures``, with its share of it."""
    if not found:
        return []
    rows: list[dict[str, Any]] = []
    for (op, source, shape, dtype), members in found.items():
        many = f"{len(members)} x " if len(members) > 1 else ""
        named = {"what": f"{many}{op}", "source": source, "shape": shape, "dtype": dtype}
        rows.append({**named, "text": texts.get(source), **_added(map(figures, members))})
    counted = list(figures(next(iter(found.values()))[0]))
    by = counted[0]
    rows.sort(key=lambda row: (*(-row[column] for column in counted), row["what"]))
    if len(rows) > top + 1:
        rest = _added({column: row[column] for column in counted} for row in rows[top:])
        rows[top:] = [{"what": f"{len(rows) - top} more", **rest}]
    whole = sum(row[by] for row in rows) or 1
    rows = [{**row, "share_percent": 100 * row[by] / whole} for row in rows]
    return render(rows, columns, title=f"{title}:").splitlines()


def _added(rows: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for row in rows:
        for column, number in row.items():
            total[column] = total.get(column, 0) + number
    return total
