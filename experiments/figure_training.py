"""Two or more trainings of one model side by side: the loss, the memory, the time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from ckpt.reports.canvas import byte_axis, dress, label_ends, new_figure
from ckpt.reports.rows import Row, as_mappings
from ckpt.reports.style import FAINT, look, words
from ckpt.timeline import Timeline
from ckpt.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def training_figure(
    runs: Mapping[str, Iterable[Any]],
    *,
    timelines: Mapping[str, Timeline] | None = None,
    title: str = "",
    caption: str = "",
) -> Figure:
    """Loss, live memory and time of each run, under its strategy's name.

    A run's rows have ``step``, ``loss``, ``peak_nbytes`` and ``seconds``. With ``timelines`` the
    middle panel shows what is live within one step; without, each step's peak.
    """
    series = {name: as_mappings(rows) for name, rows in runs.items()}
    figure = new_figure(
        13, 4.5, title=title or "The same training, with and without checkpointing", caption=caption
    )
    loss, memory, time = figure.subplots(1, 3)
    _loss_panel(loss, series)
    if timelines:
        _live_panel(memory, timelines)
    else:
        _peak_panel(memory, series)
    _time_panel(time, series)
    return figure


def _loss_panel(axes: Axes, series: Mapping[str, Sequence[Row]]) -> None:
    """Curves that coincide stay visible: each later one is thinner and dashed."""
    dress(axes, title=_verdict(series), x="step", y="loss")
    for order, (name, rows) in enumerate(series.items()):
        axes.plot(
            [row["step"] for row in rows],
            [row["loss"] for row in rows],
            color=look(name).colour,
            linewidth=max(4.5 - 3 * order, 1.2),
            alpha=0.5 if order == 0 and len(series) > 1 else 1,
            linestyle="solid" if order == 0 else (0, (4, 3)),
            label=words(name),
        )
    axes.legend(frameon=False, fontsize=9)


def _verdict(series: Mapping[str, Sequence[Row]]) -> str:
    """Do the losses agree to the bit? Compared as numbers, over the steps that all runs have."""
    curves = [[row["loss"] for row in rows] for rows in series.values()]
    if len(curves) < 2:
        return "Loss"
    steps = min(map(len, curves))
    differing = sum(len({curve[k] for curve in curves}) > 1 for k in range(steps))
    if not differing:
        return f"Loss: bit for bit the same in {steps} steps"
    return f"Loss: differs in {differing} of {steps} steps"


def _live_panel(axes: Axes, timelines: Mapping[str, Timeline]) -> None:
    dress(axes, title="Memory within one step", x="share of the step's FLOPs", y="bytes live")
    top = 1
    ends = []
    for name, timeline in timelines.items():
        high = list(timeline.columns["high"])
        done = [0.0]
        for flops in timeline.columns["flops"]:
            done.append(done[-1] + flops)
        whole = done[-1] or 1.0
        axes.plot(
            [x / whole for x in done[1:]],
            high,
            color=look(name).colour,
            linewidth=1.2,
            drawstyle="steps-pre",
        )
        at = timeline.peak_position
        text = f"{words(name)}\n{format_bytes(timeline.peak)}"
        ends.append((done[at + 1] / whole if high else 0, timeline.peak, text, look(name).colour))
        top = max(top, timeline.peak)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, top * 1.08)
    byte_axis(axes.yaxis, high=top)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    label_ends(axes, ends, gap=24)


def _peak_panel(axes: Axes, series: Mapping[str, Sequence[Row]]) -> None:
    dress(axes, title="Peak memory of each step", x="step", y="bytes")
    ends = []
    for name, rows in series.items():
        ys = [row["peak_nbytes"] for row in rows]
        axes.plot([row["step"] for row in rows], ys, color=look(name).colour, linewidth=1.5)
        ends.append(
            (rows[-1]["step"], ys[-1], f"{words(name)}\n{format_bytes(max(ys))}", look(name).colour)
        )
    top = max((row["peak_nbytes"] for rows in series.values() for row in rows), default=1)
    axes.set_ylim(0, top * 1.08)
    byte_axis(axes.yaxis, high=top)
    label_ends(axes, ends, gap=24)


def _time_panel(axes: Axes, series: Mapping[str, Sequence[Row]]) -> None:
    """Each step's time, with its median as a line: a single slow step must not speak for all."""
    from matplotlib import ticker

    dress(axes, title="Time of each step (line: median)", x="step", y="seconds")
    ends = []
    for name, rows in series.items():
        style = look(name)
        xs, ys = [row["step"] for row in rows], [row["seconds"] for row in rows]
        axes.plot(
            xs,
            ys,
            linestyle="none",
            marker=style.marker,
            ms=3,
            alpha=0.35,
            mew=0,
            color=style.colour,
        )
        middle = median(ys)
        axes.plot([xs[0], xs[-1]], [middle, middle], color=style.colour, linewidth=1.6)
        ends.append((xs[-1], middle, f"{words(name)}\n{format_seconds(middle)}", style.colour))
    # The slowest steps (a page fault, another program) may lie above the frame; the caption's
    # median doesn't move for them.
    every = sorted(row["seconds"] for rows in series.values() for row in rows)
    if every:
        high = 1.25 * every[int(0.98 * (len(every) - 1))]
        axes.set_ylim(0, high)
        hidden = sum(value > high for value in every)
        if hidden:
            axes.text(
                0.02, 0.97, f"{hidden} slower step{'s' * (hidden > 1)} above",
                transform=axes.transAxes, va="top", fontsize=8.5, color=FAINT,
            )  # fmt: skip
    axes.yaxis.set_major_formatter(
        ticker.FuncFormatter(lambda value, _: format_seconds(value) if value else "0 s")
    )
    label_ends(axes, ends, gap=24)
