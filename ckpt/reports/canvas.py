"""What every figure shares: the sheet, its caption, axes in units, guides, direct labels.

Object API only: no pyplot, no global state, no window. matplotlib is imported when one is made.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ckpt.reports.style import FAINT, GREY, GRID, TEXT, ink
from ckpt.text import printable
from ckpt.units import GIB, KIB, MIB, TIB, format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GUIDES: dict[str, Callable[[float], float]] = {
    "n": lambda n: n,
    "sqrt n": math.sqrt,
    "log n": math.log2,
    "n^2": lambda n: n * n,
}
_GUIDE_WORDS = {"n": "∝ n", "sqrt n": "∝ √n", "log n": "∝ log n", "n^2": "∝ n²"}


def new_figure(width: float, height: float, *, title: str = "", caption: str = "") -> Figure:
    """An empty sheet, ``width`` by ``height`` inches, in constrained layout."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from ckpt.reports.picture import Picture

    figure = Picture(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.08, h_pad=0.06, wspace=0.03, hspace=0.03)
    if title:
        figure.suptitle(
            printable(title), x=0.008, ha="left", fontsize=12.5, fontweight="bold", color=TEXT
        )
    if caption:
        text = "\n".join(textwrap.wrap(printable(caption), int(width * 15.5)))
        figure.supxlabel(text, x=0.008, ha="left", fontsize=8.5, color=FAINT)
    return figure


def dress(axes: Axes, *, title: str = "", x: str = "", y: str = "", grid: str = "y") -> None:
    """Quiet axes: no box, a pale grid behind the data, labels with units."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=TEXT, labelsize=9, length=3)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(True, axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    if title:
        axes.set_title(title, loc="left", fontsize=10.5, color=TEXT)
    axes.set_xlabel(x, fontsize=9.5, color=TEXT)
    axes.set_ylabel(y, fontsize=9.5, color=TEXT)


_LEGEND = {"frameon": False, "fontsize": 9, "handlelength": 1.6, "columnspacing": 1.3}


def legend(where: Any, handles: Sequence[Any] | None = None, **options: Any) -> None:
    """A legend without a box, on an axes or a figure; none where nothing has a label."""
    if handles is None:
        handles, _ = where.get_legend_handles_labels()
    if handles:
        where.legend(handles=handles, **{**_LEGEND, **options})


# -- axes in units --------------------------------------------------------------------------------


def byte_axis(axis: Any, *, log: bool = False, low: float = 0, high: float = 1) -> None:
    """Ticks at round IEC sizes for data from ``low`` to ``high``; powers of 2 if ``log``."""
    from matplotlib import ticker

    if log:
        axis.set_major_locator(ticker.LogLocator(base=2, numticks=7))
    else:
        axis.set_major_locator(ticker.MultipleLocator(byte_step(high - low)))
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter(ticker.FuncFormatter(lambda nbytes, _: format_bytes(nbytes)))


def byte_step(span: float, ticks: int = 6) -> int:
    """The smallest round number of bytes that divides ``span`` into at most ``ticks``."""
    wanted = max(span / ticks, 1)
    unit = next((u for u in (TIB, GIB, MIB, KIB) if wanted >= 0.5 * u), 1)
    for step in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
        if step * unit >= wanted and step * unit >= 1:
            return int(step * unit)
    return int(wanted)


def count_axis(axis: Any, values: Iterable[float]) -> None:
    """A log axis of counts, with a tick at 1, 2, 5, 10, 20, 50, ... as numbers people read."""
    from matplotlib import ticker

    there = sorted(v for v in values if v > 0) or [1]
    decades = math.log10(there[-1] / there[0]) if there[-1] > there[0] else 0
    subs = (1, 2, 5) if decades < 2.5 else (1,)
    axis.set_major_locator(ticker.LogLocator(base=10, subs=subs))
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.10g}"))


def percent_axis(axis: Any) -> None:
    """Ratios shown as percentages."""
    from matplotlib import ticker

    axis.set_major_formatter(ticker.PercentFormatter(xmax=1, decimals=None))


# -- guides and labels ----------------------------------------------------------------------------


def guide(
    axes: Axes, kind: str, xs: Sequence[float], through: tuple[float, float]
) -> tuple[float, float, str, str]:
    """A pale line of growth ``kind`` (n, sqrt n, log n, n^2) over ``xs`` through the point given.

    Returns its end, as `label_ends` takes it.
    """
    x0, y0 = through
    grow = GUIDES[kind]
    low, high = max(min(xs), 2 if kind == "log n" else 1), max(xs)  # log 1 = 0 has no place
    points = [low * (high / low) ** (k / 60) for k in range(61)]
    values = [y0 * grow(x) / grow(x0) for x in points]
    axes.plot(points, values, color="#B5B5B5", linewidth=1, dashes=(5, 3), zorder=1)
    return points[-1], values[-1], _GUIDE_WORDS[kind], FAINT


def halo() -> list[Any]:
    """A white edge around text, so that it can be read where it lies on a line."""
    from matplotlib.patheffects import withStroke

    stroke: Any = withStroke
    return [stroke(linewidth=2.5, foreground="white")]


def label_ends(
    axes: Axes, ends: Sequence[tuple[float, float, str, str]], *, gap: float = 11
) -> None:
    """Write each line's name beside its last point ``(x, y, name, colour)``, in its own colour.

    Names that would overlap are moved apart to ``gap`` points, each as little as can be. Call it
    when the axes' limits are final.
    """
    figure: Any = axes.figure
    figure.draw_without_rendering()
    scale = 72 / figure.dpi
    wanted = [float(axes.transData.transform((x, y))[1]) * scale for x, y, _, _ in ends]
    for (x, y, name, colour), here, there in zip(ends, wanted, spread(wanted, gap), strict=True):
        axes.annotate(
            name,
            (x, y),
            xytext=(7, there - here),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=ink(colour),
            annotation_clip=False,
            path_effects=halo(),
            zorder=7,
        )


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """The nearest positions (in squares) that keep the order and lie at least ``gap`` apart.

    Pool adjacent violators on the positions less their rank times the gap.
    """
    order = sorted(range(len(positions)), key=lambda k: positions[k])
    pools: list[tuple[float, int]] = []  # mean, size
    for rank, k in enumerate(order):
        mean, size = positions[k] - rank * gap, 1
        while pools and pools[-1][0] > mean:
            above, many = pools.pop()
            mean, size = (mean * size + above * many) / (size + many), size + many
        pools.append((mean, size))
    flat = [mean for mean, size in pools for _ in range(size)]
    result = [0.0] * len(positions)
    for rank, k in enumerate(order):
        result[k] = flat[rank] + rank * gap
    return result
