"""What does an LSTM unrolled over a long sequence keep, and what does less cost?

Question: Chen et al. 2016 (arXiv:1604.06174), section 5.4, unroll four LSTM layers of 1024 units,
batch 64, 50 numbers in and a softmax over 5000 classes out at each step. How do memory and
recompute grow with the steps?
Theory says: a step keeps seven vectors of batch x width for each layer (three gates, the candidate,
the cell, its tanh, the output), one embedded input, and the softmax: store-all is linear. Eight
vectors (h and c of four layers) cross a cut, so sqrt takes O(sqrt n) for at most one forward more,
a third of a step; log2 n binomial snapshots take O(log n) for O(log n) forwards.
Run: python experiments/chen_lstm.py [--steps 25 50 100 200] [--long 1000] [--width 1024]
Found: store-all is the theory's bytes and a constant 12 MiB (cotangents of one step): 859 MiB at
100 steps, 8.28 GiB at 1000. sqrt needs 99 MiB and 278 MiB, 8.6 and 30 times less, for 33 % of a
step; from 25 to 1000 steps (6.3 times in the root) its peak grows 4.8 times. log2 n snapshots need
30 MiB at 25 steps and 37 MiB at 200, for 116 % and 144 %. In sqrt's memory chain costs 27 % at 25
steps and 32 % at 200, so sqrt is close to the best there. dtr pays 61 to 74 %, and for 200 steps
finds no plan in that memory at all. We know of no bytes that the paper prints for this net.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import log2
from pathlib import Path

from figure_growth import Panel, Series, growth_figure
from planning import PLOTS, Row, draw, plan_row, trace

from ckpt.reports.table import show

VECTORS = 7
"""Of batch x width, kept by a layer in a step."""

DTR_STEPS = 100
"""Above so many, dtr in sqrt's memory recomputes so much that planning takes minutes."""

SHARES = (0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.07, 0.05)
"""Budgets of chain, of store-all's peak, for what memory costs."""
SNAPSHOTS = (10, 15, 20, 30, 45)
"""And of revolve."""


def kept_in_theory(steps: int, layers: int, width: int, batch: int, vocab: int) -> int:
    """Bytes that store-all keeps in float32."""
    return 4 * steps * batch * ((VECTORS * layers + 1) * width + vocab)


def rows_of(steps: int, brief: bool, **options: int) -> list[Row]:
    """Store-all and sqrt; unless ``brief``, log2 n snapshots, and chain and dtr at sqrt's peak."""
    graph = trace("chen-lstm", depth=steps, **options)
    rows = [plan_row(graph, "store_all"), plan_row(graph, "sqrt")]
    rows[0]["theory_nbytes"] = kept_in_theory(steps, **options)
    if not brief:
        rows.append(plan_row(graph, f"revolve:{max(2, round(log2(steps)))}"))
        rows.append(plan_row(graph, "chain", rows[1]["peak_nbytes"]))
        if steps <= DTR_STEPS:
            rows.append(plan_row(graph, "dtr", rows[1]["peak_nbytes"]))
    return [{"steps": steps, **row} for row in rows]


def cost_rows(steps: int, **options: int) -> list[Row]:
    """Chain and revolve over the whole range of memory."""
    graph = trace("chen-lstm", depth=steps, **options)
    stored = plan_row(graph, "store_all")["peak_nbytes"]
    rows = [plan_row(graph, "chain", int(share * stored)) for share in SHARES]
    rows += [plan_row(graph, f"revolve:{s}") for s in SNAPSHOTS if s < steps]
    return [{"steps": steps, **row} for row in rows]


def panels(rows: Sequence[Row], costs: Sequence[Row]) -> list[Panel]:
    """Peak against steps, and against recompute at one number of them."""

    def series(name: str, column: str, label: str = "") -> Series:
        found = [row for row in rows if row["planner"].startswith(name) and column in row]
        return Series(name, [row["steps"] for row in found], [row[column] for row in found],
                      label=label)  # fmt: skip

    steps = costs[0]["steps"]
    there = [row for row in (*rows, *costs) if row["steps"] == steps and "peak_nbytes" in row]

    def plans(name: str) -> Series:
        found = [row for row in there if row["planner"].startswith(name)]
        found = sorted(found, key=lambda row: row["step_overhead"])
        xs, ys = [row["step_overhead"] for row in found], [row["peak_nbytes"] for row in found]
        return Series(name, xs, ys)

    stored = series("store_all", "theory_nbytes")
    sqrt, revolve = (
        series("sqrt", "peak_nbytes"),
        series("revolve", "peak_nbytes", "log₂n snapshots"),
    )
    return [
        Panel(
            [
                Series("store_all", stored.x, stored.y, "theory"),
                series("store_all", "peak_nbytes"),
                sqrt,
                revolve,
            ],
            title="Memory against steps",
            x_label="steps",
            y_label="peak bytes",
            y_unit="nbytes",
            guides={
                "sqrt n": (sqrt.x[0], 1.35 * sqrt.y[0]),
                "log n": (revolve.x[0], 1.3 * revolve.y[0]),
            },
        ),
        Panel(
            [plans(name) for name in ("store_all", "sqrt", "revolve", "chain", "dtr")],
            title=f"What memory costs, {steps} steps",
            x_label="recompute, share of a plain step's FLOPs",
            y_label="peak bytes",
            x_unit="ratio",
            y_unit="nbytes",
            log_x=False,
            plans=True,
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print and draw; returns the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 50, 100, 200])
    parser.add_argument("--long", type=int, nargs="*", default=[1000], help="store-all, sqrt only")
    for option, value in (("layers", 4), ("width", 1024), ("batch", 64), ("vocab", 5000)):
        parser.add_argument(f"--{option}", type=int, default=value)
    parser.add_argument("--folder", type=Path, default=PLOTS)
    args = parser.parse_args(arguments)
    options = {name: getattr(args, name) for name in ("layers", "width", "batch", "vocab")}
    rows = [row for steps in sorted(args.steps) for row in rows_of(steps, False, **options)]
    rows += [row for steps in sorted(args.long) for row in rows_of(steps, True, **options)]
    show(rows, title="The LSTM of Chen et al. 2016, section 5.4")
    costs = cost_rows(max(s for s in args.steps if s <= DTR_STEPS), **options)
    show(costs, title="What memory costs")
    figure = growth_figure(
        panels(rows, costs),
        title="chen_lstm: memory and recompute of an unrolled LSTM",
        caption=f"{args.layers} layers of {args.width} units, batch {args.batch}, {args.vocab} "
        "classes, float32; predicted by simulation of traced shapes, no array made. Theory counts "
        f"{VECTORS} vectors a layer, the embedded input and the softmax. Revolve: log₂n to 45 "
        "snapshots; dtr in sqrt's memory. We know of no bytes that the paper prints for this net.",
    )
    draw("chen_lstm", figure, args.folder)
    return rows + costs


if __name__ == "__main__":
    main()
