"""Live bytes by kind over a step's instructions, measured over simulated."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from ckpt.graph import Graph
from ckpt.reports.canvas import byte_axis, dress, legend, new_figure
from ckpt.reports.house import house
from ckpt.reports.style import (
    BLACK,
    GREY,
    KIND_COLOURS,
    PHASE_COLOURS,
    TEXT,
    VERMILLION,
    ink,
    words,
)
from ckpt.schedule import describe_instruction, spell
from ckpt.timeline import BACKWARD, FORWARD, FREE, RECOMPUTE, Timeline
from ckpt.units import format_bytes, format_flops

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STACKED = ("captured", "states", "activations", "cotangents")
_MOST_COLUMNS = 1000
"""More than this can't be told apart across a figure."""


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
        _draw_measured(axes, measured, along)
    mark_peak(axes, simulated, graph, along=along)
    if against is not None and len(against):
        _draw_outline(axes, against, along)
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


def work_done(timeline: Timeline) -> Any:
    """The FLOPs done before each instruction and after the last; None if there are none."""
    done = np.concatenate([[0], np.cumsum(np.asarray(timeline.columns["flops"], dtype=float))])
    return done if done[-1] else None


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
        edges, columns, stride = _columns(high, along)
        below = np.zeros(len(columns))
        # What only the instruction needs is its workspace, and the cotangent that it consumes.
        tops = {kind: np.asarray(timeline.columns[kind])[columns] for kind in STACKED}
        stack = np.cumsum(list(tops.values()), axis=0)
        layers = [*zip(STACKED, STACKED, stack, strict=True)]
        layers.append(("workspace", "only while an instruction runs", high[columns]))
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


def _columns(high: Any, along: Any) -> tuple[Any, Any, int]:
    """Columns to draw, see `_thin`; over FLOPs of one width, so that what takes none is seen."""
    if along is None:
        return _thin(high)
    edges = np.linspace(0, along[-1], _MOST_COLUMNS + 1)
    first = np.minimum((along[:-1] / along[-1] * _MOST_COLUMNS).astype(int), _MOST_COLUMNS - 1)
    last = np.maximum(np.ceil(along[1:] / along[-1] * _MOST_COLUMNS).astype(int), first + 1)
    shown = np.zeros(_MOST_COLUMNS, dtype=int)
    for i in np.argsort(high, kind="stable"):
        shown[first[i] : last[i]] = i
    return edges, shown, 1


def _thin(high: Any) -> tuple[Any, Any, int]:
    """Columns to draw: their edges, which instruction each shows, how many it stands for."""
    n = len(high)
    stride = -(-n // _MOST_COLUMNS)
    starts = np.arange(0, n, stride)
    padded = np.full(len(starts) * stride, -1, dtype=high.dtype)
    padded[:n] = high
    return np.append(starts, n), starts + padded.reshape(-1, stride).argmax(axis=1), stride


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


def mark_peak(
    axes: Axes,
    timeline: Timeline,
    graph: Graph | None = None,
    *,
    width: int = 58,
    along: Any = None,
) -> None:
    """A ring at the peak, and above it what it is and which instruction sets it."""
    if not len(timeline):
        return
    position = timeline.peak_position
    instant = timeline[position]
    instruction = instant.instruction
    what = spell(instruction) if graph is None else describe_instruction(instruction, graph)
    if instant.phase == "recompute":
        what = f"re{what}"
    text = f"peak {format_bytes(timeline.peak)}, instruction {position}\n" + "\n".join(
        textwrap.wrap(what, width)
    )
    end = len(timeline) if along is None else along[-1]
    at = position + 0.5 if along is None else (along[position] + along[position + 1]) / 2
    axes.plot(
        [at], [timeline.peak], "o", ms=6, mfc="white", mec=BLACK, mew=1.3, zorder=6, clip_on=False
    )
    lines = text.count("\n") + 1
    axes.set_ylim(0, timeline.peak * (1.1 + 0.065 * lines))
    to_right = at < end / 2
    axes.annotate(
        text,
        (at, timeline.peak),
        xytext=(10 if to_right else -10, 8),
        textcoords="offset points",
        ha="left" if to_right else "right",
        va="bottom",
        fontsize=9,
        color=TEXT,
        bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 2},
        zorder=6,
    )


def draw_budget(axes: Axes, timeline: Timeline) -> None:
    """A line at the schedule's budget, if it has one that bounds anything here."""
    budget = timeline.schedule.budget
    if budget is None or budget > 1.5 * max(timeline.peak, 1):
        return
    low, high = axes.get_ylim()
    axes.set_ylim(low, max(high, 1.12 * budget))
    axes.axhline(budget, color=VERMILLION, linewidth=1.1, dashes=(6, 2), zorder=5)
    axes.annotate(
        f"budget {format_bytes(budget)}",
        (1, budget),
        xycoords=axes.get_yaxis_transform(),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
        color=ink(VERMILLION),
        annotation_clip=False,
    )


def _draw_outline(axes: Axes, other: Timeline, along: Any) -> None:
    """Another schedule's live bytes behind: how high, and for how long, it would go."""
    own = work_done(other) if along is not None else None
    if (own is None) != (along is None):
        return
    high = np.asarray(other.columns["high"])
    edges, columns, _ = _columns(high, own)
    name = words(other.schedule.planner or "another schedule")
    axes.stairs(
        high[columns], edges, baseline=None, color=GREY, linewidth=1.1, label=name, zorder=1
    )
    low, top = axes.get_ylim()
    axes.set_ylim(low, max(top, 1.06 * other.peak))
    byte_axis(axes.yaxis, high=axes.get_ylim()[1])
    axes.set_xlim(0, max(axes.get_xlim()[1], edges[-1]))


def _draw_measured(axes: Axes, measured: Timeline, along: Any) -> None:
    high = np.asarray(measured.columns["high"])
    if not len(high):
        return
    edges, columns, _ = _columns(high, along)
    # Without tracemalloc a run only counts the arrays it holds, workspace aside.
    how = measured.measured.get("witness") or "arrays held"
    axes.stairs(
        high[columns],
        edges,
        baseline=None,
        color=BLACK,
        linewidth=1.1 if len(columns) < 400 else 0.8,
        label=f"measured ({how})",
        zorder=5,
    )
