"""Memory against depth, recompute against depth, and memory against recompute, by strategy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ckpt.reports.canvas import (
    byte_axis,
    count_axis,
    dress,
    guide,
    label_ends,
    new_figure,
    percent_axis,
)
from ckpt.reports.drawing import Label, best_of, draw_best, place, shade_impossible
from ckpt.reports.house import house
from ckpt.reports.rows import Row, as_mappings, group, shared, stem
from ckpt.reports.style import FAINT, GREEN, TEXT, look, words
from ckpt.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PREDICTED, MEASURED = "predicted_peak_nbytes", "measured_peak_nbytes"
NAMES = {"sqrt": "√n segments", "planned": "planned"}
"""Strategies whose name says less than could be said."""


@house()
def sweep_figure(rows: Iterable[Any], *, title: str = "", caption: str = "") -> Figure:
    """Three panels of a sweep's rows; predicted peaks are lines, measured ones are points."""
    table = [row for row in as_mappings(rows) if row.get(PREDICTED) is not None]
    depth = max((row["depth"] for row in table), default=0)
    figure = new_figure(
        11, 4.7, title=title or headline(table, depth), caption=caption or describe(table)
    )
    memory, recompute, trade = figure.subplots(1, 3, width_ratios=[1, 1, 1.25])
    by_strategy = {
        name: sorted(members, key=lambda row: row["depth"])
        for name, members in group(table, "strategy").items()
        if not _varied(str(name))
    }
    _depth_panel(memory, by_strategy, PREDICTED)
    _depth_panel(recompute, by_strategy, "overhead")
    _trade_panel(trade, [row for row in table if row["depth"] == depth], depth)
    return figure


def headline(rows: Sequence[Row], depth: int) -> str:
    """What the sweep found at full depth, in one line, from its own numbers."""
    full = {str(row["strategy"]): row for row in rows if row["depth"] == depth}
    plain, root, planned = (full.get(name) for name in ("store_all", "sqrt", "planned"))
    if plain is None or root is None or plain[PREDICTED] < 1.05 * root[PREDICTED]:
        return "Peak memory and recompute, by strategy"
    text = (
        f"{depth:,} layers: {format_bytes(plain[PREDICTED])} stored whole, "
        f"{format_bytes(root[PREDICTED])} in √n segments"
    )
    if planned is None or any(planned[c] > root[c] for c in ("recompute_flops", PREDICTED)):
        return f"{text} for {root['overhead']:.0%} of a forward more"
    return f"{text}, {format_bytes(planned[PREDICTED])} planned for no more recompute"


def describe(rows: Sequence[Row]) -> str:
    """The caption: which model, dtype and seed, and what is measured against what is predicted."""
    settings = [
        f"{column} {shared(rows, column)}" if column != "dtype" else str(shared(rows, column))
        for column in ("model", "width", "batch", "dtype", "seed")
        if shared(rows, column) is not None
    ]
    measured = any(row.get(MEASURED) is not None for row in rows)
    planned = any(stem(str(row["strategy"])) == "planned" for row in rows)
    by_plan = " Planned: by the planner chain, with at most √n segments' recompute."
    return (
        f"{', '.join(settings)}. Peak: activations, captured arrays, cotangents and workspace; "
        "parameters, inputs and gradients aside. Lines: predicted by simulation. "
        + ("Points: measured with tracemalloc." if measured else "Nothing was measured.")
        + " Recompute: FLOPs, as a share of the forward's (1 multiply-add = 2 FLOPs)."
        + (by_plan if planned else "")
    )


def _depth_panel(axes: Axes, by_strategy: dict[Any, list[Row]], column: str) -> None:
    """A column of each strategy's rows against depth: bytes on a log axis, shares from zero."""
    is_bytes = column == PREDICTED
    title = "Peak memory (log scales)" if is_bytes else "Recompute, share of a forward"
    dress(axes, title=title, x="depth (layers)", grid="y")
    axes.set_xscale("log")
    if is_bytes:
        axes.set_yscale("log", base=2)
    depths = [row["depth"] for rows in by_strategy.values() for row in rows]
    ends = []
    for name, rows in by_strategy.items():
        _line(axes, str(name), rows, column)
        last = rows[-1]
        ends.append((last["depth"], last[column], _name(name), look(str(name)).colour))
    if is_bytes:
        for kind, name, shift in (("n", "store_all", 1.7), ("sqrt n", "sqrt", 1.7)):
            rows = by_strategy.get(name, [])
            if len(rows) > 1:
                x, y = rows[-1]["depth"], rows[-1][column] * shift
                ends.append(guide(axes, kind, [row["depth"] for row in rows], (x, y)))
        byte_axis(axes.yaxis, log=True)
    else:
        axes.set_ylim(*_room(axes.get_ylim()))
        percent_axis(axes.yaxis)
    _log_room(axes, depths, [y for _, y, _, _ in ends] if is_bytes else ())
    count_axis(axes.xaxis, depths)
    label_ends(axes, ends)


def _trade_panel(axes: Axes, rows: Sequence[Row], depth: int) -> None:
    """What memory costs at the greatest depth: the best that was found, and the impossible."""
    dress(
        axes,
        title=f"What memory costs, {depth:,} layers",
        x="recompute, share of a forward",
        y="peak memory (log scale)",
        grid="",
    )
    peaks = [row[PREDICTED] for row in rows] or [1]
    named = {str(r["strategy"]): r for r in rows if not _varied(str(r["strategy"]))}
    widest = max((row["overhead"] for row in rows), default=0)
    axes.set_yscale("log", base=2)
    axes.set_ylim(max(min(peaks), 1) * 0.62, max(peaks) * 1.3)
    axes.set_xlim(*_room((0, widest)))
    byte_axis(axes.yaxis, log=True)
    percent_axis(axes.xaxis)
    # A share of the forward is what the bound's FLOPs are drawn as.
    limits = [
        (row[PREDICTED], row["bound_flops"] / row["forward_flops"])
        for row in rows
        if row.get("bound_flops") and row.get("forward_flops")
    ]
    shade_impossible(axes, limits)
    best = best_of((row["overhead"], row[PREDICTED]) for row in rows)
    several = any(_shares(row) for row in rows)
    if several:
        draw_best(axes, best, GREEN)
    for row in rows:
        if not _shares(row):
            _point(axes, row)
    labels = [
        Label(row["overhead"], row[PREDICTED], _name(name), look(name).colour)
        for name, row in named.items()
    ]
    labels += [
        Label(row["overhead"], row[PREDICTED], str(row["segments"]), FAINT)
        for row in rows
        if _varied(str(row["strategy"])) and row.get("segments")
    ]
    _compare(axes, named)
    if several:
        middle = min(best, key=lambda point: abs(point[0] - 0.3 * widest))
        labels.append(Label(*middle, "best found", GREEN))
    place(axes, labels)


def _compare(axes: Axes, full: dict[str, Row]) -> None:
    """An arrow from sqrt down to what a plan makes of the same recompute."""
    root, planned = full.get("sqrt"), full.get("planned")
    if root is None or planned is None or root[PREDICTED] < 1.25 * planned[PREDICTED]:
        return
    x = root["overhead"]
    low, high = planned[PREDICTED] * 1.16, root[PREDICTED] * 0.88
    axes.plot([x, x], [low, high], color=TEXT, linewidth=0.9, zorder=3)
    axes.plot([x], [low], "v", color=TEXT, markersize=4, zorder=3)
    axes.annotate(
        f"÷ {root[PREDICTED] / planned[PREDICTED]:.1f}",
        (x, (root[PREDICTED] * planned[PREDICTED]) ** 0.5),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=TEXT,
    )


def _name(strategy: Any) -> str:
    return NAMES.get(str(strategy), words(str(strategy)))


def _varied(strategy: str) -> bool:
    """Is it one of many at one depth, rather than a line over depths?"""
    return stem(strategy) in ("segments", "every") or strategy.startswith("planned@")


def _shares(row: Row) -> bool:
    """Is it one of the plans that only the line of the best is made of?"""
    return str(row["strategy"]).startswith("planned@")


def _line(axes: Axes, name: str, rows: Sequence[Row], column: str) -> None:
    """A strategy over depth: its prediction as a line, and points where it was measured.

    FLOPs are counted, not timed, so what is predicted of them is also what is executed.
    """
    style = look(name)
    hero = name == "planned"
    axes.plot(
        [row["depth"] for row in rows],
        [row[column] for row in rows],
        color=style.colour,
        linestyle=style.dash,
        linewidth=2.4 if hero else 1.5,
        zorder=3 if hero else 2,
    )
    found = MEASURED if column == PREDICTED else column
    points = [row for row in rows if row.get(MEASURED) is not None]
    axes.plot(
        [row["depth"] for row in points],
        [row[found] for row in points],
        linestyle="none",
        marker=style.marker,
        markersize=5.5 * style.scale,
        color=style.colour,
        markeredgecolor="white",
        markeredgewidth=0.6,
        zorder=4,
    )


def _point(axes: Axes, row: Row) -> None:
    """A strategy at one depth: full where it was measured, hollow where it is predicted only."""
    style = look(str(row["strategy"]))
    hollow = row.get(MEASURED) is None
    axes.plot(
        [row["overhead"]],
        [row[PREDICTED if hollow else MEASURED]],
        linestyle="none",
        marker=style.marker,
        markersize=7 * style.scale,
        markerfacecolor="white" if hollow else style.colour,
        markeredgecolor=style.colour if hollow else "white",
        markeredgewidth=1.3 if hollow else 0.7,
        zorder=5,
    )


def _log_room(axes: Axes, xs: Sequence[float], ys: Sequence[float] = ()) -> None:
    """On a log axis a single value has no extent: give it an octave."""
    if xs and min(xs) == max(xs):
        axes.set_xlim(xs[0] * 0.7, xs[0] * 1.4)
        if ys:
            axes.set_ylim(min(ys) / 2, max(ys) * 2)


def _room(limits: tuple[float, float]) -> tuple[float, float]:
    """Limits from just below zero, so that points that cost nothing stand clear of the axis."""
    high = max(limits[1], 0.01)
    return -0.04 * high, high * 1.04
