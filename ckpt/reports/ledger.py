"""The ledger of a run: what each op, line or scope costs; and why the peak is what it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ckpt.errors import UsageError
from ckpt.graph import Graph
from ckpt.reports.rows import Row, as_mappings, columns_of, group
from ckpt.timeline import Holding
from ckpt.units import format_bytes

GROUPS = {"op": "op", "line": "source", "scope": "scope"}
"""What ``by`` may be, and the column that it reads."""

COUNTED = (
    "nbytes",
    "kept_nbytes",
    "forward_flops",
    "backward_flops",
    "recompute_flops",
    "seconds",
    "computed",
)
"""The columns of a ledger that add up."""


def ledger(
    rows: Iterable[Any], *, sort: str = "nbytes", top: int | None = None, by: str | None = None
) -> list[Row]:
    """A ledger's rows - one a node, or with ``by`` (op, line, scope) one a group - and their total.

    Sorted by ``sort``: numbers largest first, texts from a to z, ``order`` as executed. Of more
    than ``top`` rows the rest is one row that says how many it adds up. Raises UsageError for an
    unknown ``sort`` or ``by`` and for a ``top`` below 1.
    """
    table = as_mappings(rows)
    if top is not None and top < 1:
        raise UsageError(f"top must be at least 1, not {top}")
    if by is not None:
        if by not in GROUPS:
            raise UsageError(f"can't group by {by!r}; use {', '.join(GROUPS)}")
        table = [
            {by: value or f"(no {by})", "nodes": len(members), **_sum(members)}
            for value, members in group(table, GROUPS[by]).items()
        ]
    columns = columns_of(table)
    if not table:
        return []
    if sort != "order":
        if sort not in columns:
            known = dict.fromkeys(["order", *columns])
            raise UsageError(f"can't sort by {sort!r}; use {', '.join(known)}")
        table.sort(key=lambda row: _descending(row.get(sort)))
    label = columns[0] if by is not None or "name" not in columns else "name"
    total: dict[str, Any] = {label: "total", **_sum(table)}
    if by is not None:
        total["nodes"] = sum(row["nodes"] for row in table)
    if top is not None and len(table) > top:
        rest = table[top:]
        table = [*table[:top], {label: f"{len(rest)} more", **_sum(rest)}]
    return [*table, total]


def _sum(rows: Sequence[Row]) -> dict[str, Any]:
    there = columns_of(rows)
    return {c: sum(row.get(c) or 0 for row in rows) for c in COUNTED if c in there}


def _descending(value: Any) -> tuple[int, Any]:
    if value is None:
        return 2, 0
    return (1, value) if isinstance(value, str) else (0, -value)


def why(
    graph: Graph,
    holdings: Iterable[Holding],
    *,
    peak: int | None = None,
    top: int | None = None,
) -> list[str]:
    """What is live, largest first, a line each: its bytes, what it is, and who still reads it.

    Buffers that read alike (the layers of a loop) share a line, with their number and sum. ``peak``
    adds the workspace that completes it.
    """
    alike: dict[str, list[int]] = {}
    for held in holdings:
        alike.setdefault(_told(graph, held), []).append(held.nbytes)
    lines = [(sum(sizes), len(sizes), text) for text, sizes in alike.items()]
    if peak is not None and (rest := peak - sum(size for size, _, _ in lines)) > 0:
        lines.append((rest, 1, "workspace of this instruction"))
    lines.sort(key=lambda line: (-line[0], line[2]))
    shown = lines if top is None else lines[:top]
    texts = [
        f"{format_bytes(size):>9}  {f'{count} x ' if count > 1 else ''}{text}"
        for size, count, text in shown
    ]
    if len(shown) < len(lines):
        rest = sum(size for size, _, _ in lines[len(shown) :])
        texts.append(f"{format_bytes(rest):>9}  {len(lines) - len(shown)} more")
    return texts


_OF = {
    "activations": "",
    "captured": "captured ",
    "states": "generator's state of ",
    "cotangents": "cotangent of ",
    "gradients": "gradient of ",
}


def _told(graph: Graph, held: Holding) -> str:
    """One buffer: what it is, and of a value, who still reads it."""
    what = "nobody's" if held.whose is None else graph.describe(held.whose)
    text = f"{_OF[held.kind]}{what}"
    if held.kind not in ("activations", "captured"):
        return text
    if held.reader is None:
        return f"{text}, read by no backward to come"
    return f"{text}, read by the {graph.describe_step(held.reader)}"
