"""A schedule in words: what is kept, what is recomputed and how often, and what sets the peak."""

from __future__ import annotations

from ckpt.graph import Graph
from ckpt.schedule import describe_instruction
from ckpt.timeline import Timeline
from ckpt.units import format_bytes, format_flops


def in_words(graph: Graph, timeline: Timeline, top: int = 12) -> list[str]:
    """The lines of a plan's summary. Values alike (op, line of source, shape) share a line."""
    schedule = timeline.schedule
    counts = timeline.counts
    kept: dict[str, list[int]] = {}
    again: dict[str, list[int]] = {}
    for i, node in enumerate(graph):
        if node.resident or not counts[i] or node.alias_of is not None:
            continue
        label = f"{node.op}, {node.source}" if node.source else node.op
        if counts[i] > 1:
            again.setdefault(label, []).append(i)
        elif graph.step_readers[i]:
            kept.setdefault(label, []).append(i)
    budget = f" within {format_bytes(schedule.budget)}" if schedule.budget else ""
    peak = schedule.instructions[timeline.peak_position]
    lines = [
        f"{graph.name or 'program'} by {schedule.planner}{budget}: {len(schedule)} instructions",
        f"  predicted peak set by {describe_instruction(peak, graph)}",
    ]
    note = schedule.notes.get("note")
    if note:
        lines.append(f"  {note}")
    rows = [(sum(graph[i].nbytes for i in found), label, found) for label, found in kept.items()]
    if rows:
        lines.append("kept from forward to backward:")
        lines += _largest(
            [
                (size, f"{len(found)} x {label}" if len(found) > 1 else label)
                for size, label, found in rows
            ],
            top,
        )
    rows = [(sum(graph[i].nbytes for i in found), label, found) for label, found in again.items()]
    if rows:
        lines.append("recomputed:")
        described = []
        for size, label, found in rows:
            extra = sum(counts[i] - 1 for i in found)
            flops = sum(graph[i].flops * (counts[i] - 1) for i in found)
            many = ("" if extra == 1 else "s", "" if len(found) == 1 else "s")
            times = f"{extra} recomputation{many[0]} of {len(found)} value{many[1]}"
            described.append((size, f"{label}: {times}, {format_flops(flops)}"))
        lines += _largest(described, top)
    return lines


def _largest(rows: list[tuple[int, str]], top: int) -> list[str]:
    rows = sorted(rows, key=lambda row: (-row[0], row[1]))
    lines = [f"  {format_bytes(size):>9}  {text}" for size, text in rows[:top]]
    if len(rows) > top:
        rest = sum(size for size, _ in rows[top:])
        lines.append(f"  {format_bytes(rest):>9}  {len(rows) - top} more")
    return lines
