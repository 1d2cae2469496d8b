"""Two or more trainings of one model side by side: the loss, and the memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ckpt.reports.canvas import byte_axis, dress, new_figure
from ckpt.reports.drawing import Label, place
from ckpt.reports.rows import Row, as_mappings
from ckpt.reports.style import look, words
from ckpt.timeline import Timeline
from ckpt.units import format_bytes

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
    """Loss and live memory of each run, under its strategy's name.

    A run's rows have ``step``, ``loss`` and ``peak_nbytes``. With ``timelines`` the right panel
    shows what is live within one step, and its recompute; without, each step's peak. Times aren't
    drawn: how the steps of two trainings differ in time is mostly what else the machine does.
    """
    series = {name: as_mappings(rows) for name, rows in runs.items()}
    figure = new_figure(
        11.5,
        4.5,
        title=title or "The same training, with and without checkpointing",
        caption=caption,
    )
    loss, memory = figure.subplots(1, 2)
    _loss_panel(loss, series)
    if timelines:
        _live_panel(memory, timelines)
    else:
        _peak_panel(memory, series)
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
    axes.xaxis.get_major_locator().set_params(integer=True)
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
    labels = []
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
        text = f"{words(name)}: {format_bytes(timeline.peak)}"
        if timeline.overhead:
            text += f",\n{timeline.overhead:.0%} of a forward recomputed"
        x = (done[at] + done[at + 1]) / 2 / whole if high else 0
        labels.append(Label(x, timeline.peak, text, look(name).colour))
        top = max(top, timeline.peak)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, top * 1.18)
    byte_axis(axes.yaxis, high=top)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    place(axes, labels)


def _peak_panel(axes: Axes, series: Mapping[str, Sequence[Row]]) -> None:
    dress(axes, title="Peak memory of each step", x="step", y="bytes")
    labels = []
    for name, rows in series.items():
        ys = [row["peak_nbytes"] for row in rows]
        axes.plot([row["step"] for row in rows], ys, color=look(name).colour, linewidth=1.5)
        text = f"{words(name)}: {format_bytes(max(ys))}"
        labels.append(
            Label(rows[len(rows) // 2]["step"], ys[len(ys) // 2], text, look(name).colour)
        )
    top = max((row["peak_nbytes"] for rows in series.values() for row in rows), default=1)
    axes.set_ylim(0, top * 1.18)
    byte_axis(axes.yaxis, high=top)
    place(axes, labels)
