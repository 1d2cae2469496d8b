"""``ckpt frontier``: every planner over a range of budgets."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ckpt.cli import options as o
from ckpt.cli.run import document, note
from ckpt.cli.shared import words
from ckpt.cli.signals import Stopped

_MARKS = "* no plan holds less for as little; - the planner finds none"


def frontier(
    target: o.TargetArgument,
    planners: Annotated[
        str | None,
        typer.Option(
            help="Planners to compare, with commas; by default all but the slowest.",
            autocompletion=words.planners_listed,
        ),
    ] = None,
    points: Annotated[
        int, typer.Option(min=2, help="How many budgets to try, where the curve bends.")
    ] = 8,
    budgets: Annotated[
        str | None,
        typer.Option(
            help="The budgets themselves, as in 64MiB,25%,50%.",
            autocompletion=words.budgets_listed,
        ),
    ] = None,
    iterations: Annotated[
        int, typer.Option(min=0, help="Local-search steps of auto, a budget.")
    ] = 15,
    time_limit: Annotated[
        float,
        typer.Option(min=0, help="Seconds for all planning; what isn't done then is left out."),
    ] = 120.0,
    depth: o.Depth = None,
    width: o.Width = None,
    batch: o.Batch = None,
    dtype: o.Dtype = None,
    segments: o.Segments = None,
    set_: o.Set = None,
    measure: o.Measure = True,
    seed: o.Seed = 0,
    fake: o.Fake = False,
    jobs: o.Jobs = None,
    cluster: o.Cluster = None,
    json: o.Json = False,
    output: o.Outputs = None,
) -> None:
    """Compare every planner on TARGET: peak memory against recompute cost.

    One figure of predicted lines and executed points, with the region that is proved impossible;
    and the table, with each plan's gap to the best that is possible. Writes
    plots/frontier-TARGET.png, .svg and .csv unless -o says otherwise. One that was stopped goes on
    where it was when the same command is given again.
    """
    from ckpt import planners as known
    from ckpt.cli import outputs
    from ckpt.cli import target as targets
    from ckpt.cli.progress import progress
    from ckpt.errors import WorkersError
    from ckpt.models.memory import require
    from ckpt.reports import exports, table
    from ckpt.reports.reproduce import reproduction
    from ckpt.studies import frontier as study
    from ckpt.studies.budgets.planned import is_late
    from ckpt.studies.journal import Journal, discard
    from ckpt.studies.kept import kept, to_keep
    from ckpt.text import filled
    from ckpt.units import rounded_up
    from ckpt.witness import malloc

    paths = outputs.check(output or outputs.named("frontier", target), study.Frontier)
    journal = outputs.partial(paths)
    given = o.model_options(
        set_, depth=depth, width=width, batch=batch, dtype=dtype, segments=segments
    )
    chosen = targets.load(target, given, seed, fake=fake)
    names = o.listed(planners, "--planners", str) or [
        name for name in known.names() if name not in study.LEFT_OUT
    ]
    limits = o.listed(budgets, "--budgets", str)
    program = chosen.program()
    real = measure and chosen.real
    if real:
        _, _, peak = known.resolve_budget(program.graph, None)
        beside = program.graph.resident_nbytes + program.graph.gradient_nbytes
        require(peak + beside, f"one step of {chosen.name}")
    total = len(names) * len(limits or range(points))
    arguments = {"target": chosen.name, **given, "planners": names, "points": points}
    about = reproduction(
        "ckpt frontier",
        {**arguments, "graph": program.graph.digest, "iterations": iterations, "measure": real},
        seed=seed,
    )
    with Journal(journal, about, kept) as written, progress(total, chosen.name) as tell:
        known_rows = {(row["planner"], row["budget_nbytes"]): row for row in written.rows}
        made = len(known_rows)

        def keep(row: dict[str, Any]) -> None:
            nonlocal made
            if not is_late(row) and (row["planner"], row["budget_nbytes"]) not in known_rows:
                written.write(to_keep(row))
                made += 1
            tell(row["planner"])

        try:
            found = study.frontier(
                program,
                *(chosen.arrays() if real else ()),
                planners=names,
                budgets=limits,
                points=points,
                measure=real,
                on_row=keep,
                iterations=iterations,
                time_limit=time_limit,
                known=known_rows.values(),
                jobs=jobs,
                cluster=cluster,
            )
        except (KeyboardInterrupt, Stopped, WorkersError):
            if made:
                note(f"{made} rows are in {journal}; the same command goes on from there")
            raise
    ran = max((row["measured_peak_nbytes"] or 0 for row in found.rows), default=0)
    if told := malloc.hint(ran):
        note(f"note: {told}")
    if found.untrusted:
        note(f"note: measured peaks are untrusted: {found.untrusted}")
    title = f"{chosen.name}: every planner"
    if json:
        document(exports.dumps({"title": title, "rows": found.rows, "bounds": found.bounds}))
    else:
        print(filled(found.summary().splitlines()), end="\n\n")
        table.show(found.by_budget(), table.BUDGET_COLUMNS, title="the best that was found")
        unit, _ = found.budgets
        heads = f"recompute in % of a forward, of each planner within a budget in {unit}"
        print()
        table.show(found.by_planner(), title=heads)
        print(_MARKS)
        for text in found.refusals():
            note(f"note: {text}")
    if found.knee:
        note(f"note: {found.next_useful(found.knee['predicted_peak_nbytes'])}")
    outputs.write(
        paths,
        found,
        about=reproduction("ckpt frontier", arguments, seed=seed),
        chosen=bool(output),
    )
    discard(journal)
    budget = rounded_up(found.knee["predicted_peak_nbytes"]) if found.knee else "100%"
    more = ["--budget", budget, *(["--verify"] if chosen.real else [])]
    more += o.kept(fake=(fake, False), seed=(seed, 0))
    note(f"next: {o.again('plan', target, given=given, more=more)}")
