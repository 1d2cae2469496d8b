"""Every planner on one graph: peak memory against recompute, and what is proved impossible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ckpt.reports.canvas import byte_axis, dress, halo, house, legend, new_figure
from ckpt.reports.rows import Row, as_mappings, group
from ckpt.reports.style import BLACK, FAINT, TEXT, look, words
from ckpt.units import format_bytes, format_flops

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMPOSSIBLE = "#EAEAEA"


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
    """Predicted lines and executed points of every planner, over the region proved impossible.

    ``bounds`` are rows of ``budget_nbytes`` and ``bound_flops``: no schedule within that budget
    recomputes less. Below ``floor_nbytes`` there is no schedule at all. ``knee``: the row to mark.
    Recompute FLOPs also read as a share of ``forward_flops`` if it is given; far beyond one forward
    the axis turns logarithmic, so that planners that recompute a lot don't flatten the others.
    """
    table = [row for row in as_mappings(rows) if row.get("predicted_peak_nbytes") is not None]
    limits = sorted(as_mappings(bounds), key=lambda row: row["budget_nbytes"])
    figure = new_figure(
        10,
        5.8,
        title=title or "Peak memory against recompute, every planner",
        caption=caption
        or "Lines: predicted by simulation. Points: executed, measured with tracemalloc. "
        "Shaded: no schedule can be there (proved by the lower bounds).",
    )
    axes = figure.add_subplot()
    dress(axes, x="recompute FLOPs of one step", y="peak bytes", grid="both")
    costs = [row["recompute_flops"] for row in table] + [row["bound_flops"] for row in limits]
    top = max((row["predicted_peak_nbytes"] for row in table), default=1)
    _scales(axes, max([*costs, 1]), top, forward_flops)
    _shade(axes, limits, floor_nbytes)
    handles = [
        _planner(axes, str(name), members) for name, members in group(table, "planner").items()
    ]
    if knee is not None:
        _mark_knee(axes, knee, forward_flops)
    legend(figure, handles, loc="outside right upper", title="planner", alignment="left")
    return figure


def _scales(axes: Axes, cost: float, top: float, forward_flops: int | None) -> None:
    from matplotlib import ticker

    if forward_flops and cost > 3 * forward_flops:
        axes.set_xscale("symlog", linthresh=forward_flops, linscale=2.0)
        axes.set_xlim(-0.03 * forward_flops, cost * 1.5)
        powers = [
            forward_flops * factor for factor in (0, 0.25, 0.5, 0.75, 1, 3, 10, 30, 100, 300, 1000)
        ]
        axes.xaxis.set_major_locator(ticker.FixedLocator([p for p in powers if p <= cost * 1.5]))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
    else:
        axes.set_xlim(-0.03 * cost, cost * 1.06)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(7))
    axes.set_ylim(0, top * 1.08)
    byte_axis(axes.yaxis, high=top)

    def read(flops: float, _: object) -> str:
        if not forward_flops:
            return format_flops(flops)
        return f"{format_flops(flops)}\n{flops / forward_flops:,.0%}"

    axes.xaxis.set_major_formatter(ticker.FuncFormatter(read))
    if forward_flops:
        axes.set_xlabel(axes.get_xlabel() + ", and as a share of the forward's")


def _shade(axes: Axes, limits: Sequence[Row], floor_nbytes: int | None) -> None:
    """Stairs: a bound proved for one budget holds for every smaller one, and for no larger."""
    low, high = axes.get_xlim()
    floor = floor_nbytes or 0
    if floor:
        axes.fill_between([low, high], 0, floor, color=IMPOSSIBLE, linewidth=0, zorder=0)
        axes.text(
            0.99, floor, f"no schedule below {format_bytes(floor)}", ha="right", va="bottom",
            fontsize=8.5, color=FAINT, path_effects=halo(), transform=axes.get_yaxis_transform(),
        )  # fmt: skip
    below = float(floor)
    edge: list[tuple[float, float]] = [(high, below)] if floor else []
    for row in limits:
        budget, bound = row["budget_nbytes"], row["bound_flops"]
        if budget <= below or bound <= 0:
            continue
        axes.fill_between([low, bound], below, budget, color=IMPOSSIBLE, linewidth=0, zorder=0)
        edge += [(bound, below), (bound, budget)]
        below = budget
    if edge:
        axes.plot(*zip(*edge, strict=True), color=FAINT, linewidth=0.8, zorder=1)
        x, y = edge[len(edge) // 2]
        axes.annotate(
            "impossible", (x, y), xytext=(-8, -6), textcoords="offset points", ha="right", va="top",
            fontsize=9, style="italic", color=FAINT,
        )  # fmt: skip


def _planner(axes: Axes, name: str, rows: Sequence[Row]) -> Any:
    """One planner's line and points; returns the key for the legend."""
    from matplotlib.lines import Line2D

    style = look(name)
    ordered = sorted(rows, key=lambda row: (-row["predicted_peak_nbytes"], row["recompute_flops"]))
    axes.plot(
        [row["recompute_flops"] for row in ordered],
        [row["predicted_peak_nbytes"] for row in ordered],
        color=style.colour,
        linestyle=style.dash,
        linewidth=1.4,
        zorder=3,
    )
    executed = [row for row in ordered if row.get("measured_peak_nbytes") is not None]
    key: dict[str, Any] = {
        "linestyle": style.dash,
        "marker": style.marker,
        "markersize": 6.5 * style.scale,
        "color": style.colour,
        "markeredgecolor": style.colour if style.marker == "1" else "white",
        "markeredgewidth": 1.5 if style.marker == "1" else 0.6,
    }
    axes.plot(
        [row["recompute_flops"] for row in executed],
        [row["measured_peak_nbytes"] for row in executed],
        zorder=4,
        **{**key, "linestyle": "none"},
    )
    if not executed:
        key["marker"] = "none"
    return Line2D([], [], **key, linewidth=1.4, label=words(name))


def _mark_knee(axes: Axes, knee: Mapping[str, Any], forward_flops: int | None) -> None:
    x, y = knee["recompute_flops"], knee["predicted_peak_nbytes"]
    axes.plot([x], [y], "o", ms=15, mfc="none", mec=BLACK, mew=1.2, zorder=5)
    cost = f"{x / forward_flops:.0%} of a forward" if forward_flops else format_flops(x)
    axes.annotate(
        f"knee: {words(str(knee['planner']))}, {format_bytes(y)}\nfor {cost} in recompute",
        (x, y),
        xytext=(26, 34),
        textcoords="offset points",
        fontsize=9,
        color=TEXT,
        path_effects=halo(),
        arrowprops={"arrowstyle": "-", "color": BLACK, "linewidth": 0.8, "shrinkB": 9},
        zorder=6,
    )
