"""How far from the best possible are the planners?

Question: on small chains, where the optimum is known by exhaustive search, and on nets, where a
lower bound is: how much does each planner recompute beyond it?
Theory says: chain is optimal among schedules that keep what they keep until its last use (Beaumont
et al. 2019, section 4), ilp in the class that its notes name; others may beat both. sqrt and greedy
keep boundaries only, revolve and mixed take stages for equal, dtr decides online. auto asks all of
them, and on graphs as small as these chains exhaustive search too, so that its gap there is none.
On nets the gap is to a lower bound, and may be the bound's.
Run: python experiments/planner_gaps.py [--chains 30] [--stages 7] [--seed 0] [--models gpt ...]
    [--large gpt2 ...] [--write]
Found: on 30 chains of 7 stages, at 25, 50 and 75 % of the way from the least possible peak to
store-all's, auto and ilp are optimal in all 90. chain, lp_round and dtr always find a plan, and
recompute 7, 2.0 and 1.4 % of a forward beyond the optimum on average (chain), 2.1, 2.8 and 0.8
(lp_round), 5, 5 and 2.4 (dtr). greedy: 9 to 14 %, in 85 of 90 cases; sqrt 22 to 33 %, in 66; mixed
67 to 102 % and revolve 96 to 135 %, whose stages these are not.
On nets, in percent of a forward: at 75 % of store-all chain needs 0.7 (resnet), 1.0 (gpt), 6 (lstm)
and 15 (unet), where auto ends at 0.6, 1.0, 0.1 and 5.6; at half, 28 (resnet), 20 (gpt), 32 (lstm)
where auto ends at 8, 19.5 and 17. dtr is ahead of chain on resnet at half, unet and wave at 75 %.
auto is proved optimal on the mlp at half and 75 %, and on the residual_mlp, by the certificate that
a plan comes with.
Large nets, in the budgets of `LARGE`, which are a half to a tenth of the store-all peak of release
0.1, plan / bound: gpt (12 layers) 47.0 / 46.9 and 12.5 / 12.2 %, gpt2 8.4 (optimal), gpt2-xl 4.3 /
4.2, unet 2.4 / 2.3, resnet 2.5 / 2.3 and 61.7 / 47.6, resnet50 2.3 / 2.3 in half and 26.2 / 19.3 in
a quarter, wave 58.7 / 55.9 and 227.8 / 112.9, lstm 76.2 / 64.7, residual_mlp 34.6 / 34.5 and 57.0 /
56.5. Each took at most 31 s, certificate and all (SciPy's HiGHS, one thread). Of the last, four
times the effort proves 56.6, and eight times, with the moments 0, 4, 5 and 9, 56.8. 66.99 % are
enough for the lstm if its loss may be computed when the backward is over; with its loss before it,
as the user has it, that schedule recomputes 87.1 %, and 84.8 after the local search. wave's graph,
bytes and `chain`'s plan are those of 0.1: 203 % was found by a search for waves alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from statistics import mean
from time import perf_counter
from typing import TYPE_CHECKING, Any

from planning import PLOTS, Row, draw, plan_row, simulated, trace, write_table

from ckpt.graph import BackwardRow, BackwardStep, Graph, Node
from ckpt.planners.base.registry import get
from ckpt.planners.bounds.certificate import certify
from ckpt.planners.bounds.lower import lower_bounds
from ckpt.reports.canvas import dress, halo, legend, new_figure
from ckpt.reports.style import FAINT, look, words
from ckpt.reports.table import show

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROUND = "#E2E2E2"
"""Where no schedule can be."""

SHARES = (0.25, 0.5, 0.75)
PLANNERS = ("sqrt", "greedy", "revolve", "mixed", "chain", "dtr", "auto")
PROGRAMS = ("lp_round", "ilp")
"""Asked on chains only: nets take them minutes."""

MODELS: dict[str, tuple[str, dict[str, int]]] = {
    "mlp": ("mlp", {"depth": 16}),
    "residual_mlp": ("residual_mlp", {"depth": 12}),
    "resnet": ("resnet", {"depth": 9}),
    "mobilenet": ("mobilenet", {"depth": 13}),
    "unet": ("unet", {"depth": 3}),
    "gpt": ("gpt", {"depth": 4}),
    "lstm": ("lstm", {"depth": 12, "layers": 1}),
    "wave": ("wave", {"depth": 40}),
}
"""Label -> model and options: small enough for a bound in seconds."""

LARGE: tuple[tuple[str, dict[str, int], tuple[int, ...]], ...] = (
    ("gpt", {"depth": 12}, (14_579_202, 29_158_404)),
    ("gpt2", {}, (4_801_667_074,)),
    ("gpt2-xl", {}, (33_884_708_866,)),
    ("unet", {}, (5_569_923,)),
    ("resnet", {}, (26_536_386, 13_268_193)),
    ("resnet50", {}, (1_355_456_258, 677_728_129)),
    ("wave", {"depth": 40}, (2_983_956, 1_491_978)),
    ("lstm", {"depth": 12, "layers": 1}, (258_050,)),
    ("residual_mlp", {"depth": 100}, (33_034_241, 13_213_696)),
)
"""Model or preset, options, budgets in bytes: shares of the store-all peak in 0.1."""


def random_chain(stages: int, seed: int) -> Graph:
    """Stages of one node, of random bytes and FLOPs; each Backward reads its input and output."""
    rng = Random(seed)
    nodes = [Node(name="x", op="input", nbytes=rng.randint(1, 100), resident=True)]
    steps, rows = [], []
    for k in range(1, stages + 1):
        flops, nbytes = rng.randint(1, 100), rng.randint(1, 100)
        nodes.append(Node(name=f"stage {k}", op="stage", deps=(k - 1,), nbytes=nbytes, flops=flops))
        made, step = nodes[k - 1].nbytes if k > 1 else 0, stages - k
        kind: Any = "cotangent" if k < stages else "seed"
        first = step - 1 if k < stages else 0
        rows.append(BackwardRow(kind=kind, nbytes=nbytes, first=first, last=step, whose=k))
        steps.append(
            BackwardStep(
                label="stage", reads=(k - 1, k), flops=2 * flops, during=nbytes + made, at=k
            )
        )
    return Graph(tuple(nodes), tuple(steps[::-1]), tuple(rows), (stages,), name=f"chain {seed}")


def gap_rows(
    graph: Graph, label: str, budget: int, share: float, best: int, planners: Iterable[str]
) -> Iterator[Row]:
    """Each planner's recompute, and what of it is beyond ``best`` FLOPs, as shares of a forward."""
    for planner in planners:
        row = {"graph": label, "budget_share": share, **plan_row(graph, planner, budget)}
        row["best_overhead"] = best / graph.forward_flops
        if "recompute_overhead" in row:
            row["beyond_overhead"] = row["recompute_overhead"] - row["best_overhead"]
        yield row


def chain_rows(chains: int, stages: int, seed: int) -> list[Row]:
    """Random chains; shares of the way from the smallest feasible peak to store-all's."""
    rows: list[Row] = []
    for k in range(chains):
        graph = random_chain(stages, 1000 * seed + k)
        least = int(plan_row(graph, "brute", 1)["least_nbytes"])
        most = simulated(graph, "store_all").peak
        for share in SHARES:
            budget = int(least + share * (most - least))
            best = simulated(graph, "brute", budget).recompute_flops
            rows += gap_rows(graph, graph.name, budget, share, best, (*PLANNERS, *PROGRAMS))
    return rows


def model_rows(models: Sequence[str]) -> list[Row]:
    """Nets; shares of the store-all peak, against the best lower bound."""
    rows: list[Row] = []
    for label in models:
        name, options = MODELS[label]
        graph = trace(name, **options)
        most = simulated(graph, "store_all").peak
        for share in SHARES:
            bound = lower_bounds(graph, int(share * most))[0].cost
            if bound is None:
                rows.append({"graph": label, "budget_share": share, "outcome": "impossible"})
            else:
                rows += gap_rows(graph, label, int(share * most), share, bound, PLANNERS)
    return rows


def large_rows(models: Sequence[str]) -> list[Row]:
    """What `auto` finds for the large ones, what is proven, and what both take."""
    rows: list[Row] = []
    for name, options, budgets in LARGE:
        if name not in models:
            continue
        graph = trace(name, **options)
        for budget in budgets:
            began = perf_counter()
            schedule = get("auto")[0](graph, budget)
            planned = perf_counter()
            found = certify(graph, schedule, budget)
            rows.append(
                {
                    "graph": f"{name} {graph_options(options)}".strip(),
                    "budget_nbytes": budget,
                    "plan_overhead": found.recompute / found.forward,
                    "bound_overhead": (found.bound.cost or 0) / found.forward,
                    "gap_points": f"{100 * found.gap_forward:.2f}",
                    "step_points": f"{100 * found.gap_step:.2f}",
                    "solver": found.bound.solver or found.bound.name,
                    "planning_seconds": planned - began,
                    "bound_seconds": perf_counter() - planned,
                }
            )
            print(f"{rows[-1]['graph']} at {budget}: {found.verdict}", file=sys.stderr)
    return rows


def graph_options(options: dict[str, int]) -> str:
    return " ".join(f"{key} {value}" for key, value in options.items())


def abreast(rows: Sequence[Row]) -> list[Row]:
    """One row a net and budget: the bound, and each planner's recompute."""
    found: dict[tuple[str, float], Row] = {}
    for row in rows:
        key = row["graph"], row["budget_share"]
        wide = found.setdefault(key, {"graph": key[0], "budget": f"{key[1]:.0%}"})
        if row["outcome"] != "impossible":
            wide["bound_overhead"] = row["best_overhead"]
            wide[f"{row['planner']}_overhead"] = row.get("recompute_overhead")
    return list(found.values())


def proven(rows: Sequence[Row]) -> list[str]:
    """A table in Markdown, a line a net: what `auto` recomputes, and what none does without."""
    shares = sorted({row["budget_share"] for row in rows}, reverse=True)
    found = [
        f"| net | {' | '.join(f'{100 * share:.0f} % of store-all' for share in shares)} |",
        f"|---|{'--:|' * len(shares)}",
    ]
    for label in dict.fromkeys(row["graph"] for row in rows):
        name, options = MODELS[label]
        cells = [_proven([r for r in rows if (r["graph"], r["budget_share"]) == (label, share)])
                 for share in shares]  # fmt: skip
        found.append(f"| `{name}` {graph_options(options)} | {' | '.join(cells)} |")
    return found


def _proven(asked: Sequence[Row]) -> str:
    if asked[0]["outcome"] == "impossible":
        return "impossible"
    plan = next(r.get("recompute_overhead") for r in asked if r["planner"] == "auto")
    bound = asked[0]["best_overhead"]
    return f"{'none found' if plan is None else f'{100 * plan:.1f}'} / {100 * bound:.1f}"


def summary(rows: Sequence[Row]) -> list[Row]:
    """Per planner and share: how often it has a plan, the mean and worst beyond the optimum."""
    found = []
    for planner in (*PLANNERS, *PROGRAMS):
        for share in SHARES:
            asked = [r for r in rows if (r["planner"], r["budget_share"]) == (planner, share)]
            beyond = [row["beyond_overhead"] for row in asked if "beyond_overhead" in row]
            found.append(
                {
                    "planner": planner,
                    "budget": f"{share:.0%} of the way",
                    "plans": f"{len(beyond)} of {len(asked)}",
                    "optimal": sum(gap < 1e-12 for gap in beyond),
                    "mean_beyond_overhead": mean(beyond) if beyond else None,
                    "worst_beyond_overhead": max(beyond, default=None),
                }
            )
    return found


def figure(chains: Sequence[Row], models: Sequence[Row], caption: str) -> Any:
    """Left: beyond the optimum of each chain. Right: recompute on nets, beside the bound."""
    from matplotlib.lines import Line2D

    sheet = new_figure(
        13, 6.2, title="planner_gaps: how far from the best possible are the planners?",
        caption=caption,
    )  # fmt: skip
    left, right = sheet.subplots(1, 2, width_ratios=(1, 1.25))
    _chains(left, chains)
    _models(right, models)
    handles = []
    for planner in PLANNERS:
        style = look(planner)
        handles.append(
            Line2D([], [], color=style.colour, marker=style.marker, ls="none", mec="white",
                   mew=0.5, ms=8 * style.scale, label=words(planner))
        )  # fmt: skip
    legend(right, handles, loc="upper center", bbox_to_anchor=(0.45, -0.11), ncol=7)
    return sheet


def _chains(axes: Axes, rows: Sequence[Row]) -> None:
    """A row a planner: every plan a dot, their mean a marker, and how many there are."""
    dress(axes, title="Random chains: beyond the exact optimum", grid="x",
          x="recompute beyond the optimum, share of a forward")  # fmt: skip
    order = (*PLANNERS, *PROGRAMS)
    for place, planner in zip(range(len(order))[::-1], order, strict=True):
        asked = [row for row in rows if row["planner"] == planner]
        style = look(planner)
        for k, share in enumerate(SHARES):
            beyond = [r["beyond_overhead"] for r in asked
                      if r["budget_share"] == share and "beyond_overhead" in r]  # fmt: skip
            y = place - 0.24 + 0.24 * k
            axes.plot(beyond, [y] * len(beyond), ".", color=style.colour, ms=4, alpha=0.35, mew=0)
            if beyond:
                edge = style.colour if style.marker == "1" else "white"  # that one is all edge
                axes.plot([mean(beyond)], [y], style.marker, color=style.colour, mec=edge,
                          mew=1.5 if style.marker == "1" else 0.5, ms=7 * style.scale)  # fmt: skip
        plans = sum("beyond_overhead" in row for row in asked)
        _note(axes, place, f"{plans} of {len(asked)}")
    _note(axes, len(order) - 0.4, "plans found")
    axes.set_yticks(range(len(order))[::-1], [words(planner) for planner in order])
    axes.set_ylim(-0.6, len(order) - 0.2)
    _share_axis(axes, (0, 0.1, 0.5, 1, 2, 5), 12)


def _note(axes: Axes, y: float, text: str) -> None:
    axes.text(
        1.0, y, text, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=8.5,
        color=FAINT, path_effects=halo(),
    )  # fmt: skip


def _models(axes: Axes, rows: Sequence[Row]) -> None:
    """A row a net and budget, more memory above; what the bound excludes is grey."""
    dress(axes, title="Nets: recompute, and what is proved impossible", grid="x",
          x="recompute, share of a forward")  # fmt: skip
    graphs = dict.fromkeys(row["graph"] for row in rows)
    cases = [(graph, share) for graph in graphs for share in sorted(SHARES, reverse=True)]
    places, labels, place = [], [], 0.0
    for k, (label, share) in enumerate(cases):
        place -= 1 if not k or cases[k - 1][0] == label else 1.6
        places.append(place)
        labels.append(
            f"{label}  {share:.0%}" if not k or cases[k - 1][0] != label else f"{share:.0%}"
        )
        asked = [row for row in rows if (row["graph"], row["budget_share"]) == (label, share)]
        impossible = asked[0]["outcome"] == "impossible"
        axes.barh([place], [1e3 if impossible else asked[0]["best_overhead"]], 0.9, color=GROUND)
        plans = [row for row in asked if "recompute_overhead" in row]
        for row in plans:
            style = look(row["planner"])
            axes.plot([row["recompute_overhead"]], [place], style.marker, color=style.colour,
                      mec="white", mew=0.5, ms=7.5 * style.scale)  # fmt: skip
        if not plans:
            why = "proved impossible" if impossible else "no planner has a plan"
            axes.text(0.01, place, why, va="center", fontsize=8.5, color=FAINT)
    axes.set_yticks(places, labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(place - 0.8, 0)
    _share_axis(axes, (0, 0.1, 0.5, 1, 2, 5, 10, 30), 60)


def _share_axis(axes: Axes, ticks: Sequence[float], high: float) -> None:
    """Linear up to a tenth of a forward, so that zero has a place; logarithmic beyond."""
    from matplotlib import ticker

    axes.set_xscale("symlog", linthresh=0.1, linscale=0.6)
    axes.set_xlim(-0.01, high)
    axes.xaxis.set_major_locator(ticker.FixedLocator(list(ticks)))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.xaxis.set_major_formatter(ticker.PercentFormatter(xmax=1, decimals=0))


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Print and draw; returns the rows."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--chains", type=int, default=30)
    parser.add_argument("--stages", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS))
    names = [name for name, _, _ in LARGE]
    parser.add_argument("--large", nargs="*", choices=names, default=names)
    parser.add_argument("--folder", type=Path, default=PLOTS)
    parser.add_argument("--write", action="store_true", help="write the README's table anew")
    args = parser.parse_args(arguments)
    chains = chain_rows(args.chains, args.stages, args.seed)
    show(summary(chains), title=f"{args.chains} random chains of {args.stages} stages, exactly")
    models = model_rows(args.models)
    show(abreast(models), title="Nets; bound: no schedule within the budget recomputes less")
    if args.write:
        write_table("planner_gaps", proven(models))
    drawn = figure(
        chains,
        models,
        f"Left: {args.chains} chains of {args.stages} stages of random bytes and FLOPs, seed "
        f"{args.seed}, at 25, 50 and 75 % of the way from the least possible peak to store-all's "
        "(three rows, from below); dots are plans, markers their means. Right: small nets of "
        "each family at 75, 50 and 25 % of the store-all peak; grey: excluded by a lower bound "
        "that holds for all schedules, and need not be reachable. Simulated.",
    )
    draw("planner_gaps", drawn, args.folder)
    large = large_rows(args.large)
    if large:
        show(large, title="Large nets: auto, and the bound for every schedule")
    return chains + models + large


if __name__ == "__main__":
    main()
