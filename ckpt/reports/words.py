"""A schedule in words: what is kept, what is recomputed and how often, and what sets the peak."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ckpt.graph import Graph
from ckpt.reports.table import render
from ckpt.schedule import describe_instruction
from ckpt.timeline import Timeline
from ckpt.units import format_bytes

KEPT = ("what", "source", "shape", "kept_nbytes", "share_percent", "text")
AGAIN = (
    "what", "source", "shape", "freed_nbytes", "times", "recompute_flops", "share_percent", "text",
)  # fmt: skip


def in_words(
    graph: Graph, timeline: Timeline, texts: dict[str, str] | None = None, top: int = 12
) -> list[str]:
    """The lines of a plan's summary. Values alike (op, line of source, shape, dtype) share a row;
    ``texts`` are what lines of source say."""
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
    return [
        f"{graph.name or 'program'} by {schedule.planner}{budget}: {len(schedule)} instructions",
        f"  predicted peak set by {describe_instruction(peak, graph)}",
        *([f"  {note}"] if note else []),
        *_table(
            "kept from forward to backward",
            KEPT,
            kept,
            lambda i: {"kept_nbytes": graph[i].nbytes},
            texts or {},
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
            texts or {},
            top,
        ),
    ]


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
