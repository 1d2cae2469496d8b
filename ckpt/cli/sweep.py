"""``ckpt sweep``: memory against recompute cost, over depths and strategies."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ckpt.cli import options as o
from ckpt.cli.run import document, note
from ckpt.cli.shared import words
from ckpt.cli.signals import Stopped

_MODEL = "residual_mlp"
_STRATEGIES = (
    "With commas: store_all, per_layer, sqrt, segments:K; planned, the least peak for at most "
    "sqrt's recompute, or planned@20%, for at most that share of a forward; or any planner's name "
    "with its option and budget, as in every:4 or chain@25%."
)


def sweep(
    model: Annotated[
        str, typer.Option(help="A model's or preset's name.", autocompletion=words.models)
    ] = _MODEL,
    depth: Annotated[
        int | None, typer.Option(help="The largest depth, in layers; by default the model's own.")
    ] = None,
    points: Annotated[
        int | None, typer.Option(help="How many depths up to it; 5 measured, 8 predicted.")
    ] = None,
    depths: Annotated[
        str | None, typer.Option(help="The depths themselves, as in 10,20,50.")
    ] = None,
    strategies: Annotated[
        str, typer.Option(help=_STRATEGIES, autocompletion=words.strategies)
    ] = "store_all,per_layer,sqrt,planned",
    segments: Annotated[
        str | None,
        typer.Option(help="Numbers of segments to try at the largest depth, as in 2,5,10,20."),
    ] = None,
    width: o.Width = None,
    batch: o.Batch = None,
    dtype: o.Dtype = None,
    set_: o.Set = None,
    measure: o.Measure = True,
    repeats: o.Repeats = 1,
    seed: o.Seed = 0,
    witness: o.ByWitness = None,
    jobs: o.Jobs = None,
    cluster: o.Cluster = None,
    json: o.Json = False,
    output: o.Outputs = None,
) -> None:
    """Run a model at depths up to --depth under each strategy: what memory costs in recompute.

    Every point is predicted and executed, and its gradients compared bit for bit. Writes
    plots/sweep.png, .svg and .csv, or plots/sweep-MODEL.*, unless -o says otherwise. A sweep that
    was stopped goes on where it was when the same command is given again. Without --jobs and
    --cluster it takes a process a CPU. CPU time is shown for --jobs 1 --repeats 5 or more:
    with less, noise is larger than the differences. By the clock it is in the files.
    """
    from ckpt.cli import outputs
    from ckpt.cli.progress import progress
    from ckpt.errors import VerificationError, WorkersError
    from ckpt.reports import table
    from ckpt.reports.exports import dumps
    from ckpt.studies import sweep as study
    from ckpt.studies.journal import discard
    from ckpt.studies.swept import Sweep

    paths = outputs.check(output or outputs.named("sweep", "" if model == _MODEL else model), Sweep)
    journal = outputs.partial(paths)
    given = o.model_options(set_, width=width, batch=batch, dtype=dtype)
    chosen = study.plan(
        model,
        depth=depth,
        depths=o.listed(depths, "--depths", int),
        points=points,
        strategies=o.listed(strategies, "--strategies", str) or (),
        segments=o.listed(segments, "--segments", int),
        measure=measure,
        repeats=repeats,
        seed=seed,
        witness=witness,
        **given,
    )
    if jobs is None and cluster is None:
        jobs = os.cpu_count() or 1
    made = 0
    with progress(len(study.with_references(chosen)), f"{model}, depth {chosen[-1].depth}") as tell:

        def count(row: study.Row) -> None:
            nonlocal made
            made += 1
            tell(f"{row['strategy']} at {row['depth']}")

        try:
            rows = study.run(chosen, jobs=jobs, cluster=cluster, path=journal, on_row=count)
        except (KeyboardInterrupt, Stopped, WorkersError):
            if made:
                note(f"{made} points are in {journal}; the same command goes on from there")
            raise
    found = Sweep(rows, chosen, jobs)
    if json:
        document(dumps({"title": "ckpt sweep", "rows": rows}))
    else:
        print("\n".join(study.verdict(rows)), end="\n\n")
        table.show([row for row in rows if row["strategy"] not in study.BEST], found.columns)
    for remark in study.remarks(rows):
        note(f"note: {remark}")
    outputs.write(paths, found, about=study.about(chosen, jobs), chosen=bool(output))
    discard(journal)
    if wrong := study.failures(rows):
        raise VerificationError("; ".join(wrong))
    full = {**given, "depth": chosen[-1].depth}
    more = ["--budget", study.next_budget(rows)]
    note(f"next: {o.again('plan', model, given=full, more=more)}")
