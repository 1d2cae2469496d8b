"""``ckpt plan``: make a backward pass fit a number of bytes."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated, Any

import typer

from ckpt.cli import options as o
from ckpt.cli.run import document, note
from ckpt.cli.shared import words


def plan(
    target: o.TargetArgument,
    budget: Annotated[
        str | None,
        typer.Option(
            help="The most bytes live at once: 64MiB, or 25% of what store-all needs.",
            autocompletion=words.budgets,
        ),
    ] = None,
    planner: Annotated[
        str,
        typer.Option(
            help="Who plans, with its option after a colon, as in every:4.",
            autocompletion=words.planners,
        ),
    ] = "auto",
    cost: Annotated[
        str,
        typer.Option(
            help="What recomputing costs: flops, bytes moved, or seconds measured here.",
            autocompletion=words.costs,
        ),
    ] = "flops",
    time_limit: Annotated[
        float | None,
        typer.Option(
            min=0, help="Seconds for auto (by default 60) or a solver to give the best it has."
        ),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Count inputs, parameters and gradients too.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Run it: is the peak kept, are gradients equal?")
    ] = False,
    compile_: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="JAX: the budget is of what the compiled step allocates, or of the graph's bytes. "
            "[default: compiled, unless a planner, a cost or the whole is asked for]",
            show_default=False,
        ),
    ] = None,
    witness: o.ByWitness = None,
    depth: o.Depth = None,
    width: o.Width = None,
    batch: o.Batch = None,
    dtype: o.Dtype = None,
    segments: o.Segments = None,
    set_: o.Set = None,
    seed: o.Seed = 0,
    fake: o.Fake = False,
    jobs: o.Jobs = None,
    cluster: o.Cluster = None,
    json: o.Json = False,
    output: o.Outputs = None,
) -> None:
    """Plan which values of TARGET's step are kept and which recomputed, within --budget.

    Prints the plan in words, what sets its peak, and a certificate of how far from the best it can
    be. -o plan.json saves it for show, simulate and execute; -o plan.svg draws it.
    """
    from ckpt.cli import outputs
    from ckpt.cli import target as targets
    from ckpt.cli.progress import search
    from ckpt.cli.shared.plans import as_compiled, described, is_plan
    from ckpt.errors import BudgetError, UsageError
    from ckpt.models.memory import require
    from ckpt.reports.exports import dumps
    from ckpt.studies.plan import Step
    from ckpt.studies.plan import plan as run

    paths = outputs.check(output or (), Step)
    given = o.model_options(
        set_, depth=depth, width=width, batch=batch, dtype=dtype, segments=segments
    )
    chosen = targets.load(target, given, seed, fake=fake)
    of_graph = planner != "auto" or cost != "flops" or whole
    if compile_ and (of_graph or not chosen.jax):
        raise UsageError(
            "--compile is for functions of JAX, whose plans are searched among what XLA compiles: "
            "without --planner, --cost and --whole"
        )
    compiling = chosen.jax and not of_graph and compile_ is not False
    given_how = {"time_limit": time_limit, "jobs": jobs, "cluster": cluster}
    how: dict[str, Any] = {name: value for name, value in given_how.items() if value is not None}
    if compiling and (jobs or cluster):
        raise UsageError("--jobs and --cluster share a graph's planning; add --no-compile")
    program = None if compiling else chosen.program(frozen=True)
    arrays = chosen.arrays() if cost == "seconds" else ()
    kept = o.kept(planner=(planner, "auto"), cost=(cost, "flops"), whole=(whole, False))
    kept += o.kept(fake=(fake, False), seed=(seed, 0))
    kept += ["--no-compile"] if compile_ is False else []
    wanted: dict[str, Any] = {"budget": budget, "planner": planner, "whole": whole, "cost": cost}
    try:
        if program is None:
            step = chosen.compiled(budget)
        else:
            with search() if planner.partition(":")[0] == "auto" else nullcontext():
                step = run(program, *arrays, **wanted, **how)
    except BudgetError as error:
        if error.smallest is None:
            raise
        graph = program.graph if program and whole else None
        beside = graph.resident_nbytes + graph.gradient_nbytes if graph else 0
        options = ["--budget", f"{error.smallest + beside}B"]
        error.next = o.again("plan", target, given=given, more=[*options, *kept])  # type: ignore[attr-defined]
        raise
    verified = None
    if verify:
        require(step.timeline.whole_peak, f"one step of {chosen.name}")
        by: dict[str, Any] = {} if compiling else {"witness": witness}
        verified = step.verify(*chosen.arrays(), **by)
    if json:
        document(dumps(as_compiled(step, verified) if compiling else described(step, verified)))
    else:
        print(step)
        if verified:
            print(verified)
    outputs.write(paths, step.plan if compiling else step)
    saved = next((p for p in paths if is_plan(p)), None)
    if saved and chosen.real:
        note(f"next: {o.again('execute', saved, target, given=given)}")
    elif saved:
        note(f"next: {o.again('show', saved, more=['-o', saved.with_suffix('.html')])}")
    else:
        more = [*(["--budget", budget] if budget else []), *kept]
        more += [*(["--verify"] if chosen.real and not verify else []), "-o", "plan.json"]
        note(f"next: {o.again('plan', target, given=given, more=more)}")
