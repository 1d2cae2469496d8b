"""Where does each byte of a GPT layer come from?

Question: Korthikanti et al. 2022 (arXiv:2205.05198), section 4.1, count the activations that one
transformer layer keeps: s b h (34 + 5 a s / h) bytes, for s tokens, batch b, width h and a heads,
values of 2 bytes. Does our layer keep the same, value by value?
Theory says: the masks of dropout take 1 byte an element in any dtype, all else doubles in float32:
s b h (66 + 9 a s / h).
Run: python experiments/gpt_layer_bytes.py [--preset gpt2] [--sequences 256 512 1024 2048 4096]
Found: value by value the same bytes, and besides them the mean and deviation of two norms, which
the paper leaves out: 4 numbers a token, 128 KiB of the 1.23 GiB that a layer of gpt2 keeps at 8 x
1024 tokens (210.02 bytes a token and channel, of 210 in the formula; in float16 114.01 of 114). The
two copies of the attention weights, softmax and dropped, are 61 % of it, their mask 8 %; at 4096
tokens it is 90 % together. gpt2, gpt2-xl and gpt3 keep the same 210 a token and channel, as their
lengths are 16 times the width of a head.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from planning import PLOTS, Row, draw, trace

from ckpt.graph import Graph
from ckpt.models import build
from ckpt.reports.canvas import byte_axis, dress, legend, new_figure
from ckpt.reports.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, TEXT, VERMILLION
from ckpt.reports.table import show


class Part(NamedTuple):
    """One value that a layer keeps, as the paper lists them."""

    name: str
    op: str
    """What makes it here."""
    elements: float
    """Elements, in s b h; for attention weights in a s^2 b."""
    group: str
    square: bool = False
    """In a s^2 b?"""
    mask: bool = False
    """A byte an element, whatever the dtype?"""

    def nbytes(self, s: int, b: int, h: int, a: int, itemsize: int) -> float:
        """The paper's bytes."""
        unit = a * s * s * b if self.square else s * b * h
        return unit * self.elements * (1 if self.mask else itemsize)


PARTS = (
    Part("input of Q, K, V", "normalized", 1, "linear"),
    Part("Q, K and V", "add", 3, "attention"),
    Part("softmax", "softmax", 1, "weights", square=True),
    Part("mask of the weights", "dropout_mask", 1, "mask", square=True, mask=True),
    Part("weights, dropped", "masked", 1, "weights", square=True),
    Part("input of the projection", "reshape", 1, "linear"),
    Part("mask after attention", "dropout_mask", 1, "mask", mask=True),
    Part("input of the second norm", "add", 1, "norm"),
    Part("input of the MLP", "normalized", 1, "linear"),
    Part("input of gelu", "add", 4, "gelu"),
    Part("output of gelu", "gelu", 4, "linear"),
    Part("mask after the MLP", "dropout_mask", 1, "mask", mask=True),
    Part("input of the next norm", "add", 1, "norm"),
)
"""In the order in which a layer makes them."""

GROUPS = {
    "linear": ("inputs of matrices", SKY),
    "attention": ("Q, K and V", BLUE),
    "gelu": ("input of gelu", GREEN),
    "norm": ("inputs of norms", ORANGE),
    "mask": ("masks of dropout", PURPLE),
    "weights": ("attention weights", VERMILLION),
}
STATISTICS = ("row_mean", "row_rstd")
"""Of layer norm, which the paper leaves out: four numbers a token."""
LAYER = "layer 1"
"""One in the middle: what it hands on, the next one's norm reads."""


def kept(graph: Graph) -> list[int]:
    """The buffers made in one layer that some backward reads, in order."""
    owners = {graph.owners[i] for i, readers in enumerate(graph.step_readers) if readers}
    return [i for i in sorted(owners) if graph[i].scope == LAYER]


def layer_rows(preset: str, sequence: int, batch: int, dtype: str) -> list[Row]:
    """Each kept value with its bytes, and the paper's."""
    options = {"depth": 3, "sequence": sequence, "batch": batch, "dtype": dtype, "dropout": 0.1}
    h, a = (build(preset, **options).options[name] for name in ("width", "heads"))
    graph = trace(preset, **options)
    found = [i for i in kept(graph) if graph[i].op not in STATISTICS]
    rows = []
    for part, i in zip(PARTS, found, strict=True):
        if graph[i].op != part.op:
            raise SystemExit(f"{part.name} is made by {part.op}, but here by {graph[i].op}")
        theory = part.nbytes(sequence, batch, h, a, 4 if dtype == "float32" else 2)
        unit = sequence * batch * h
        rows.append(
            {
                "value": part.name,
                "made by": graph[i].op,
                "nbytes": graph[i].nbytes,
                "paper_nbytes": int(theory),
                "per s b h": graph[i].nbytes / unit,
                "group": part.group,
            }
        )
    statistics = sum(graph[i].nbytes for i in kept(graph) if graph[i].op in STATISTICS)
    row = {"value": "mean and deviation", "made by": "row_mean, row_rstd", "nbytes": statistics}
    return [*rows, row | {"paper_nbytes": 0, "per s b h": statistics / unit, "group": "norm"}]


def sums(rows: Sequence[Row], sequence: int, dtype: str) -> Row:
    """A layer's totals, beside the formula's."""
    return {
        "dtype": dtype,
        "sequence": sequence,
        "nbytes": sum(row["nbytes"] for row in rows),
        "paper_nbytes": sum(row["paper_nbytes"] for row in rows),
        "per s b h": sum(row["per s b h"] for row in rows),
    }


def figure(rows: Sequence[Row], layers: dict[int, list[Row]], caption: str) -> Any:
    """Left: each value of a layer. Right: the layer at several sequence lengths."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    sheet = new_figure(
        12.5, 5.4, title="gpt_layer_bytes: where each byte of a GPT layer comes from",
        caption=caption,
    )  # fmt: skip
    left, right = sheet.subplots(1, 2, width_ratios=(1.25, 1))
    places = range(len(rows))[::-1]
    dress(left, title="One layer, value by value", x="bytes kept", grid="x")
    left.barh(
        places, [row["nbytes"] for row in rows], 0.62,
        color=[GROUPS[row["group"]][1] for row in rows],
    )  # fmt: skip
    left.plot([r["paper_nbytes"] for r in rows], places, "D", ms=5, mfc="none", mec=BLACK)
    left.set_yticks(places, [row["value"] for row in rows])
    left.margins(y=0.02)
    high = max(row["nbytes"] for row in rows)
    left.set_xlim(0, 1.06 * high)
    byte_axis(left.xaxis, high=high)
    dress(right, title="The layer at other lengths", x="tokens", y="bytes kept a token and channel")
    for k, found in enumerate(layers.values()):
        bottom = 0.0
        for group, (_, colour) in GROUPS.items():
            height = sum(row["per s b h"] for row in found if row["group"] == group)
            right.bar(k, height, 0.6, bottom=bottom, color=colour)
            bottom += height
        theory = sum(row["paper_nbytes"] for row in found) * bottom
        theory /= sum(row["nbytes"] for row in found)
        right.plot([k], [theory], "D", ms=5, mfc="none", mec=BLACK)
        right.annotate(
            f"{theory:.0f}", (k, bottom), xytext=(0, 6), textcoords="offset points", ha="center",
            fontsize=9, color=TEXT,
        )  # fmt: skip
    right.set_xticks(range(len(layers)), [f"{sequence:,}" for sequence in layers])
    handles: list[Any] = [Patch(color=colour, label=name) for name, colour in GROUPS.values()]
    formula = "Korthikanti et al."
    handles.append(Line2D([], [], marker="D", ls="none", mfc="none", mec=BLACK, label=formula))
    legend(right, handles[::-1], loc="upper left")
    return sheet


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print and draw; returns the totals."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="gpt2")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--sequence", type=int, default=1024, help="of the layer shown in full")
    parser.add_argument("--sequences", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--folder", type=Path, default=PLOTS)
    args = parser.parse_args(arguments)
    rows = layer_rows(args.preset, args.sequence, args.batch, "float32")
    show(rows, title=f"A layer of {args.preset}, float32, {args.batch} x {args.sequence} tokens")
    layers = {n: layer_rows(args.preset, n, args.batch, "float32") for n in args.sequences}
    totals = [sums(found, n, "float32") for n, found in layers.items()]
    half = layer_rows(args.preset, args.sequence, args.batch, "float16")
    totals.append(sums(half, args.sequence, "float16"))
    show(totals, title="A layer's totals")
    drawn = figure(
        rows,
        layers,
        f"{args.preset}, batch {args.batch}, float32, dropout; traced, no array made. Left: "
        f"{args.sequence} tokens. Bars: what backwards read here; diamonds: Korthikanti et al. "
        "2022, section 4.1, with values of 4 bytes and masks of 1.",
    )
    draw("gpt_layer_bytes", drawn, args.folder)
    return totals


if __name__ == "__main__":
    main()
