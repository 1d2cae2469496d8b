"""Live bytes by kind over a step's instructions, measured over simulated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ckpt.graph import Graph
from ckpt.reports.canvas import byte_axis, dress, legend, new_figure
from ckpt.reports.figure_marks import (
    columns,
    draw_budget,
    draw_measured,
    draw_outline,
    mark_peak,
    work_done,
)
from ckpt.reports.house import house
from ckpt.reports.style import KIND_COLOURS, PHASE_COLOURS
from ckpt.timeline import BACKWARD, FORWARD, FREE, RECOMPUTE, Timeline
from ckpt.units import format_bytes, format_flops

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STACKED = ("captured", "states", "activations", "cotangents")


@house()
def timeline_figure(
    simulated: Timeline,
    measured: Timeline | None = None,
    *,
    graph: Graph | None = None,
    against: Timeline | None = None,
    title: str = "Live bytes over one step",
    caption: str = "",
) -> Figure:
    """Live bytes by kind (simulated, stacked) over the FLOPs done, with what was measured on them.

    ``graph`` puts the instruction at the peak into words. ``measured`` is the Timeline of an
    execution of the same schedule, whose ``high`` is what was seen; ``against`` another schedule
    of the graph, as store-all's, whose outline is drawn behind.
    """
    figure = new_figure(
        10, 5, title=title, caption=f"{caption} {summary(simulated, measured)}".strip()
    )
    axes = figure.add_subplot()
    along = work_done(simulated)
    draw_live(axes, simulated, ribbon=0.02, along=along)
    if measured is not None:
        draw_measured(axes, measured, along)
    mark_peak(axes, simulated, graph, along=along)
    if against is not None and len(against):
        draw_outline(axes, against, along)
    draw_budget(axes, simulated)
    kind_legend(axes)
    return figure


def kind_legend(axes: Axes) -> None:
    """The kinds of bytes in a row above the axes; the phases have theirs below, by their ribbon."""
    handles, labels = axes.get_legend_handles_labels()
    handles = [h for h, label in zip(handles, labels, strict=True) if label not in PHASE_COLOURS]
    legend(axes, handles, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=6)


def summary(simulated: Timeline, measured: Timeline | None = None) -> str:
    """The peaks in words: predicted, measured, and whole."""
    text = f"Predicted peak {format_bytes(simulated.peak)}"
    if measured is not None:
        ratio = f" ({measured.peak / simulated.peak - 1:+.2%})" if simulated.peak else ""
        text += f", measured {format_bytes(measured.peak)}{ratio}"
    return (
        f"{text}. Beside it, constant: inputs and parameters {format_bytes(simulated.resident)}, "
        f"parameter gradients {format_bytes(simulated.gradients_beside)}; "
        f"the whole peak is {format_bytes(simulated.whole_peak)}. "
        + (
            f"Recompute is {simulated.overhead:.1%} of forward FLOPs."
            if simulated.recompute_flops
            else "Nothing is recomputed."
        )
    )


def draw_live(axes: Axes, timeline: Timeline, *, ribbon: float, along: Any = None) -> None:
    """Kinds stacked over the ground of the phases; limits, labels, ticks and legends set.

    ``ribbon`` is the height of the band of phases, as a share of the axes'. ``along``: where each
    instruction begins and the last one ends, by `work_done`; by default they are counted. More
    instructions than a figure can tell apart share a column, drawn as at the highest of them.
    """
    n = len(timeline)
    dress(axes, x="instruction", y="bytes live")
    grounds = _draw_phases(axes, timeline, ribbon, along)
    if n:
        high = np.asarray(timeline.columns["high"])
        edges, shown, stride = columns(high, along)
        below = np.zeros(len(shown))
        # What only the instruction needs is its workspace, and the cotangent that it consumes.
        tops = {kind: np.asarray(timeline.columns[kind])[shown] for kind in STACKED}
        stack = np.cumsum(list(tops.values()), axis=0)
        layers = [*zip(STACKED, STACKED, stack, strict=True)]
        layers.append(("workspace", "only while an instruction runs", high[shown]))
        for kind, name, top in layers:
            if (top > below).any():
                axes.stairs(
                    top,
                    edges,
                    baseline=below,
                    fill=True,
                    color=KIND_COLOURS[kind],
                    linewidth=0,
                    label=name,
                    zorder=2,
                )
            below = top
        if along is not None:
            _flop_axis(axes)
        elif stride > 1:
            axes.set_xlabel(f"instruction (each column is the highest of {stride})")
    axes.set_xlim(0, max(n, 1) if along is None else along[-1])
    axes.set_ylim(0, max(timeline.peak, 1) * 1.06)
    axes.tick_params(axis="x", pad=7)
    byte_axis(axes.yaxis, high=max(timeline.peak, 1))
    if grounds:
        key = axes.legend(
            handles=grounds,
            loc="upper right",
            bbox_to_anchor=(1.008, -3.2 * ribbon),
            ncols=3,
            frameon=False,
            fontsize=9,
            handlelength=1.2,
            columnspacing=1.2,
        )
        axes.add_artist(key)


def _flop_axis(axes: Axes) -> None:
    from matplotlib import ticker

    axes.set_xlabel("FLOPs done", loc="left")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(7))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda flops, _: format_flops(flops)))


def _draw_phases(axes: Axes, timeline: Timeline, ribbon: float, along: Any) -> list[Any]:
    """The ground of each phase over the height of the axes, and a ribbon along the bottom."""
    phases = settled_phases(timeline)
    starts = np.flatnonzero(np.diff(phases, prepend=-1))
    widths = np.diff(starts, append=len(phases))
    ribbons = []
    for phase, name in ((FORWARD, "forward"), (RECOMPUTE, "recompute"), (BACKWARD, "backward")):
        runs = [
            (int(start), int(width))
            if along is None
            else (along[start], along[start + width] - along[start])
            for start, width in zip(starts, widths, strict=True)
            if phases[start] == phase
        ]
        if not runs:
            continue
        common: dict[str, Any] = {
            "linewidth": 0,
            "color": PHASE_COLOURS[name],
            "transform": axes.get_xaxis_transform(),
            "rasterized": len(runs) > 1000,
        }
        axes.broken_barh(runs, (0, 1), alpha=0.13, zorder=0, **common)
        band = axes.broken_barh(runs, (-1.2 * ribbon, ribbon), clip_on=False, zorder=3, **common)
        band.set_label(name)
        ribbons.append(band)
    return ribbons


def settled_phases(timeline: Timeline) -> Any:
    """The phase of each instruction as an array; a Free belongs to the phase that it follows."""
    phases = np.asarray(timeline.columns["phase"], dtype=int)
    acting = np.where(phases == FREE, -1, np.arange(len(phases)))
    last = np.maximum.accumulate(acting) if len(phases) else acting
    return np.where(last >= 0, phases[last], FORWARD)
