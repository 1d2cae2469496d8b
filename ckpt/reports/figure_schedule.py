"""A schedule's own picture: when each node's value is there, and what that holds in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ckpt.reports.canvas import dress, legend, new_figure
from ckpt.reports.figure_timeline import draw_live, kind_legend, summary
from ckpt.reports.style import BLACK, BLUE, GREY, VERMILLION
from ckpt.schedule import Backward, Compute, Schedule
from ckpt.timeline import Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEPT, AGAIN, GONE, READ = BLUE, VERMILLION, "#D5D5D5", BLACK
_MOST_LABELS = 36
_RASTER_FROM = 3000
"""With more instructions than this the bars (never axes or text) are drawn as pixels."""


class Span(NamedTuple):
    """A node's value is live from instruction ``start`` until ``stop``, as computed ``turn``-th."""

    node: int
    start: int
    stop: int
    turn: int


def schedule_figure(
    timeline: Timeline,
    label: Callable[[int], str] | None = None,
    *,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Instructions across, nodes up, live bytes below on the same axis.

    A node's row is blue while its first value is kept, pale while it is freed, vermillion while a
    recomputed one is live, and black at its Backward. ``label`` names a node where there is room.
    """
    schedule = timeline.schedule
    spans = live_spans(schedule)
    nodes = sorted({step.node for step in schedule})
    name = schedule.planner or "the schedule"
    figure = new_figure(
        11,
        7.4,
        title=title or f"What {name} keeps, frees and recomputes",
        caption=" ".join([caption, summary(timeline)]),
    )
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 1])
    _draw_nodes(above, schedule, spans, {node: row for row, node in enumerate(nodes)})
    _name_rows(above, nodes, label)
    draw_live(below, timeline, ribbon=0.05)
    kind_legend(below)
    return figure


def live_spans(schedule: Schedule) -> list[Span]:
    """For each Compute, until when its value is live (at the end of the schedule at the latest)."""
    began: dict[int, int] = {}
    turns: dict[int, int] = {}
    spans = []
    for position, step in enumerate(schedule):
        if isinstance(step, Compute):
            began[step.node] = position
            turns[step.node] = turns.get(step.node, 0) + 1
        elif not isinstance(step, Backward):
            spans.append(Span(step.node, began.pop(step.node), position, turns[step.node]))
    end = len(schedule)
    return spans + [Span(node, start, end, turns[node]) for node, start in began.items()]


def _draw_nodes(axes: Axes, schedule: Schedule, spans: Sequence[Span], row: dict[int, int]) -> None:
    from matplotlib.collections import LineCollection

    n = len(schedule)
    points = 330 / max(len(row), 1)  # the height of a row on paper
    least = n / 700  # about a pixel: nothing that happens may vanish
    thick = min(max(0.62 * points, 0.9), 15)
    backwards = [(step.node, p) for p, step in enumerate(schedule) if isinstance(step, Backward)]

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
    first_stop = {s.node: s.stop for s in spans if s.turn == 1}
    last_start = {s.node: s.start for s in sorted(spans, key=lambda s: s.start) if s.turn > 1}
    gone: list[tuple[int, float, float]] = [
        (i, first_stop[i], start) for i, start in last_start.items() if i in first_stop
    ]
    draw(gone, GONE, max(0.25 * thick, 0.5))
    draw([(s.node, s.start, s.stop) for s in spans if s.turn == 1], KEPT, thick)
    draw([(s.node, s.start, s.stop) for s in spans if s.turn > 1], AGAIN, thick)
    draw([(i, p, p + 1) for i, p in backwards], READ, thick)
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


def _name_rows(axes: Axes, nodes: Sequence[int], label: Callable[[int], str] | None) -> None:
    """Each row's name where they fit; else a few positions."""
    step = max(1, -(-len(nodes) // (_MOST_LABELS if label else 10)))
    rows = range(0, len(nodes), step)
    names = [f"{label(nodes[r])}" if label and step == 1 else str(nodes[r]) for r in rows]
    if label and step > 1:
        rows = range(0, len(nodes), max(1, len(nodes) // 8))
        names = [f"{nodes[r]}" for r in rows]
    axes.set_yticks(list(rows), names, fontsize=8 if len(names) > 14 else 9, color=GREY)
