"""What stands over live bytes: their peak, a budget, another schedule's outline, measurements."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from ckpt.graph import Graph
from ckpt.reports.canvas import byte_axis
from ckpt.reports.style import BLACK, GREY, TEXT, VERMILLION, ink, words
from ckpt.reports.words import line_of
from ckpt.schedule import describe_instruction, spell
from ckpt.timeline import Timeline
from ckpt.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_COLUMNS = 1000
"""More than this can't be told apart across a figure."""

TALLEST = 4.0
"""Times as high as the figure's own curve another's outline may be, before it leaves at the top."""


def work_done(timeline: Timeline) -> Any:
    """The FLOPs done before each instruction and after the last; None if there are none."""
    done = np.concatenate([[0], np.cumsum(np.asarray(timeline.columns["flops"], dtype=float))])
    return done if done[-1] else None


def columns(high: Any, along: Any) -> tuple[Any, Any, int]:
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
    said = textwrap.wrap(what, width)
    if graph is not None and (line := line_of(instruction, graph)):
        said.append(textwrap.shorten(line, width, placeholder=" …"))
    text = f"peak {format_bytes(timeline.peak)}, instruction {position}\n" + "\n".join(said)
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
        bbox={"facecolor": "white", "alpha": 0.95, "linewidth": 0, "pad": 2},
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


def draw_outline(axes: Axes, other: Timeline, along: Any) -> None:
    """Another schedule's live bytes behind: how high, and for how long, it would go."""
    own = work_done(other) if along is not None else None
    if (own is None) != (along is None):
        return
    high = np.asarray(other.columns["high"])
    edges, shown, _ = columns(high, own)
    name = words(other.schedule.planner or "another schedule")
    name = f"{name}, up to {format_bytes(other.peak)}"
    axes.stairs(high[shown], edges, baseline=None, color=GREY, linewidth=1.1, label=name, zorder=1)
    low, top = axes.get_ylim()
    axes.set_ylim(low, max(top, min(1.06 * other.peak, TALLEST * top)))
    byte_axis(axes.yaxis, high=axes.get_ylim()[1])
    axes.set_xlim(0, max(axes.get_xlim()[1], edges[-1]))


def draw_measured(axes: Axes, measured: Timeline, along: Any) -> None:
    high = np.asarray(measured.columns["high"])
    if not len(high):
        return
    edges, shown, _ = columns(high, along)
    # Without tracemalloc a run only counts the arrays it holds, workspace aside.
    how = measured.measured.get("witness") or "arrays held"
    axes.stairs(
        high[shown],
        edges,
        baseline=None,
        color=BLACK,
        linewidth=1.1 if len(shown) < 400 else 0.8,
        label=f"measured ({how})",
        zorder=5,
    )
