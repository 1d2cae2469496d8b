"""What do the nets of Checkmate keep, and how large may a batch be on a 16 GB accelerator?

Question: Jain et al. 2020 (arXiv:1910.02653) plan VGG16 (batch 256), MobileNet (512) and U-Net (32
images of 416x608) in their figure of cost against budget, their code ResNet-50 (256) too; another
figure asks for the largest batch on a V100 for at most one extra forward, VGG19 among the nets.
What do these take here?
Theory says: activations grow linearly with the batch, so the largest batch is (memory - parameters
and their gradients) / (bytes a sample); a framework that keeps each layer's output to the end holds
more than what a backward reads.
Run: python experiments/checkmate_bytes.py [--nets vgg16:256 vgg19:167 ...] [--memory 16GB]
Found: store-all peaks at 14.8 GiB for VGG16, 19.3 for MobileNet, 25.1 for U-Net and 20.1 for
ResNet-50 (16.0, 19.7, 25.4, 20.4 with parameters, gradients and inputs). The paper shows its own
only as a point in a figure whose axis ends at 20.5, 44.7, 29.8 and 39.1 GiB, so all we can say is
that it doesn't contradict them. Where there is batch norm, ours is well below: a normalized value
is made again from the convolution's output and two numbers a channel, so that two of three layer
outputs are kept (19.2 of 28.9 GiB for MobileNet). Our U-Net is Ronneberger's; theirs has a VGG16 on
the way down, so the two are only alike.
VGG19 in 16 GB: theirs print 164 samples with all kept, 196 for sqrt, 260 for greedy; we find 218,
379 and 360. A sample takes 91 MB of store-all there and 69 here; two more of the largest values (13
MB each), cotangents that wait beside everything, would about make up the difference, but we have
not run their code. With at most one extra forward, chain fits 1.6 to 5.3 times the
batch of store-all (VGG16 380 for 236, VGG19 379 for 218, MobileNet 1555 for 388, U-Net 35 for 18,
ResNet-50 992 for 186); the abstract of the paper prints 5.1 as its best.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planning import PLOTS, Row, draw, plan_row, simulated, trace

from ckpt.graph import Graph
from ckpt.planners.chain.chain import frontier
from ckpt.reports.canvas import byte_axis, dress, legend, new_figure
from ckpt.reports.style import BLACK, BLUE, GREEN, GREY, KIND_COLOURS, PURPLE, SKY, look, words
from ckpt.reports.table import show
from ckpt.timeline import holdings
from ckpt.units import parse_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NETS = ("vgg16:256", "vgg19:167", "mobilenet-v1:512", "unet-416x608:32", "resnet50:256")
"""Presets and batches: the paper's, but for VGG19, whose batch is the largest on its V100."""

GB = 10**9
AXIS_ENDS = {
    ("vgg16", 256): 22 * GB,
    ("mobilenet-v1", 512): 48 * GB,
    ("unet-416x608", 32): 32 * GB,
    ("resnet50", 256): 42 * GB,
}
"""Where the authors' code ends the axis of budgets (github.com/parasj/checkmate,
experiments/experiment_budget_sweep.py): what their store-all needs is a point in a figure only."""

PRINTED = {("vgg19", "store_all"): 164, ("vgg19", "sqrt"): 196, ("vgg19", "greedy"): 260}
"""Largest batches that the authors' mlsys20_artifact.md prints, in steps of 8 from 4."""

PLANNERS = ("store_all", "sqrt", "greedy", "chain")

FAMILIES = {
    "convolution": "convolution",
    "relu": "relu",
    "largest_tap": "pooling",
    "take_tap": "pooling",
    "concatenate": "concatenation",
}
"""Op -> what the legend calls it."""

COLOURS = {
    "convolution": SKY,
    "relu": BLUE,
    "pooling": GREEN,
    "concatenation": PURPLE,
    "other": GREY,
    "cotangents": KIND_COLOURS["cotangents"],
}


def bytes_row(preset: str, batch: int) -> tuple[Row, Counter[str]]:
    """What is live at the store-all peak, and by which ops' outputs."""
    graph = trace(preset, batch=batch)
    timeline = simulated(graph, "store_all")
    families: Counter[str] = Counter()
    for held in holdings(graph, timeline, timeline.peak_position):
        if held.kind == "cotangents":
            families["cotangents"] += held.nbytes
        elif held.kind in ("activations", "captured"):
            families[FAMILIES.get(graph[held.whose].op, "other")] += held.nbytes
    return {
        "net": preset,
        "batch": batch,
        "parameters_nbytes": timeline.gradients_beside,
        "store_all_peak_nbytes": timeline.peak,
        "store_all_whole_nbytes": timeline.whole_peak,
        "layer_outputs_nbytes": layer_outputs(graph),
        "axis_end_nbytes": AXIS_ENDS.get((preset, batch)),
    }, families


def layer_outputs(graph: Graph) -> int:
    """Bytes of each layer's output once, as the authors' graph has them: Keras layers.

    Their nets without batch norm have the relu inside the convolution's layer.
    """
    total = 0
    for i, node in enumerate(graph):
        inside = node.op == "convolution" and all(graph[r].op == "relu" for r in graph.readers[i])
        if not node.resident and graph.owners[i] == i and not inside:
            total += node.nbytes
    return total


def least_peak(graph: Graph, planner: str) -> int:
    """The smallest peak that ``planner`` reaches for at most one forward of recompute."""
    if planner == "chain":
        return min(s.budget for s in frontier(graph) if s.recompute_cost <= graph.forward_flops)
    if planner == "greedy":  # its refusal of one byte names the least that it needs
        return int(plan_row(graph, planner, 1)["least_nbytes"])
    return simulated(graph, planner).peak


def largest_batch(preset: str, planner: str, memory: int, batch: int) -> int:
    """The largest batch whose whole peak is within ``memory`` bytes, tried from ``batch`` on: the
    peak is nearly in proportion to it."""
    fits, exceeds = 0, 1 << 20
    while exceeds - fits > 1:
        graph = trace(preset, batch=batch)
        whole = least_peak(graph, planner) + graph.resident_nbytes + graph.gradient_nbytes
        if whole <= memory:
            fits = batch
        else:
            exceeds = batch
        batch = min(max(memory * batch // whole, fits + 1), exceeds - 1)
    return fits


def batch_rows(preset: str, batch: int, memory: int) -> list[Row]:
    """Per planner, the largest batch for at most one extra forward, and what the authors print."""
    return [
        {
            "net": preset,
            "planner": planner,
            "largest_batch": largest_batch(preset, planner, memory, batch),
            "printed": PRINTED.get((preset, planner)),
        }
        for planner in PLANNERS
    ]


def figure(rows: Sequence[Row], parts: Sequence[Counter[str]], batches: Sequence[Row]) -> Any:
    """Left: bytes at the store-all peak, by kind. Right: the largest batches."""
    sheet = new_figure(
        12.5,
        4.9,
        title="checkmate_bytes: what the nets of Checkmate keep",
        caption="float32, traced shapes, no array made. Left: live at the store-all peak (without "
        "parameters), by the op whose output it is. Right: parameters, gradients and inputs "
        "included; sqrt, greedy and chain at their least memory for at most one extra forward; "
        "hollow: printed in the authors' artifact, in steps of 8.",
    )
    left, right = sheet.subplots(1, 2, width_ratios=(1.35, 1))
    places = range(len(rows))[::-1]
    _stack(left, rows, parts, places)
    _batches(right, rows, batches, places)
    return sheet


def _stack(axes: Axes, rows: Sequence[Row], parts: Sequence[Counter[str]], places: range) -> None:
    dress(axes, title="Bytes at the store-all peak", x="bytes", grid="x")
    known = [k for k in COLOURS if any(part[k] for part in parts)]
    left = [0] * len(rows)
    for kind in known:
        widths = [part[kind] for part in parts]
        axes.barh(places, widths, 0.55, left=left, color=COLOURS[kind], label=kind)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for row, place in zip(rows, places, strict=True):
        outputs, end = row["layer_outputs_nbytes"], row.get("axis_end_nbytes")
        axes.plot([outputs], [place], "D", ms=6, mfc="none", mec=BLACK)
        if end:
            axes.plot([end, end], [place - 0.33, place + 0.33], color=GREY, lw=1.6)
    axes.plot([], [], "D", ms=6, mfc="none", mec=BLACK, ls="none", label="each layer's output")
    axes.plot([], [], "|", ms=12, mew=1.6, color=GREY, ls="none", label="end of the authors' axis")
    axes.set_yticks(places, [f"{row['net']}\nbatch {row['batch']}" for row in rows])
    high = max(max(row["layer_outputs_nbytes"], row.get("axis_end_nbytes") or 0) for row in rows)
    axes.set_xlim(0, 1.04 * high)
    byte_axis(axes.xaxis, high=high)
    legend(axes, loc="upper center", bbox_to_anchor=(0.45, -0.14), ncol=4, fontsize=8.5)


def _batches(axes: Axes, rows: Sequence[Row], batches: Sequence[Row], places: range) -> None:
    from matplotlib import ticker

    dress(axes, title="Largest batch in 16 GB", x="samples", grid="x")
    axes.set_xscale("log")
    for k, planner in enumerate(PLANNERS):
        style = look(planner)
        found = [row for row in batches if row["planner"] == planner]
        axes.plot(
            [row["largest_batch"] for row in found], [y + 0.24 - 0.16 * k for y in places],
            style.marker, color=style.colour,
            ms=8 * style.scale, mec="white", mew=0.6, ls="none", label=words(planner),
        )  # fmt: skip
        printed = [(r["printed"], y) for r, y in zip(found, places, strict=True) if r["printed"]]
        axes.plot(
            [x for x, _ in printed], [y + 0.24 - 0.16 * k for _, y in printed], style.marker, ms=8,
            mfc="none", mec=style.colour, ls="none",
        )  # fmt: skip
    axes.set_yticks(places, [])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.xaxis.set_major_locator(ticker.LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    legend(axes, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=4, fontsize=8.5)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print and draw; returns the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nets", nargs="+", default=NETS, metavar="NET:BATCH")
    parser.add_argument("--memory", default="16GB", help="of the accelerator")
    parser.add_argument("--folder", type=Path, default=PLOTS)
    args = parser.parse_args(arguments)
    rows, parts, batches = [], [], []
    for net in args.nets:
        preset, _, batch = net.partition(":")
        row, kinds = bytes_row(preset, int(batch))
        rows.append(row)
        parts.append(kinds)
        batches += batch_rows(preset, int(batch), parse_bytes(args.memory))
    show(rows, title="Bytes of one step, nothing recomputed")
    show(batches, title=f"Largest batch in {args.memory}, at most one extra forward")
    draw("checkmate_bytes", figure(rows, parts, batches), args.folder)
    return rows + batches


if __name__ == "__main__":
    main()
