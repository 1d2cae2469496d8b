"""Tables for people: cells by the unit in the column's name; rich on a terminal, else plain."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from ckpt.reports.rows import Row, as_mappings, columns_of
from ckpt.text import printable
from ckpt.units import FLOP_NOTE, format_bytes, format_flops, format_seconds

WIDEST = 240
"""Characters of a cell; one long name would else widen every row."""
LINE = 80
"""Characters of a line, where no terminal says otherwise."""

SWEEP_COLUMNS = (
    "depth",
    "strategy",
    "predicted_peak_nbytes",
    "measured_peak_nbytes",
    "measured_whole_peak_nbytes",
    "overhead",
    "step_flops",
    "seconds",
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
        _show_rich(as_mappings(rows), columns, title, out)
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
    chosen, below = _layout(table, columns, width)
    lines = [line.rstrip() for line in _lines(table, chosen)]
    if title:
        lines.insert(0, printable(title))
    return "\n".join([*lines, *below]) + "\n"


def _lines(table: Sequence[Row], chosen: Sequence[str]) -> list[str]:
    blocks = []
    for column in chosen:
        cells = [cell(column, row.get(column)) for row in table]
        name = heading(column)
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
) -> tuple[list[str], list[str]]:
    """The columns that are shown, and the lines below that speak of the others."""
    chosen = chosen_columns(table, columns)
    below = [footnote(chosen)] if footnote(chosen) else []
    if columns is None:
        return chosen, below
    told = [row for row in table if row.get(chosen[0]) != "total"]
    if len(told) > 1:
        same = [c for c in chosen[1:] if len({cell(c, row.get(c)) for row in told}) == 1]
        chosen = [c for c in chosen if c not in same]
        said = ", ".join(f"{heading(c)} {cell(c, told[0].get(c))}" for c in same)
        below = [*([f"in every row: {said}"] if said else []), *below]
    gone: list[str] = []
    widths = [len(_lines(table, [c])[-1]) + 2 for c in chosen]
    while len(chosen) > 2 and sum(widths[: len(chosen)]) - 2 > width:
        gone.insert(0, chosen.pop())
    if gone:
        below.append(f"too wide for here: {', '.join(map(heading, gone))} (-o table.csv has all)")
    return chosen, [line for long in below for line in textwrap.wrap(long, width)]


def _show_rich(
    rows: Sequence[Row], columns: Sequence[str] | None, title: str, file: TextIO
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = max(LINE, shutil.get_terminal_size().columns)
    chosen, below = _layout(rows, columns, width) if rows else (list(columns or ()), [])
    table = Table(
        box=box.SIMPLE_HEAD,
        title=Text(printable(title)) if title else None,
        title_justify="left",
        caption=Text("\n".join(below)) if below else None,
        caption_justify="left",
        pad_edge=False,
    )
    needed = 0
    for column in chosen:
        number = is_number(rows, column)
        widest = max((len(cell(column, row.get(column))) for row in rows), default=0)
        # A number is never cut: half of one would be a wrong one. Long texts may fold.
        least = max(widest if number else min(widest, 24), *map(len, heading(column).split()))
        table.add_column(
            Text(heading(column)),
            justify="right" if number else "left",
            min_width=least,
            overflow="fold",
        )
        needed += least + 3
    for row in rows:
        texts = [cell(column, row.get(column)) for column in chosen]
        table.add_row(*map(Text, texts), style="bold" if texts[0] == "total" else None)
    console = Console(file=file)
    # Rich drops columns that don't fit; a line that the terminal wraps loses nothing.
    console.width = max(console.width, needed)
    console.print(table)


def chosen_columns(rows: Sequence[Row], columns: Sequence[str] | None) -> list[str]:
    """The columns to show: those of ``columns`` that some row fills in, or every one there is."""
    there = columns_of(rows)
    if columns is None:
        return there
    return [c for c in columns if c in there and any(row.get(c) is not None for row in rows)]


def footnote(columns: Iterable[str]) -> str:
    """What a FLOP is, under a table that counts them."""
    return FLOP_NOTE if any(_unit(column) in ("flops", "overhead") for column in columns) else ""


# -- columns and cells --------------------------------------------------------------------------


def _unit(column: str) -> str:
    """The unit in a column's name: nbytes, flops, seconds, percent, overhead, or none."""
    parts = column.split("_")
    return next(
        (u for u in ("nbytes", "flops", "seconds", "percent", "overhead") if u in parts), ""
    )


def heading(column: str) -> str:
    """A column's name for people; its unit moves into the cells: ``peak_nbytes -> peak``."""
    alone = {"nbytes": "bytes", "flops": "FLOPs", "seconds": "time"}
    if column in alone:
        return alone[column]
    if _unit(column) == "seconds":
        return " ".join(part for part in column.split("_") if part != "seconds") + " time"
    unit = _unit(column)
    return " ".join(part for part in column.split("_") if part != unit or unit == "overhead")


def cell(column: str, value: Any) -> str:
    """A value for people, by its column's unit: IEC bytes, FLOP prefixes, percentages."""
    if value is None:
        return "–"
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


def is_number(rows: Sequence[Row], column: str) -> bool:
    """Does the column hold numbers (and perhaps gaps), so that it is set to the right?"""
    values = [row.get(column) for row in rows if row.get(column) is not None]
    return bool(values) and not any(isinstance(v, (str, bool, list, tuple, dict)) for v in values)
