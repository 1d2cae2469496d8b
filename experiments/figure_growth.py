"""An experiment's figure: how quantities grow, what theory says, and what a paper printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ckpt.reports.canvas import (
    byte_axis,
    count_axis,
    dress,
    guide,
    label_ends,
    legend,
    new_figure,
    percent_axis,
)
from ckpt.reports.drawing import Label, place
from ckpt.reports.style import BLACK, FAINT, look, words
from ckpt.units import format_flops, format_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Unit = Literal["count", "nbytes", "flops", "seconds", "ratio", ""]


@dataclass(frozen=True)
class Series:
    """One line or set of points; ``name`` decides its look, ``role`` what it is.

    ``theory`` is a line, ``found`` points joined by a thin line, ``paper`` hollow points.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    role: Literal["theory", "found", "paper"] = "found"
    label: str = ""
    """What is written, if not the name."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes: its series, labels, units, scales, and guides of growth.

    ``guides`` maps a kind (n, sqrt n, log n, n^2) to the point that its line goes through.
    ``plans``: points are plans, recompute to the right and memory up. They are joined by steps, for
    a straight line would run through what nobody found, and named where they begin.
    """

    series: Sequence[Series]
    title: str = ""
    x_label: str = "n"
    y_label: str = ""
    x_unit: Unit = "count"
    y_unit: Unit = "count"
    log_x: bool = True
    log_y: bool = True
    guides: dict[str, tuple[float, float]] = field(default_factory=dict)
    plans: bool = False


def growth_figure(panels: Panel | Sequence[Panel], *, title: str = "", caption: str = "") -> Figure:
    """Panels side by side; a series is named at its end, roles in a legend if there are several."""
    sheets = [panels] if isinstance(panels, Panel) else list(panels)
    figure = new_figure(1.6 + 4.6 * len(sheets), 4.8, title=title, caption=caption)
    for axes, panel in zip(figure.subplots(1, len(sheets), squeeze=False)[0], sheets, strict=True):
        _draw(axes, panel)
    return figure


def _draw(axes: Axes, panel: Panel) -> None:
    dress(axes, title=panel.title, x=panel.x_label, y=panel.y_label, grid="both")
    if panel.log_x:
        axes.set_xscale("log", base=2 if panel.x_unit == "nbytes" else 10)
    if panel.log_y:
        axes.set_yscale("log", base=2 if panel.y_unit == "nbytes" else 10)
    for series in panel.series:
        _plot(axes, series, panel.plans)
    xs = [x for series in panel.series for x in series.x]
    ys = [y for series in panel.series for y in series.y]
    guides = []
    for kind, through in panel.guides.items():
        guides.append(guide(axes, kind, xs, through))
    if panel.log_y and ys and min(ys) > 0:
        room = max((max(ys) / min(ys)) ** 0.08, 1.2)
        axes.set_ylim(min(ys) / room, max(ys) * room)  # a guide may leave the frame; data may not
    elif ys and min(ys) >= 0:
        axes.set_ylim(0, max(ys) * 1.08 or 1)
    _unit_axis(axes.xaxis, panel.x_unit, panel.log_x, xs)
    _unit_axis(axes.yaxis, panel.y_unit, panel.log_y, ys)
    if panel.plans:
        firsts = {words(s.name) if not s.label else s.label: s for s in panel.series[::-1] if s.x}
        place(axes, [Label(s.x[0], s.y[0], n, look(s.name).colour) for n, s in firsts.items()])
    else:
        _label_lines(axes, panel.series, guides)
    _legend_of_roles(axes, panel.series)


def _plot(axes: Axes, series: Series, steps: bool) -> None:
    style = look(series.name)
    looks: dict[str, dict[str, Any]] = {
        "theory": {"linestyle": style.dash, "linewidth": 1.5},
        "found": {
            "linestyle": style.dash,
            "linewidth": 0.7,
            "marker": style.marker,
            "markersize": 6 * style.scale,
            "markeredgecolor": "white",
            "markeredgewidth": 0.6,
        },
        "paper": {
            "linestyle": "none",
            "marker": style.marker,
            "markersize": 10 * style.scale,
            "markerfacecolor": "none",
            "markeredgewidth": 1.2,
        },
    }
    order = {"theory": 2, "found": 3, "paper": 4}[series.role]
    drawn = {"drawstyle": "steps-post"} if steps else {}
    axes.plot(series.x, series.y, color=style.colour, zorder=order, **drawn, **looks[series.role])


def _label_lines(
    axes: Axes, series: Sequence[Series], guides: Sequence[tuple[float, float, str, str]]
) -> None:
    """Each name once, at its line's end."""
    ends = {
        one.label or words(one.name): (one.x[-1], one.y[-1], look(one.name).colour)
        for one in series
        if len(one.x) and one.role != "paper"
    }
    label_ends(axes, [*((x, y, name, colour) for name, (x, y, colour) in ends.items()), *guides])


def _legend_of_roles(axes: Axes, series: Sequence[Series]) -> None:
    """If there is more than one role, what each role looks like."""
    from matplotlib.lines import Line2D

    roles = dict.fromkeys(one.role for one in series)
    if len(roles) > 1:
        looks: dict[str, tuple[str, dict[str, Any]]] = {
            "theory": ("theory", {"linewidth": 1.5}),
            "found": ("found here", {"linestyle": "none", "marker": "o", "markersize": 6}),
            "paper": (
                "printed in the paper",
                {"linestyle": "none", "marker": "o", "markersize": 9, "markerfacecolor": "none"},
            ),
        }
        handles = [
            Line2D(
                [],
                [],
                color=FAINT if role != "paper" else BLACK,
                label=looks[role][0],
                **looks[role][1],
            )
            for role in roles
        ]
        legend(axes, handles, loc="best", fontsize=8.5)


def _unit_axis(axis: Any, unit: Unit, log: bool, values: Sequence[float]) -> None:
    from matplotlib import ticker

    if unit == "nbytes":
        byte_axis(axis, log=log, high=max(values, default=1))
    elif unit == "ratio":
        percent_axis(axis)
    elif unit == "flops":
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: format_flops(value)))
    elif unit == "seconds":
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: format_seconds(value)))
    elif log:
        count_axis(axis, values)
    if log:
        axis.set_minor_locator(ticker.NullLocator())
