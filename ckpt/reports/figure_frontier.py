"""Every planner on one graph: peak memory against recompute, and what is proved impossible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ckpt.reports.canvas import byte_axis, dress, legend, new_figure
from ckpt.reports.drawing import best_of, draw_best, shade_impossible, stairs
from ckpt.reports.house import house
from ckpt.reports.rows import Row, as_mappings, group
from ckpt.reports.style import BLACK, FAINT, GREY, look, words
from ckpt.units import format_bytes, format_flops

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINEAR_UP_TO = 1.5
"""Forwards of recompute up to which the axis is linear, where it goes far beyond."""


@house()
def frontier_figure(
    rows: Iterable[Any],
    bounds: Iterable[Any] = (),
    *,
    knee: Mapping[str, Any] | None = None,
    floor_nbytes: int | None = None,
    forward_flops: int | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """The best that was found as steps, over every planner and the region proved impossible.

    ``bounds`` are rows of ``budget_nbytes`` and ``bound_flops``: no schedule within that budget
    recomputes less. Below ``floor_nbytes`` there is no schedule at all. ``knee``: the row to mark.
    Recompute reads as a share of ``forward_flops`` if it is given; far beyond one forward the axis
    turns logarithmic, at a line that says so, so that planners that recompute a lot don't flatten
    the others.
    """
    from matplotlib.lines import Line2D

    table = [row for row in as_mappings(rows) if row.get("predicted_peak_nbytes") is not None]
    limits = sorted(as_mappings(bounds), key=lambda row: row["budget_nbytes"])
    figure = new_figure(
        10,
        5.8,
        title=title or "Peak memory against recompute, every planner",
        caption=caption
        or "Steps: the best that was found by any planner, predicted by simulation. Marks: each "
        "planner's plans, hollow where predicted, full where executed and measured with "
        "tracemalloc. Between the steps and the shaded region nothing is known.",
    )
    axes = figure.add_subplot()
    share = forward_flops or 1
    dress(
        axes,
        x="recompute, share of a forward" if forward_flops else "recompute FLOPs of one step",
        y="peak memory",
        grid="",
    )
    found = [(row["recompute_flops"] / share, row["predicted_peak_nbytes"]) for row in table]
    best = best_of(found)
    costs = [x for x, _ in found] + [row["bound_flops"] / share for row in limits]
    top = max((y for _, y in found), default=1)
    _scales(axes, max([*costs, 0.01]), top, forward_flops is not None)
    shade_impossible(
        axes,
        [(row["budget_nbytes"], row["bound_flops"] / share) for row in limits],
        floor_nbytes or 0,
    )
    handles = [
        _planner(axes, str(name), members, share)
        for name, members in group(table, "planner").items()
    ]
    if best:
        draw_best(axes, best, BLACK)
        handles.insert(0, Line2D([], [], color=BLACK, linewidth=2.2, label="best found"))
    if knee is not None:
        handles.append(_mark_knee(axes, knee, share, forward_flops is not None))
    legend(figure, handles, loc="outside right upper")
    return figure


def _scales(axes: Axes, cost: float, top: float, is_share: bool) -> None:
    from matplotlib import ticker

    turns = is_share and cost > 3
    if turns:
        axes.set_xscale("symlog", linthresh=LINEAR_UP_TO, linscale=2.0)
        axes.set_xlim(-0.03, cost * 1.3)
        ticks = [t for t in (0, 0.25, 0.5, 0.75, 1, 1.5, 3, 10, 30, 100, 300, 1000) if t <= cost]
        axes.xaxis.set_major_locator(ticker.FixedLocator(ticks))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.axvline(LINEAR_UP_TO, color=GREY, linewidth=0.8, dashes=(2, 3), zorder=1)
        for text, side, shift in (("linear", "right", -5), ("logarithmic", "left", 5)):
            axes.annotate(
                text,
                (LINEAR_UP_TO, 1),
                xycoords=axes.get_xaxis_transform(),
                xytext=(shift, 1),
                textcoords="offset points",
                ha=side,
                va="bottom",
                fontsize=8.5,
                color=FAINT,
            )
    else:
        axes.set_xlim(-0.03 * cost, cost * 1.06)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(7))
    axes.set_ylim(0, top * 1.08)
    byte_axis(axes.yaxis, high=top)

    def read(value: float, _: object) -> str:
        return f"{value:,.0%}" if is_share else format_flops(value)

    axes.xaxis.set_major_formatter(ticker.FuncFormatter(read))


def _planner(axes: Axes, name: str, rows: Sequence[Row], share: float) -> Any:
    """One planner's plans as marks on thin steps; returns the key for the legend."""
    from matplotlib.lines import Line2D

    style = look(name)
    thin = style.marker == "1"  # a mark without an inside
    own = best_of((row["recompute_flops"] / share, row["predicted_peak_nbytes"]) for row in rows)
    axes.plot(
        *zip(*stairs(own, own[-1][0]), strict=True),
        color=style.colour,
        linestyle=style.dash,
        linewidth=0.8,
        alpha=0.7,
        zorder=2,
    )
    key: dict[str, Any] = {
        "linestyle": "none",
        "marker": style.marker,
        "markersize": 6 * style.scale,
        "markeredgewidth": 1.5 if thin else 0.9,
    }
    for measured in (False, True):
        column = "measured_peak_nbytes" if measured else "predicted_peak_nbytes"
        shown = [row for row in rows if (row.get("measured_peak_nbytes") is not None) == measured]
        axes.plot(
            [row["recompute_flops"] / share for row in shown],
            [row[column] for row in shown],
            markerfacecolor=style.colour if measured else "white",
            markeredgecolor=style.colour if thin or not measured else "white",
            zorder=6 if measured else 5,
            **key,
        )
    colours: dict[str, Any] = {"markerfacecolor": style.colour, "markeredgecolor": style.colour}
    return Line2D([], [], **key, **colours, label=words(name))


def _mark_knee(axes: Axes, knee: Mapping[str, Any], share: float, is_share: bool) -> Any:
    """A ring around the knee; returns the key that says what it is."""
    from matplotlib.lines import Line2D

    x, y = knee["recompute_flops"] / share, knee["predicted_peak_nbytes"]
    ring: dict[str, Any] = {"linestyle": "none", "marker": "o", "mfc": "none", "mec": BLACK}
    axes.plot([x], [y], **ring, ms=15, mew=1.2, zorder=7)
    cost = f"{100 * x:.1f} %" if is_share else format_flops(x)
    return Line2D([], [], **ring, ms=9, label=f"knee: {format_bytes(y)}\nfor {cost}")
