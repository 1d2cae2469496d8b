"""What do snapshots cost a simulation of many steps? Binomial checkpointing on the wave equation.

Question: does a schedule for the adjoint of n leapfrog steps do as few steps as Griewank & Walther
2000 (Algorithm 799, Revolve) prove possible with s snapshots, up to n = 10,000? And is it the best
use of the memory that s snapshots take?
Theory says: with r the least integer such that n <= C(s + r, s), a step is advanced at most r
times, η = r n - C(s + r, r - 1) advances in all, besides n that a Backward follows. So at fixed s
the advances a step, r, grow as the s-th root of n, and log n snapshots make do with log n.
Run: python experiments/revolve_wave.py [--steps 30 100 300 1000 3000 10000] [--size 64]
Found: from 30 steps on, every schedule advances exactly η times (19 pairs of n and s, up to 54,525
advances; of shorter programs the stages are finer than steps). 30 snapshots do 10,000 steps with
3.4 advances a step, 3 snapshots 3,000 steps with 18. In FLOPs it is a little less than η, for the
pass that a Backward follows stops at the Laplacian: 319 % of the forward at n = 1000, s = 10, where
η / n is 3.64. The least memory that binomial snapshots buy, 322 KiB of 9.6 MiB at n = 300, costs
15 forwards. Two time levels cross a cut, but a step keeps one Laplacian, so it pays to keep
tapes: in the same bytes mixed needs 1.3 to 2.1 times fewer FLOPs than revolve from 1 MiB on, and
chain the fewest up to 1.4 MiB. Above, chain leaves bytes unused: at 55 % of store-all it recomputes
64 % of the forward, dtr 46 %. Below that dtr thrashes (343 % at n = 200 and half of store-all).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import comb
from pathlib import Path

from figure_growth import Panel, Series, growth_figure
from planning import PLOTS, Row, draw, plan_row, simulated, trace

from ckpt.graph import Graph
from ckpt.planners.revolve.revolve import eta
from ckpt.reports.table import show

SNAPSHOTS = (3, 5, 10, 30)
OTHERS = (2, 3, 4, 5, 7, 10, 15, 20, 30, 45, 70, 100, 150)
"""Numbers of snapshots whose peaks the other planners are given."""
MOST_EVALUATIONS = 60_000
"""Of steps, in a schedule that is simulated: a second or two."""


def evaluations(graph: Graph, planner: str, budget: int | None = None) -> tuple[int, int]:
    """How often any step was evaluated, counted on its Laplacian, and the peak."""
    timeline = simulated(graph, planner, budget)
    steps = [c for c, node in zip(timeline.counts, graph, strict=True) if node.op == "laplacian"]
    return sum(steps), timeline.peak


def growth_rows(steps: Sequence[int], size: int) -> list[Row]:
    """Advances by revolve, counted in its schedule and in closed form, for SNAPSHOTS."""
    rows = []
    for n in steps:
        graph = trace("wave", depth=n, size=size)
        for s in (s for s in SNAPSHOTS if s < n and eta(n, s) + n <= MOST_EVALUATIONS):
            found, peak = evaluations(graph, f"revolve:{s}")
            advances = found - n
            rows.append(
                {
                    "steps": n,
                    "snapshots": s,
                    "peak_nbytes": peak,
                    "advances": advances,
                    "closed_form": eta(n, s),
                    "equal": advances == eta(n, s),
                    "each": advances / n,
                }
            )
    return rows


def memory_rows(n: int, size: int) -> list[Row]:
    """Revolve with s snapshots, and other planners within the peak that it has."""
    graph = trace("wave", depth=n, size=size)
    rows = [plan_row(graph, "store_all"), plan_row(graph, "sqrt")]
    for s in (s for s in OTHERS if s < n):
        row = plan_row(graph, f"revolve:{s}")
        rows += [row, plan_row(graph, f"mixed:{s}")]
        rows.append(plan_row(graph, "chain", row["peak_nbytes"]))
    stored = rows[0]["peak_nbytes"]
    rows += [
        plan_row(graph, "dtr", int(share * stored)) for share in (0.95, 0.85, 0.75, 0.65, 0.55)
    ]
    return [{"steps": n, **row} for row in rows]


def panels(growth: Sequence[Row], memory: Sequence[Row], most: int) -> list[Panel]:
    """Advances a step against steps; peak against recompute."""
    binomial = []
    for s in dict.fromkeys(row["snapshots"] for row in growth):
        # where η changes its slope, n = C(s + r, s), and a few points between
        lengths = [comb(s + r, s) for r in range(1, 200) if 10 <= comb(s + r, s) < most]
        lengths = sorted({*lengths, *(round(10 * (most / 10) ** (k / 40)) for k in range(41))})
        name = f"{s} snapshots"
        rows = [row for row in growth if row["snapshots"] == s]
        binomial += [Series(name, [r["steps"]], [r["each"]]) for r in rows]
        binomial.append(Series(name, lengths, [eta(n, s) / n for n in lengths], "theory"))
    planners = []
    for name in ("sqrt", "revolve", "mixed", "chain", "dtr"):
        rows = [r for r in memory if r["planner"].split(":")[0] == name and "peak_nbytes" in r]
        rows = sorted(rows, key=lambda r: r["recompute_overhead"])
        xs, ys = [r["recompute_overhead"] for r in rows], [r["peak_nbytes"] for r in rows]
        planners.append(Series(name, xs, ys))
    return [
        Panel(
            binomial,
            title="Advances with a fixed number of snapshots",
            x_label="steps",
            y_label="advances a step",
        ),
        Panel(
            planners,
            title=f"What memory costs, {memory[0]['steps']} steps",
            x_label="recompute, share of a forward's FLOPs",
            y_label="peak bytes",
            x_unit="ratio",
            y_unit="nbytes",
            plans=True,
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print and draw; returns the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[30, 100, 300, 1000, 3000, 10_000])
    parser.add_argument("--memory-steps", type=int, default=300, help="for the other planners")
    parser.add_argument("--size", type=int, default=64, help="points of the grid's side")
    parser.add_argument("--folder", type=Path, default=PLOTS)
    args = parser.parse_args(arguments)
    growth = growth_rows(sorted(args.steps), args.size)
    show(growth, title="Revolve on the wave equation: advances counted, and in closed form")
    memory = memory_rows(args.memory_steps, args.size)
    show(memory, title="The same memory by other planners")
    figure = growth_figure(
        panels(growth, memory, max(args.steps)),
        title="revolve_wave: binomial snapshots on the wave equation",
        caption=f"Leapfrog on {args.size} x {args.size} points, float64; schedules simulated on "
        "traced shapes, no array made. Left: lines are Griewank & Walther's closed form, points "
        "are counted in our schedules. Right: s snapshots for revolve and mixed; chain in "
        "revolve's memory; dtr in 55 to 95 % of store-all's.",
    )
    draw("revolve_wave", figure, args.folder)
    return growth + memory


if __name__ == "__main__":
    main()
