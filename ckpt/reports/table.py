"""Tables for people: aligned, with the unit in the heading; as wide as the terminal, or 80."""

from __future__ import annotations

import math
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from ckpt.reports.rows import Row, as_mappings, columns_of
from ckpt.text import printable
from ckpt.units import (
    BYTES,
    FLOP_NOTE,
    FLOPS,
    SECONDS,
    format_bytes,
    format_flops,
    format_seconds,
    in_one_unit,
)

_SCALES: dict[str, Sequence[tuple[float, str]]] = {
    "nbytes": BYTES,
    "flops": FLOPS,
    "seconds": SECONDS,
    "overhead": ((0.01, "%"),),
    "percent": ((1, "%"),),
}
WIDEST = 240
"""Characters of a cell; one long name would else widen every row."""
LINE = 80
"""Characters of a line, where no terminal says otherwise."""
TEXT = "text"
"""The column that takes the room that the others leave, and is cut to it."""
LEAST_TEXT = 30
"""Characters below which nothing is to be read in it."""
LONGEST_NAME = 28
"""Characters of what a row is called, where there is no room for its figures else."""

SWEEP_COLUMNS = (
    "depth",
    "strategy",
    "predicted_peak_nbytes",
    "measured_peak_nbytes",
    "measured_whole_peak_nbytes",
    "overhead",
    "step_flops",
    "cpu_seconds",
    "gradients_equal",
)
FRONTIER_COLUMNS = (
    "planner",
    "budget_nbytes",
    "predicted_peak_nbytes",
    "measured_peak_nbytes",
    "recompute_flops",
    "overhead",
    "bound_flops",
    "gap_percent",
    "planning_seconds",
)

BUDGET_COLUMNS = (
    "budget_nbytes",
    "planner",
    "predicted_peak_nbytes",
    "overhead",
    "bound_overhead",
    "gap_overhead",
)


def show(
    rows: Iterable[Any],
    columns: Sequence[str] | None = None,
    *,
    title: str = "",
    file: TextIO | None = None,
) -> None:
    """Print `rows` to ``file`` (default: stdout), with rich where that is a terminal."""
    out = sys.stdout if file is None else file
    if out.isatty():
        width = max(LINE, shutil.get_terminal_size().columns)
        _show_on_terminal(render(rows, columns, title=title, width=width), out)
    else:
        out.write(render(rows, columns, title=title))


def render(
    rows: Iterable[Any],
    columns: Sequence[str] | None = None,
    *,
    title: str = "",
    width: int = LINE,
) -> str:
    """The rows as aligned plain text: a title, a heading, a line a row, and what a FLOP is.

    ``columns`` are in the order of their weight. Those that no row has are left out; those that are
    the same in every row are said once, below; and of those that don't fit into ``width`` the last
    are named there. Without it, every column is shown.
    """
    table = as_mappings(rows)
    if not table:
        return f"{printable(title)}\n(no rows)\n" if title else "(no rows)\n"
    shown, chosen, below = _layout(table, columns, width)
    lines = [line.rstrip() for line in _lines(shown, chosen)]
    if title:
        lines.insert(0, printable(title))
    return "\n".join([*lines, *below]) + "\n"


def _lines(table: Sequence[Row], chosen: Sequence[str]) -> list[str]:
    blocks = []
    for column in chosen:
        name, cells = column_of(table, column)
        widest = max(*map(len, cells), *map(len, name.split()))
        head = textwrap.wrap(name, widest) or [""]
        put = str.rjust if is_number(table, column) else str.ljust
        blocks.append((head, [put(text, widest) for text in cells], widest, put))
    tall = max(len(head) for head, *_ in blocks)
    heads = [
        [put(text, widest) for text in ([""] * (tall - len(head)) + head)]
        for head, _, widest, put in blocks
    ]
    rules = ["-" * widest for _, _, widest, _ in blocks]
    columns = [
        [*head, rule, *cells]
        for head, rule, (_, cells, _, _) in zip(heads, rules, blocks, strict=True)
    ]
    return ["  ".join(line) for line in zip(*columns, strict=True)]


def _layout(
    table: Sequence[Row], columns: Sequence[str] | None, width: int
) -> tuple[Sequence[Row], list[str], list[str]]:
    """The rows as they fit, the columns that are shown, and the lines below about the others."""
    chosen = chosen_columns(table, columns)
    if columns is None:
        return table, chosen, footnotes(chosen)
    told = [row for row in table if row.get(chosen[0]) != "total"]
    said = ""
    if len(told) > 1:
        same = [c for c in chosen if len({cell(c, row.get(c)) for row in told}) == 1]
        chosen = [c for c in chosen if c not in same] or chosen[:1]
        values = {heading(c): cell(c, told[0].get(c)) for c in same}
        said = ", ".join(f"{name} {value}" for name, value in values.items() if value)
    widths = {c: len(_lines(table, [c])[-1]) + 2 for c in chosen}
    text = widths.get(TEXT, 0)
    widths |= {TEXT: min(text, LEAST_TEXT + 2)} if text else {}
    if sum(widths[c] for c in chosen) - 2 > width and widths[chosen[0]] > LONGEST_NAME + 2:
        first = chosen[0]
        table = [{**row, first: _cut(cell(first, row.get(first)), LONGEST_NAME)} for row in table]
        widths[first] = LONGEST_NAME + 2
    gone: list[str] = []
    while len(chosen) > 2 and sum(widths[c] for c in chosen) - 2 > width:
        gone.insert(0, chosen.pop())
    if TEXT in chosen:
        room = min(text - 2, width + 2 - sum(widths[c] for c in chosen if c != TEXT) - 2)
        table = [{**row, TEXT: _cut(str(row.get(TEXT) or ""), room)} for row in table]
    gone = [c for c in gone if c != TEXT]
    below = [f"in every row: {said}"] if said else []
    below += footnotes(chosen)
    if gone:
        below.append(f"too wide for here: {', '.join(map(heading, gone))} (-o table.csv has all)")
    return table, chosen, [line for long in below for line in textwrap.wrap(long, width)]


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"


def _show_on_terminal(text: str, file: TextIO) -> None:
    """The lines with heading and total in bold. One that the terminal wraps loses nothing."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file)
    lines = text.splitlines()
    rule = next((n for n, line in enumerate(lines) if set(line) == {"-", " "}), -1)
    for n, line in enumerate(lines):
        bold = n < rule or line.startswith("total ")
        console.print(Text(line, style="bold" if bold else ""), soft_wrap=True)


def chosen_columns(rows: Sequence[Row], columns: Sequence[str] | None) -> list[str]:
    """The columns to show: those of ``columns`` that some row fills in, or every one there is."""
    there = columns_of(rows)
    if columns is None:
        return there
    return [c for c in columns if c in there and any(row.get(c) is not None for row in rows)]


def footnotes(columns: Iterable[str]) -> list[str]:
    """What a FLOP is, under a table that counts them, and of what an overhead is a share."""
    units = {_unit(column) for column in columns}
    found = ["overhead: recompute over forward FLOPs"] if "overhead" in units else []
    return [*found, FLOP_NOTE] if units & {"flops", "overhead"} else []


# -- columns and cells --------------------------------------------------------------------------


def _unit(column: str) -> str:
    """The unit in a column's name: nbytes, flops, seconds, percent, overhead, or none."""
    parts = column.split("_")
    return next(
        (u for u in ("nbytes", "flops", "seconds", "percent", "overhead") if u in parts), ""
    )


def heading(column: str) -> str:
    """A column's name for people; its unit moves into the cells: ``peak_nbytes -> peak``."""
    alone = {"nbytes": "bytes", "flops": "FLOPs", "seconds": "time", "cpu_seconds": "CPU time"}
    if column in alone:
        return alone[column]
    if _unit(column) == "seconds":
        return " ".join(part for part in column.split("_") if part != "seconds") + " time"
    unit = _unit(column)
    return " ".join(part for part in column.split("_") if part != unit or unit == "overhead")


def cell(column: str, value: Any) -> str:
    """A value for people, by its column's unit: IEC bytes, FLOP prefixes, percentages."""
    if value is None:
        return ""
    if isinstance(value, bool) or type(value).__name__ == "bool":  # NumPy's bool is its own type
        return "yes" if value else "no"
    if isinstance(value, str):
        return printable(value, WIDEST)
    if not isinstance(value, (int, float)) and not hasattr(value, "__float__"):
        return printable(str(value), WIDEST)
    unit = _unit(column)
    if value != value:
        return "nan"
    if abs(value) == float("inf"):
        return "inf" if value > 0 else "-inf"
    if unit == "nbytes":
        return format_bytes(value)
    if unit == "flops":
        return format_flops(value)
    if unit == "seconds":
        return format_seconds(value)
    if unit == "overhead":
        return f"{100 * value:.1f} %"
    if unit == "percent":
        return "0 % (optimal)" if column == "gap_percent" and value == 0 else f"{value:.1f} %"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def column_of(rows: Sequence[Row], column: str) -> tuple[str, list[str]]:
    """A column's heading and its cells; the unit is in the heading where one is right for all."""
    values = [row.get(column) for row in rows]
    name, unit = heading(column), _unit(column)
    numbers = [value for value in values if value is not None]
    found = None
    if unit in _SCALES and numbers and is_number(rows, column) and all(map(math.isfinite, numbers)):
        found = in_one_unit(numbers, _SCALES[unit])
    if found is None or column == "gap_percent":
        return name, [cell(column, value) for value in values]
    texts = iter(found[1])
    return f"{name} {found[0]}", ["" if value is None else next(texts) for value in values]


def is_number(rows: Sequence[Row], column: str) -> bool:
    """Does the column hold numbers (and perhaps gaps), so that it is set to the right?"""
    values = [row.get(column) for row in rows if row.get(column) is not None]
    return bool(values) and not any(isinstance(v, (str, bool, list, tuple, dict)) for v in values)
