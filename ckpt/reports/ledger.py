"""The ledger of a run: what each op, line or scope costs; and why the peak is what it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ckpt.errors import UsageError
from ckpt.graph import Graph, Node
from ckpt.reports.rows import Row, as_mappings, columns_of
from ckpt.timeline import Holding, Timeline
from ckpt.units import format_bytes

GROUPS = {
    "alike": ("op", "source", "shape", "dtype"),
    "op": ("op",),
    "line": ("source",),
    "scope": ("scope",),
}
"""What ``by`` may be, and the columns that a group's rows have in common."""

ALIKE = (
    "what", "source", "shape", "dtype", "kept_nbytes", "share_percent", "forward_flops",
    "backward_flops", "recompute_flops",
)  # fmt: skip
"""The columns of a ledger by what is alike, as it is shown where there is little room."""

BY_LINE = (
    "line", "nodes", "nbytes", "kept_nbytes", "share_percent", "forward_flops", "backward_flops",
    "recompute_flops", "text",
)  # fmt: skip
"""The columns of a ledger by line, beside the line's text."""

COUNTED = (
    "nodes",
    "nbytes",
    "kept_nbytes",
    "forward_flops",
    "backward_flops",
    "recompute_flops",
    "seconds",
    "computed",
)
"""The columns of a ledger that add up."""


def step_rows(graph: Graph, timeline: Timeline) -> list[dict[str, Any]]:
    """A row a node, with bytes, FLOPs by phase, and how often the schedule computes it."""
    counts = timeline.counts
    kept = {graph.owners[i] for i, r in enumerate(graph.step_readers) if r}
    backward_flops: dict[int | None, int] = {}
    for step in graph.steps:
        backward_flops[step.at] = backward_flops.get(step.at, 0) + step.flops
    rows: list[dict[str, Any]] = []
    for i, node in enumerate(graph):
        if not node.resident and not counts[i]:
            continue
        rows.append(
            {
                "order": i,
                "name": node.name,
                "op": node.op,
                "source": node.source,
                "scope": node.scope,
                "shape": "x".join(map(str, node.shape)) or "scalar",
                "dtype": node.dtype,
                "nbytes": 0 if node.alias_of is not None else node.nbytes,
                "kept_nbytes": node.nbytes if i in kept and not node.resident else 0,
                "forward_flops": node.flops,
                "backward_flops": backward_flops.get(i, 0),
                "recompute_flops": node.flops * max(counts[i] - 1, 0),
                "computed": counts[i],
            }
        )
    return rows


def ledger(
    rows: Iterable[Any], *, sort: str = "nbytes", top: int | None = None, by: str | None = None
) -> list[Row]:
    """A ledger's rows - one a node, or with ``by`` one a group - and their total.

    ``by``: alike (the same op, line, shape and dtype: the layers of a loop), op, line, or scope,
    each with those inside it under it. Sorted by ``sort``: numbers largest first, texts from a to
    z, ``order`` as executed; scopes stay in order. Of more than ``top`` rows the rest is one row
    that says how many it adds up. Raises UsageError for an unknown ``sort`` or ``by`` and for a
    ``top`` below 1.
    """
    table = as_mappings(rows)
    if top is not None and top < 1:
        raise UsageError(f"top must be at least 1, not {top}")
    if by not in (None, *GROUPS):
        raise UsageError(f"can't group by {by!r}; use {', '.join(GROUPS)}")
    total = _sum(table)
    if by is not None:
        total["nodes"] = len(table)
        table = _scopes(table) if by == "scope" else _groups(table, by)
    columns = columns_of(table)
    if not table:
        return []
    if sort != "order" and by != "scope":
        if sort not in columns:
            known = dict.fromkeys(["order", *columns])
            raise UsageError(f"can't sort by {sort!r}; use {', '.join(known)}")
        table.sort(key=lambda row: _descending(row.get(sort)))
    label = columns[0] if by is not None or "name" not in columns else "name"
    total = {label: "total", **total}
    if top is not None and len(table) > top:
        rest = table[top:]
        sums = {} if by == "scope" else _sum(rest)  # some of these are inside others
        table = [*table[:top], {label: f"{len(rest)} more", **sums}]
    return [_with_share(row, total) for row in (*table, total)]


def _with_share(row: Row, total: Row) -> Row:
    whole = total.get("kept_nbytes")
    if not whole or row.get("kept_nbytes") is None:
        return row
    return {**row, "share_percent": 100 * row["kept_nbytes"] / whole}


def _groups(table: Sequence[Row], by: str) -> list[Row]:
    columns = GROUPS[by]
    found: dict[Any, list[Row]] = {}
    for row in table:
        found.setdefault(tuple(row.get(column) for column in columns), []).append(row)
    rows: list[Row] = []
    for values, members in found.items():
        count = f"{len(members)} x " if len(members) > 1 else ""
        named = (
            {"what": f"{count}{values[0]}", **dict(zip(columns[1:], values[1:], strict=True))}
            if by == "alike"
            else {by: values[0] or f"(no {by})"}
        )
        rows.append({**named, "nodes": len(members), **_sum(members)})
    return rows


@dataclass
class _Scope:
    """A scope: the rows of all that is inside it, and the scopes directly inside."""

    name: str
    rows: list[Row] = field(default_factory=list)
    inside: dict[str, _Scope] = field(default_factory=dict)

    def told(self) -> tuple[Any, ...]:
        """What its row and those of the scopes inside it would say."""
        return len(self.rows), *_sum(self.rows).values(), *(s.told() for s in self.inside.values())


def _scopes(table: Sequence[Row]) -> list[Row]:
    """Each scope with the sum of all inside it, in order, those inside another indented.

    Neighbours that would say the same, as the layers of a loop, are one row."""
    top = _Scope("")
    for row in table:
        scope = top
        for name in filter(None, str(row.get("scope") or "(no scope)").split("/")):
            scope = scope.inside.setdefault(name, _Scope(name))
            scope.rows.append(row)
    return list(_scope_rows([top], 0))


def _scope_rows(above: Sequence[_Scope], depth: int) -> Iterator[Row]:
    """The rows inside of scopes that are alike."""
    groups: list[list[_Scope]] = []
    for abreast in zip(*(scope.inside.values() for scope in above), strict=True):
        if groups and groups[-1][0].told() == abreast[0].told():
            groups[-1] += abreast
        else:
            groups.append([*abreast])
    for group in groups:
        names = list(dict.fromkeys(scope.name for scope in group))
        name = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        rows = [row for scope in group for row in scope.rows]
        many = f"{len(group)} x " if len(group) > 1 else ""
        yield {"scope": "  " * depth + many + name, "nodes": len(rows), **_sum(rows)}
        yield from _scope_rows(group, depth + 1)


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
    found: dict[str, list[int]] = {}
    for held in holdings:
        found.setdefault(_told(graph, held), []).append(held.nbytes)
    lines = [(sum(sizes), len(sizes), text) for text, sizes in found.items()]
    if peak is not None and (rest := peak - sum(size for size, _, _ in lines)) > 0:
        lines.append((rest, 1, "workspace of this instruction"))
    lines.sort(key=lambda line: (-line[0], line[2]))
    shown = lines if top is None else lines[:top]
    if more := lines[len(shown) :]:
        shown = [*shown, (sum(size for size, _, _ in more), 1, f"{len(more)} more")]
    whole = sum(size for size, _, _ in lines) or 1
    return [
        f"{format_bytes(size):>9} {100 * size / whole:4.0f} %  "
        f"{f'{count} x ' if count > 1 else ''}{text}"
        for size, count, text in shown
    ]


_OF = {
    "activations": "",
    "captured": "captured ",
    "states": "generator's state of ",
    "cotangents": "cotangent of ",
    "gradients": "gradient of ",
}


def _told(graph: Graph, held: Holding) -> str:
    """One buffer: what it is, and of a value, who still reads it. Layers of a loop read alike."""
    if held.whose is None:
        return f"{_OF[held.kind]}nobody's"
    node = graph[held.whose]
    kind = "" if held.kind == node.op else _OF[held.kind]
    text = " ".join(filter(None, [kind + alike(node), node.source]))
    if held.kind not in ("activations", "captured"):
        return text
    if held.reader is None:
        return f"{text}, read by no backward to come"
    step = graph.steps[held.reader]
    return f"{text}, for {step.label}" + (f" {step.source}" if step.source != node.source else "")


def alike(node: Node) -> str:
    """What a value has in common with its like in other layers: ``tanh 64x256 float32``."""
    named = f"{node.op} {node.name!r}" if node.name and node.name != node.op else node.op
    return f"{named} {'x'.join(map(str, node.shape)) or 'scalar'} {node.dtype}"
