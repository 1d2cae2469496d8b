"""What argues in a figure: the best as steps, the impossible shaded, labels in the clear."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ckpt.reports.canvas import halo
from ckpt.reports.style import FAINT, IMPOSSIBLE, ink
from ckpt.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Segment = tuple[float, float, float, float]

_PLACES = (
    ("left", "center", 1, 0),
    ("left", "bottom", 0.7, 0.6),
    ("left", "top", 0.7, -0.6),
    ("right", "center", -1, 0),
    ("right", "bottom", -0.7, 0.6),
    ("right", "top", -0.7, -0.6),
    ("center", "bottom", 0, 1),
    ("center", "top", 0, -1),
)
"""How a label is aligned to its point, and into which direction it is moved from there."""


class Label(NamedTuple):
    """What is written at ``x, y`` (in data), and in which colour."""

    x: float
    y: float
    text: str
    colour: str


def place(axes: Axes, labels: Sequence[Label], *, size: float = 9) -> None:
    """Write each label beside its point, at the first place that is free, or the freest.

    Call it when everything else is drawn and the limits are final.
    """
    figure: Any = axes.figure
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    taken = [text.get_window_extent(renderer) for text in axes.texts if text.get_text()]
    frame = axes.get_window_extent(renderer)
    for label in labels:
        best: tuple[float, int] | None = None
        made = []
        for turn, (distance, (ha, va, right, up)) in enumerate(
            (d, p) for d in (8, 14, 22) for p in _PLACES
        ):
            note = axes.annotate(
                label.text,
                (label.x, label.y),
                xytext=(right * distance, up * distance),
                textcoords="offset points",
                ha=ha,
                va=va,
                fontsize=size,
                color=ink(label.colour),
                annotation_clip=False,
                path_effects=halo(),
                zorder=7,
            )
            made.append(note)
            box = note.get_window_extent(renderer).padded(1.5)
            cost = 3.0 * sum(box.overlaps(other) for other in taken)
            cost += struck(box, segments(axes))
            cost += 2.0 * (box.x0 < frame.x0 or box.y0 < frame.y0 or box.y1 > frame.y1)
            if best is None or cost < best[0]:
                best = cost, turn
            if cost == 0:
                break
        assert best is not None
        for turn, note in enumerate(made):
            if turn != best[1]:
                note.remove()
        taken.append(made[best[1]].get_window_extent(renderer))


def segments(axes: Axes) -> list[Segment]:
    """Every stroke and every marker of the lines on ``axes``, in pixels."""
    from matplotlib.cbook import STEP_LOOKUP_MAP

    found: list[Segment] = []
    for line in axes.lines:
        to_pixels = line.get_transform().transform
        if line.get_linestyle() not in ("None", "none", ""):
            steps = STEP_LOOKUP_MAP[line.get_drawstyle()](*np.transpose(line.get_xydata()))
            corners = to_pixels(np.transpose(steps)).tolist()
            found += [(*a, *b) for a, b in pairwise(corners)]
        if line.get_marker() not in ("None", "none", "", None):
            points = to_pixels(line.get_xydata()).tolist()
            found += [(x - 3, y - 3, x + 3, y + 3) for x, y in points]
    return found


def struck(box: Any, strokes: Iterable[Segment]) -> int:
    """How many of ``strokes`` cross ``box``."""
    return sum(any(_in_box(box, x, y) for x, y in _along(box, stroke)) for stroke in strokes)


def _in_box(box: Any, x: float, y: float) -> bool:
    return bool(box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1)


def _along(box: Any, stroke: Segment) -> Iterator[tuple[float, float]]:
    """Points of ``stroke`` a pixel or two apart, if it comes near ``box`` at all."""
    x0, y0, x1, y1 = stroke
    if max(x0, x1) < box.x0 or min(x0, x1) > box.x1 or max(y0, y1) < box.y0 or min(y0, y1) > box.y1:
        return
    count = max(2, int(max(abs(x1 - x0), abs(y1 - y0)) / 2))
    for k in range(count + 1):
        yield x0 + (x1 - x0) * k / count, y0 + (y1 - y0) * k / count


# -- steps, and where no plan can be ---------------------------------------------------------------

Point = tuple[float, float]
"""Recompute and peak bytes."""


def best_of(points: Iterable[Point]) -> list[Point]:
    """Those that no other beats in both, by rising recompute and falling peak."""
    found: list[Point] = []
    for point in sorted(points):
        if not found or point[1] < found[-1][1]:
            found.append(point)
    return found


def stairs(points: Sequence[Point], right: float) -> list[Point]:
    """Corners of the steps through ``points``, on to ``right``: a plan is there for more, too."""
    corners: list[Point] = []
    for point in points:
        if corners:
            corners.append((point[0], corners[-1][1]))
        corners.append(point)
    if corners:
        corners.append((right, corners[-1][1]))
    return corners


def draw_best(axes: Axes, points: Sequence[Point], colour: str) -> None:
    """The steps of the best that was found, as the figure's hero."""
    corners = stairs(points, axes.get_xlim()[1])
    if corners:
        axes.plot(*zip(*corners, strict=True), color=colour, linewidth=2.2, zorder=4)


def shade_impossible(axes: Axes, limits: Iterable[tuple[float, float]], floor: float = 0) -> None:
    """Shade where no schedule can be, and write so into it.

    ``limits`` are pairs of a peak and the least recompute within it: proved for that peak, a bound
    holds for every smaller one. Below ``floor`` there is no schedule at all.
    """
    low, high = 0.0, axes.get_xlim()[1]
    bottom = axes.get_ylim()[0]
    edge: list[Point] = []
    below = max(bottom, floor)
    if floor > bottom:
        axes.fill_between([low, high], bottom, floor, color=IMPOSSIBLE, linewidth=0, zorder=0)
        edge.append((high, floor))
    pieces = []
    # A bound for less memory is never the smaller one.
    least = 0.0
    rising: list[tuple[float, float]] = []
    for peak, bound in sorted(limits, reverse=True):
        least = max(least, bound)
        rising.append((peak, least))
    for peak, bound in reversed(rising):
        if peak <= below or bound <= 0:
            continue
        axes.fill_between([low, bound], below, peak, color=IMPOSSIBLE, linewidth=0, zorder=0)
        pieces.append((bound, below, peak))
        edge += [(bound, below), (bound, peak)]
        below = peak
    if not edge:
        return
    edge.append((low, below))
    axes.plot(*zip(*edge, strict=True), color=FAINT, linewidth=0.8, zorder=1)
    _say_impossible(axes, edge, bottom, floor)


def _say_impossible(axes: Axes, edge: Sequence[Point], bottom: float, floor: float) -> None:
    """The word at the lower left, if the region is large enough there to hold it."""
    if floor > bottom:
        inside = (axes.transData + axes.transAxes.inverted()).transform
        height = float(inside((0, floor))[1])
        text = f"proven impossible: no schedule below {format_bytes(floor)}"
        if height > 0.05:
            _say(axes, text, height / 2, "center")
        else:
            _say(axes, text, height, "bottom")
        return
    right = max(x for x, _ in edge)
    width = float((axes.transData + axes.transAxes.inverted()).transform((right, bottom))[0])
    if width > 0.2:
        _say(axes, "proven\nimpossible", 0.05, "bottom")


def _say(axes: Axes, text: str, y: float, va: str) -> None:
    axes.text(
        0.055, y, text, transform=axes.transAxes, fontsize=9, style="italic", color=FAINT,
        va=va, path_effects=halo() if va == "bottom" and "\n" not in text else [], zorder=1,
    )  # fmt: skip
