"""The figure of a step's time over the same step by hand: a row a case, a mark a way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ckpt.reports.canvas import dress, halo, legend, new_figure
from ckpt.reports.style import (
    BLACK,
    BLUE,
    FAINT,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    ink,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WAYS = {
    "planned": (GREEN, "h", "ckpt, planned"),
    "eager": (VERMILLION, "s", "ckpt, eager"),
    "hand, reused buffers": (BLACK, "|", "by hand, buffers reused"),
    "torch": (ORANGE, "D", "PyTorch, eager"),
    "jax.jit": (BLUE, "^", "jax.jit, compiled"),
    "autograd": (PURPLE, "X", "HIPS autograd"),
    "planned, gelu's formula": (SKY, "h", "planned, from gelu's formula"),
}
"""The ways that are drawn: colour, marker, name. What they are compared with is the line at 1."""

DODGE = 0.08
"""Marks of a row lie so far below each other, that none hides another."""


def speed_figure(rows: Sequence[dict[str, Any]], caption: str = "") -> Figure:
    """Of rows ``case``, ``way``, ``measured`` (the first way of a case in seconds, the others over
    it) and ``threads``: a panel for each number of threads."""
    counts = sorted({row["threads"] for row in rows})
    cases = list(dict.fromkeys(row["case"] for row in rows))
    title = "A training step's time, over the same step by hand in NumPy"
    figure = new_figure(
        5.2 + 4 * len(counts), 1.6 + 0.46 * len(cases), title=title, caption=caption
    )
    sheets = figure.subplots(1, len(counts), squeeze=False, sharey=True)[0]
    for axes, count in zip(sheets, counts, strict=True):
        _draw(axes, [row for row in rows if row["threads"] == count], cases)
        axes.set_title(
            f"{count} thread{'s' * (count > 1)}, {'time' if count > 1 else 'CPU time'}",
            loc="left", fontsize=10.5,
        )  # fmt: skip
    sheets[0].set_yticks(range(len(cases)), cases)
    sheets[0].set_ylim(len(cases) - 0.5, -0.5)
    seen = {row["way"] for row in rows}
    legend(figure, _marks(seen), loc="outside right center")
    return figure


def _marks(seen: set[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], linestyle="none", color=colour, marker=marker, markersize=7, label=name)
        for way, (colour, marker, name) in WAYS.items()
        if way in seen
    ]


def _draw(axes: Axes, rows: Sequence[dict[str, Any]], cases: Sequence[str]) -> None:
    from matplotlib import ticker

    dress(axes, x="times the step by hand (of chains: micrograd's)", grid="x")
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.axvline(1, color=GREY, linewidth=1)
    firsts = {}
    for row in rows:
        firsts.setdefault(row["case"], row["way"])
    for row in rows:
        if row["way"] not in WAYS or firsts[row["case"]] == row["way"]:
            continue
        colour, marker, _ = WAYS[row["way"]]
        edge = (colour, 1.4) if marker == "|" else ("white", 0.4)
        at = cases.index(row["case"]) + DODGE * (list(WAYS).index(row["way"]) - len(WAYS) / 2)
        axes.plot(
            row["measured"], at, color=colour, marker=marker, markersize=7,
            markeredgecolor=edge[0], markeredgewidth=edge[1], zorder=3,
        )  # fmt: skip
        if row["way"] == "planned":
            axes.annotate(
                f"{row['measured']:.2f}", (row["measured"], at), (-7, 0), fontsize=8,
                textcoords="offset points", ha="right", va="center", color=ink(colour),
                path_effects=halo(),
            )  # fmt: skip
    for at, case in enumerate(cases):
        if case not in firsts:
            axes.annotate("not run", (1, at), (6, 0), textcoords="offset points", color=FAINT)
    axes.xaxis.set_major_locator(ticker.LogLocator(10, (1, 2, 5)))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
