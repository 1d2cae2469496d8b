"""How does memory grow with depth, and does a 1000-layer net fit into 7 GB?

Question: Chen et al. 2016 (arXiv:1604.06174), abstract and section 5.3, train a residual net of
1000 layers on ImageNet, batch 32, in 7 GB instead of 48 GB, at about 30 % more time. Do we find
the same, and the same growth with depth? And could the same memory cost less?
Theory says: n layers kept take O(n) bytes; the boundaries of sqrt n segments and the values of one
take O(sqrt n). All segments but the last run forward once more, and a forward is a third of a step:
at most a third more FLOPs.
Run: python experiments/chen_sqrt.py [--blocks 21 42 83 166 333] [--size 224] [--batch 32]
Found: at 1001 layers store-all peaks at 47.8 GiB (51.3 GB) and sqrt at 7.05 GiB (7.57 GB), for 96 %
of a forward or 32 % more FLOPs a step: the paper's 48 GB, 7 GB and 30 % within 8 %. That is partly
luck. The paper's bytes are MXNet's static plan of feature maps (with what it shares and
overwrites in place), its 30 % is seconds on a GPU; ours are all activations, cotangents and
workspace, and FLOPs. How its 333 blocks lie in the four stages isn't printed: we scale the 3, 24,
36, 3 of the authors' code, and another layout would move both numbers.
From 65 to 1001 layers (15.4 times) store-all grows 12.7 times, sqrt 6.9 times, faster than the 3.9
of the theory: stages are unequal, and even cuts let the widest segment set the peak. Chosen by
bytes, segments do better: for no more FLOPs than sqrt, greedy needs 4.48 GiB and chain 3.05 GiB.
And the same 7.05 GiB cost chain 24 % of a step, and dtr 12 %: it keeps nine in ten outputs of the
reducing convolutions and three in four of the 3x3, which are dear a byte, and recomputes expanding
ones, normalizations and activations. Below a tenth of store-all chain is the cheaper again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from figure_growth import Panel, Series, growth_figure
from planning import PLOTS, Row, draw, plan_row, trace

from ckpt.graph import Graph
from ckpt.planners.chain.chain import frontier
from ckpt.reports.table import show

GB = 10**9
PAPER_LAYERS, PAPER_STORED, PAPER_SQRT, PAPER_TIME = 1001, 48 * GB, 7 * GB, 0.30
SHARES = (0.5, 0.35, 0.25, 0.15, 0.1, 0.07, 0.05)
"""Budgets for the deepest net, as shares of its store-all peak."""
PLANNERS = ("greedy", "chain", "dtr")
AT_COST = "chain:at sqrt's cost"


def growth_rows(graph: Graph) -> list[Row]:
    """Store-all, sqrt, and the least memory that chain finds for no more recompute than sqrt's."""
    rows = [plan_row(graph, "store_all"), plan_row(graph, "sqrt")]
    allowed = rows[1]["recompute_overhead"] * graph.forward_flops
    least = min(step.budget for step in frontier(graph) if step.recompute_cost <= allowed)
    return [*rows, plan_row(graph, "chain", least) | {"planner": AT_COST}]


def cost_rows(graph: Graph, stored: int, sqrt: int) -> list[Row]:
    """What other planners pay for sqrt's peak, and two of them for other budgets."""
    rows = [plan_row(graph, planner, sqrt) for planner in PLANNERS]
    for share in SHARES:
        rows += [plan_row(graph, planner, int(share * stored)) for planner in ("chain", "dtr")]
    return rows


def panels(growth: Sequence[Row], costs: Sequence[Row], paper: bool) -> list[Panel]:
    """Peak against depth; peak against extra FLOPs, for the deepest net."""
    lines = [
        Series(
            planner,
            [row["layers"] for row in growth if row["planner"] == planner],
            [row["peak_nbytes"] for row in growth if row["planner"] == planner],
            label=label,
        )
        for planner, label in (("store_all", ""), ("sqrt", ""), (AT_COST, "chain"))
    ]
    last = {row["planner"]: row for row in growth if row["layers"] == growth[-1]["layers"]}
    points = []
    for planner in ("sqrt", *PLANNERS):
        rows = [row for row in (last["sqrt"], *costs) if row["planner"] == planner]
        rows = sorted((r for r in rows if "peak_nbytes" in r), key=lambda r: r["step_overhead"])
        xs, ys = [r["step_overhead"] for r in rows], [r["peak_nbytes"] for r in rows]
        points.append(Series(planner, xs, ys))
    if paper:
        lines += [
            Series("store_all", [PAPER_LAYERS], [PAPER_STORED], "paper"),
            Series("sqrt", [PAPER_LAYERS], [PAPER_SQRT], "paper"),
        ]
        points.append(Series("sqrt", [PAPER_TIME], [PAPER_SQRT], "paper"))
    first = {row["planner"]: row for row in reversed(growth)}
    guides = {  # beside the line they are compared with, not on it
        kind: (first[planner]["layers"], 0.75 * first[planner]["peak_nbytes"])
        for kind, planner in (("n", "store_all"), ("sqrt n", "sqrt"))
    }
    return [
        Panel(
            lines,
            title="Memory against depth",
            x_label="layers",
            y_label="peak bytes",
            y_unit="nbytes",
            guides=guides,
        ),
        Panel(
            points,
            title=f"What memory costs, {growth[-1]['layers']} layers",
            x_label="recompute, share of a plain step's FLOPs (paper: of its time)",
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
    parser.add_argument("--blocks", type=int, nargs="+", default=[21, 42, 83, 166, 333])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="pixels of an image's side")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--folder", type=Path, default=PLOTS)
    args = parser.parse_args(arguments)
    growth: list[Row] = []
    for blocks in sorted(args.blocks):
        graph = trace(
            "chen-resnet-1000", depth=blocks, batch=args.batch, size=args.size, width=args.width
        )
        growth += [{"layers": 3 * blocks + 2, **row} for row in growth_rows(graph)]
    stored, sqrt = growth[-3]["peak_nbytes"], growth[-2]["peak_nbytes"]
    costs = [{"layers": growth[-1]["layers"], **row} for row in cost_rows(graph, stored, sqrt)]
    show([*growth, *costs], title="The residual nets of Chen et al. 2016, section 5.3")
    paper = (max(args.blocks), args.batch, args.size, args.width) == (333, 32, 224, 64)
    drawn = growth_figure(
        panels(growth, costs, paper),
        title="chen_sqrt: a seventh of the memory, a third more arithmetic",
        caption=f"Bottleneck residual nets laid out as in the authors' code, batch {args.batch}, "
        f"{args.size} x {args.size} pixels, float32; predicted by simulation of traced shapes, no "
        "array made. Peak: activations, cotangents, workspace. The paper's bytes are MXNet's "
        "static plan of feature maps, its 30 % is time on a GPU. Left: chain for at most sqrt's "
        "FLOPs; right: chain and dtr within budgets of 5 to 50 % of store all.",
    )
    draw("chen_sqrt", drawn, args.folder)
    return growth + costs


if __name__ == "__main__":
    main()
