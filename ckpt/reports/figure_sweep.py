"""Memory against depth, recompute against depth, and memory against recompute, by strategy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ckpt.reports.canvas import (
    byte_axis,
    count_axis,
    dress,
    guide,
    halo,
    house,
    label_ends,
    new_figure,
    percent_axis,
)
from ckpt.reports.rows import Row, as_mappings, group, shared, stem
from ckpt.reports.style import FAINT, ink, look, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PREDICTED, MEASURED = "predicted_peak_nbytes", "measured_peak_nbytes"
CURVE = ("segments", "every")
"""Strategies whose value is varied at full depth, so that they make a curve there."""


@house()
def sweep_figure(rows: Iterable[Any], *, title: str = "", caption: str = "") -> Figure:
    """Three panels of a sweep's rows; predicted peaks are lines, measured ones are points."""
    table = [row for row in as_mappings(rows) if row.get(PREDICTED) is not None]
    depth = max((row["depth"] for row in table), default=0)
    figure = new_figure(
        13.5, 4.9, title=title or headline(table, depth), caption=caption or describe(table)
    )
    memory, recompute, trade = figure.subplots(1, 3)
    by_strategy = {
        name: sorted(members, key=lambda row: row["depth"])
        for name, members in group(table, "strategy").items()
        if len({row["depth"] for row in members}) > 1 or stem(str(name)) not in CURVE
    }
    _memory_panel(memory, by_strategy, [row["depth"] for row in table])
    _recompute_panel(recompute, by_strategy, [row["depth"] for row in table])
    _trade_panel(trade, [row for row in table if row["depth"] == depth], depth)
    return figure


def headline(rows: Sequence[Row], depth: int) -> str:
    """What the sweep found at full depth, in one line, from its own numbers."""
    full = {str(row["strategy"]): row for row in rows if row["depth"] == depth}
    plain, root = full.get("store_all"), full.get("sqrt")
    if plain is None or root is None or plain[PREDICTED] < 1.05 * root[PREDICTED]:
        return "Peak memory and recompute by strategy"
    return (
        f"At depth {depth:,}, sqrt segments cut peak memory "
        f"{plain[PREDICTED] / root[PREDICTED]:.1f} "
        f"times for {root['overhead']:.0%} more forward FLOPs"
    )


def describe(rows: Sequence[Row]) -> str:
    """The caption: which model, dtype and seed, and what is measured against what is predicted."""
    settings = [
        f"{column} {shared(rows, column)}" if column != "dtype" else str(shared(rows, column))
        for column in ("model", "width", "batch", "dtype", "seed")
        if shared(rows, column) is not None
    ]
    measured = any(row.get(MEASURED) is not None for row in rows)
    return (
        f"{', '.join(settings)}. Peak: activations, captured arrays, cotangents and workspace; "
        "parameters, inputs and gradients aside. Lines: predicted by simulation. "
        + ("Points: measured with tracemalloc." if measured else "Nothing was measured.")
        + " Overhead: recompute over forward FLOPs (1 multiply-add = 2 FLOPs)."
    )


def _memory_panel(axes: Axes, by_strategy: dict[Any, list[Row]], depths: Sequence[int]) -> None:
    dress(axes, title="Peak memory against depth", x="depth (layers)", y="peak bytes", grid="both")
    axes.set_xscale("log")
    axes.set_yscale("log", base=2)
    ends = []
    for name, rows in by_strategy.items():
        _line(axes, str(name), rows, PREDICTED)
        ends.append(
            (rows[-1]["depth"], rows[-1][PREDICTED], words(str(name)), look(str(name)).colour)
        )
    for kind, name, shift in (("n", "store_all", 1.7), ("sqrt n", "sqrt", 0.6)):
        rows = by_strategy.get(name, [])
        if len(rows) > 1:
            x, y = rows[-1]["depth"], rows[-1][PREDICTED] * shift
            guide(axes, kind, [row["depth"] for row in rows], (x, y), above=kind == "n")
    _log_room(axes, depths, [y for _, y, _, _ in ends])
    count_axis(axes.xaxis, depths)
    byte_axis(axes.yaxis, log=True)
    label_ends(axes, ends)


def _recompute_panel(axes: Axes, by_strategy: dict[Any, list[Row]], depths: Sequence[int]) -> None:
    dress(
        axes, title="Recompute against depth", x="depth (layers)", y="recompute, % of forward FLOPs"
    )
    axes.set_xscale("log")
    ends = []
    for name, rows in by_strategy.items():
        _line(axes, str(name), rows, "overhead")
        ends.append(
            (rows[-1]["depth"], rows[-1]["overhead"], words(str(name)), look(str(name)).colour)
        )
    axes.set_ylim(*_room(axes.get_ylim()))
    _log_room(axes, depths)
    count_axis(axes.xaxis, depths)
    percent_axis(axes.yaxis)
    label_ends(axes, ends)


def _trade_panel(axes: Axes, rows: Sequence[Row], depth: int) -> None:
    dress(
        axes,
        title=f"Peak against recompute, depth {depth:,}",
        x="recompute, % of forward FLOPs",
        y="peak bytes",
        grid="both",
    )
    peaks = [row[PREDICTED] for row in rows] or [1]
    log = max(peaks) > 8 * max(min(peaks), 1)
    if log:
        axes.set_yscale("log", base=2)
    curve = sorted((row for row in rows if _cuts(row)), key=lambda row: _cuts(row) or 0)
    named = [row for row in rows if stem(str(row["strategy"])) not in CURVE]
    varied = [row for row in rows if row not in named]
    if len(curve) > 1:
        axes.plot(
            [row["overhead"] for row in curve],
            [row[PREDICTED] for row in curve],
            color=look("segments").colour,
            linewidth=1.6,
            zorder=2,
        )
    _points(axes, "segments", varied, "overhead")
    for row in named:
        name = str(row["strategy"])
        _points(axes, name, [row], "overhead", hollow=row.get(MEASURED) is None)
    axes.set_xlim(*_room(axes.get_xlim()))
    axes.set_ylim(*((min(peaks) * 0.7, max(peaks) * 1.3) if log else (0, max(peaks) * 1.08)))
    byte_axis(axes.yaxis, log=log, high=max(peaks))
    percent_axis(axes.xaxis)
    _number_segments(axes, [row for row in varied if _cuts(row)])
    # The curve bends back below its middle: there the labels stand on its outer side, the left.
    back = [row for row in named if len(curve) > 2 and row is curve[-1]]
    for row in back:
        _label_left(axes, row)
    label_ends(
        axes,
        [
            (
                row["overhead"],
                row[PREDICTED],
                words(str(row["strategy"])),
                look(str(row["strategy"])).colour,
            )
            for row in named
            if row not in back
        ],
    )


def _label_left(axes: Axes, row: Row) -> None:
    name = str(row["strategy"])
    axes.annotate(
        words(name),
        (row["overhead"], row[PREDICTED]),
        xytext=(-8, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=9,
        color=ink(look(name).colour),
        path_effects=halo(),
        zorder=7,
    )


def _cuts(row: Row) -> int | None:
    """Into how many segments a row's model is cut: its place on the curve, if it has one."""
    found: int | None = 1 if row["strategy"] == "store_all" else row.get("segments")
    return found


def _number_segments(axes: Axes, rows: Sequence[Row]) -> None:
    """The number of segments beside each point, on the side where the curve isn't."""
    for k, row in enumerate(sorted(rows, key=lambda row: _cuts(row) or 0)):
        axes.annotate(
            f"{_cuts(row)}{' segments' if k == 0 else ''}",
            (row["overhead"], row[PREDICTED]),
            xytext=(-6, -3),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=8.5,
            color=FAINT,
            path_effects=halo(),
            zorder=6,
        )


def _line(axes: Axes, name: str, rows: Sequence[Row], column: str) -> None:
    """A strategy over depth: its prediction as a line, and points where it was measured.

    FLOPs are counted, not timed, so what is predicted of them is also what is executed.
    """
    style = look(name)
    xs = [row["depth"] for row in rows]
    axes.plot(
        xs, [row[column] for row in rows], color=style.colour, linestyle=style.dash, linewidth=1.6
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


def _points(axes: Axes, name: str, rows: Sequence[Row], x: str, *, hollow: bool = False) -> None:
    style = look(name)
    column = PREDICTED if hollow else MEASURED
    points = [row for row in rows if row.get(column) is not None]
    axes.plot(
        [row[x] for row in points],
        [row[column] for row in points],
        linestyle="none",
        marker=style.marker,
        markersize=6.5 * style.scale,
        markerfacecolor="white" if hollow else style.colour,
        markeredgecolor=style.colour if hollow else "white",
        markeredgewidth=1.3 if hollow else 0.7,
        zorder=4,
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
