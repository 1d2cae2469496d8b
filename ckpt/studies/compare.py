"""Two steps beside each other - before and after a change, with two NumPys: what moved, by line."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Any

from ckpt.reports.documents import Planned
from ckpt.reports.words import source_lines
from ckpt.text import printable
from ckpt.timeline import holdings
from ckpt.units import format_bytes

COLUMNS = (
    "line", "moved_nbytes", "before_nbytes", "after_nbytes", "moved_recompute_flops",
    "before_recompute_flops", "after_recompute_flops", "text",
)  # fmt: skip
WORKSPACE = "workspace"
FACTS = 40
"""So many that differ are told; there are some twenty."""


def moved(before: Planned, after: Planned) -> list[dict[str, Any]]:
    """A row a source line whose bytes live at the peak, or whose recompute, is another: the
    largest first. Lines that stand elsewhere in their file by now are told by their ops."""
    old, new = _by_line(before), _by_line(after)
    told, tells = source_lines(before.graph), source_lines(after.graph)
    rows = []
    for a, b in _aligned(_ops(before), _ops(after)):
        label = a if a == b or not b else b if not a else f"{a} -> {b.rpartition(':')[2]}"
        bytes_, flops = zip(old.get(a, (0, 0)), new.get(b, (0, 0)), strict=True)
        if bytes_[0] != bytes_[1] or flops[0] != flops[1]:
            rows.append(
                {
                    "line": label,
                    "moved_nbytes": bytes_[1] - bytes_[0],
                    "before_nbytes": bytes_[0],
                    "after_nbytes": bytes_[1],
                    "moved_recompute_flops": flops[1] - flops[0],
                    "before_recompute_flops": flops[0],
                    "after_recompute_flops": flops[1],
                    "text": tells.get(b) or told.get(a),
                }
            )
    return sorted(
        rows, key=lambda r: (-abs(r["moved_nbytes"]), -abs(r["moved_recompute_flops"]), r["line"])
    )


def verdict(before: Planned, after: Planned) -> list[str]:
    """What the two peak at and recompute, and in what they were measured differently."""
    a, b = before.timeline, after.timeline
    off = f" ({100 * (b.peak / a.peak - 1):+.1f} %)" if a.peak else ""
    same = before.graph.digest == after.graph.digest
    graphs = "the same graph" if same else f"{len(before.graph)} and {len(after.graph)} nodes"
    lines = [
        f"peak {format_bytes(a.peak)} before, {format_bytes(b.peak)} after{off}; "
        f"whole {format_bytes(a.whole_peak)}, {format_bytes(b.whole_peak)}",
        f"recompute {100 * a.overhead:.1f} % of a forward before, {100 * b.overhead:.1f} % after; "
        f"{graphs}",
    ]
    seen = [getattr(found, "measured", None) for found in (before, after)]
    if all(seen):
        lines.append("measured " + ", ".join(format_bytes(found.peak) for found in seen if found))
    facts = [dict(_flat(getattr(found, "environment", {}))) for found in (before, after)]
    if all(facts):
        lines += _differing(*facts)
    return lines


def _differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Facts that differ, as they may be shown: files have been edited by then."""
    names = [n for n in sorted(old.keys() | new.keys()) if old.get(n) != new.get(n)]
    told = [printable(f"{n}: {old.get(n)} before, {new.get(n)} after", 300) for n in names[:FACTS]]
    return told + [f"and {len(names) - FACTS} facts more"] * (len(names) > FACTS)


def _flat(facts: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name} ")
        else:
            yield f"{above}{name}", value


def _by_line(step: Planned) -> dict[str, tuple[int, int]]:
    """Of each line, its bytes live at the peak and the FLOPs of its recomputations."""
    graph, timeline = step.graph, step.timeline
    found: dict[str, list[int]] = {}
    total = 0
    for held in holdings(graph, timeline, timeline.peak_position) if len(timeline) else ():
        line = _line(step, held.whose)
        found.setdefault(line, [0, 0])[0] += held.nbytes
        total += held.nbytes
    found.setdefault(WORKSPACE, [0, 0])[0] += timeline.peak - total
    for i, count in enumerate(timeline.counts):
        if count > 1:
            found.setdefault(_line(step, i), [0, 0])[1] += graph[i].flops * (count - 1)
    return {line: (nbytes, flops) for line, (nbytes, flops) in found.items()}


def _line(step: Planned, node: int | None) -> str:
    return (step.graph[node].source if node is not None else "") or "(no line)"


def _ops(step: Planned) -> dict[str, tuple[str, ...]]:
    """Each line's ops, the lines in the order in which they are met."""
    found: dict[str, list[str]] = {}
    for i, node in enumerate(step.graph):
        found.setdefault(_line(step, i), []).append(node.op)
    found["(no line)"] = []
    found[WORKSPACE] = []
    return {line: tuple(dict.fromkeys(ops)) for line, ops in found.items()}


def _aligned(
    old: dict[str, tuple[str, ...]], new: dict[str, tuple[str, ...]]
) -> Iterator[tuple[str, str]]:
    """Pairs of lines that are the same, and lines with nothing beside them ("")."""
    lines = list(old), list(new)
    signs = [
        [(line.rpartition(":")[0] or line, ops) for line, ops in found.items()]
        for found in (old, new)
    ]
    matcher = SequenceMatcher(None, signs[0], signs[1], autojunk=False)
    for _, i, j, k, m in matcher.get_opcodes():
        left, right = lines[0][i:j], lines[1][k:m]
        if signs[0][i:j] == signs[1][k:m]:
            yield from zip(left, right, strict=True)
            continue
        yield from ((line, line if line in right else "") for line in left)
        yield from (("", line) for line in right if line not in left)
