"""A schedule's own picture: when each node's value is there, and what that holds in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpt.graph import Graph
from ckpt.reports.canvas import dress, legend, new_figure
from ckpt.reports.figure_marks import draw_budget, draw_outline, mark_peak
from ckpt.reports.figure_timeline import draw_live, kind_legend, summary
from ckpt.reports.house import house
from ckpt.reports.style import BLACK, BLUE, GREY, VERMILLION
from ckpt.text import printable
from ckpt.timeline import KINDS, Timeline
from ckpt.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEPT, AGAIN, GONE, READ = BLUE, VERMILLION, "#D5D5D5", BLACK
_MOST_LABELS = 36
_RASTER_FROM = 3000
"""With more instructions than this the bars (never axes or text) are drawn as pixels."""


class Bar(NamedTuple):
    """A node's buffer is live from instruction ``start`` until ``stop``, as its ``turn``-th."""

    node: int
    start: int
    stop: int
    turn: int


@house()
def schedule_figure(
    graph: Graph,
    timeline: Timeline,
    *,
    against: Timeline | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Instructions across, nodes up, live bytes below on the same axis.

    A node's row is blue while its first buffer is there, pale while it is gone, vermillion while a
    recomputed one is there, and black at the step of the backward that takes its cotangent. Nodes
    are named where there is room. ``against`` is another schedule of the graph, as store-all's,
    whose bytes are drawn as an outline behind.
    """
    found = bars(timeline)
    marks = [
        (step.at, position)
        for step, position in zip(graph.steps, timeline.backwards, strict=True)
        if step.at is not None
    ]
    nodes = sorted({bar.node for bar in found} | {node for node, _ in marks})
    name = timeline.schedule.planner or "the schedule"
    budget = timeline.schedule.budget
    within = f" within {format_bytes(budget)}" if budget is not None else ""
    figure = new_figure(
        11,
        7.4,
        title=title
        or f"{graph.name or 'The program'}: what {name} keeps, frees and recomputes{within}",
        caption=f"{caption} {summary(timeline)}".strip(),
    )
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.9, 1])
    rows = {node: row for row, node in enumerate(nodes)}
    _draw_nodes(above, len(timeline), found, marks, rows)
    _name_rows(above, nodes, graph)
    draw_live(below, timeline, ribbon=0.05)
    mark_peak(below, timeline, graph, width=80)
    if against is not None and len(against):
        draw_outline(below, against, None)
    draw_budget(below, timeline)
    kind_legend(below)
    return figure


def bars(timeline: Timeline) -> list[Bar]:
    """The buffers of the forward, by node."""
    turns: dict[int, int] = {}
    found = []
    for buffer in timeline.buffers:
        if buffer.kind in KINDS[:2] and buffer.whose is not None:
            turns[buffer.whose] = turn = turns.get(buffer.whose, 0) + 1
            found.append(Bar(buffer.whose, buffer.born, buffer.died, turn))
    return found


def _draw_nodes(
    axes: Axes,
    n: int,
    found: Sequence[Bar],
    marks: Sequence[tuple[int, int]],
    row: dict[int, int],
) -> None:
    from matplotlib.collections import LineCollection

    points = 330 / max(len(row), 1)  # the height of a row on paper
    least = n / 700  # about a pixel: nothing that happens may vanish
    thick = min(max(0.62 * points, 0.9), 15)

    def draw(pieces: list[tuple[int, float, float]], colour: str, width: float) -> None:
        segments = [
            [(start, row[i]), (max(stop, start + least), row[i])] for i, start, stop in pieces
        ]
        axes.add_collection(
            LineCollection(
                segments,
                colors=colour,
                linewidths=width,
                capstyle="butt",
                rasterized=n > _RASTER_FROM,
                zorder=2,
            )
        )

    # A row is pale while its value is gone and will be wanted again.
    first_stop = {s.node: s.stop for s in found if s.turn == 1}
    last_start = {s.node: s.start for s in sorted(found, key=lambda s: s.start) if s.turn > 1}
    gone: list[tuple[int, float, float]] = [
        (i, first_stop[i], start) for i, start in last_start.items() if i in first_stop
    ]
    draw(gone, GONE, max(0.25 * thick, 0.5))
    draw([(s.node, s.start, s.stop) for s in found if s.turn == 1], KEPT, thick)
    draw([(s.node, s.start, s.stop) for s in found if s.turn > 1], AGAIN, thick)
    draw([(i, p, p + 1) for i, p in marks], READ, thick)
    dress(axes, y="node", grid="")
    axes.set_xlim(0, max(n, 1))
    axes.set_ylim(-0.8, len(row) - 0.2)
    axes.tick_params(labelbottom=False)
    legend(axes, _keys(), loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=4)


def _keys() -> list[Any]:
    from matplotlib.lines import Line2D

    looks = (
        ("kept since the forward", KEPT, 6),
        ("freed, to be recomputed", GONE, 2),
        ("recomputed", AGAIN, 6),
        ("backward", READ, 6),
    )
    return [
        Line2D([], [], color=colour, linewidth=width, label=name, solid_capstyle="butt")
        for name, colour, width in looks
    ]


def _name_rows(axes: Axes, nodes: Sequence[int], graph: Graph) -> None:
    """Each row's name where they fit; else a few positions."""
    fit = len(nodes) <= _MOST_LABELS
    last = max(nodes, default=0)
    step = 1 if fit else next(n for n in (10, 20, 50, 10 ** len(f"{last}")) if 9 * n > last)
    rows = [row for row, node in enumerate(nodes) if node % step == 0]
    names = [printable(graph[nodes[row]].name, 40) if fit else str(nodes[row]) for row in rows]
    axes.set_yticks(list(rows), names, fontsize=8 if len(names) > 14 else 9, color=GREY)
