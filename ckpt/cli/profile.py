"""``ckpt profile``: what one step keeps in memory, what each byte is for, and what it costs."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated, Any

import typer

from ckpt.cli import options as o
from ckpt.cli.run import document, note
from ckpt.cli.shared import words

_SORT = (
    "Order of the table: a column (kept_nbytes, nbytes, forward_flops, backward_flops, "
    "recompute_flops, computed, op, source, ...), or order, as executed."
)
_COLUMNS = (
    "what", "name", "op", "line", "scope", "source", "shape", "kept_nbytes", "share_percent",
    "forward_flops", "backward_flops", "recompute_flops", "text", "dtype", "nodes", "computed",
    "nbytes",
)  # fmt: skip


def profile(
    target: o.TargetArgument,
    depth: o.Depth = None,
    width: o.Width = None,
    batch: o.Batch = None,
    dtype: o.Dtype = None,
    segments: o.Segments = None,
    set_: o.Set = None,
    by: Annotated[
        str,
        typer.Option(
            help="A row for what is alike, or a node, op, line or scope.",
            autocompletion=words.groups,
        ),
    ] = "alike",
    sort: Annotated[str, typer.Option(help=_SORT, autocompletion=words.orders)] = "kept_nbytes",
    top: Annotated[int, typer.Option(min=1, help="Rows of the table; the rest are one row.")] = 15,
    planner: Annotated[
        str,
        typer.Option(
            help="Who chooses what is kept: as_written, or a planner's name.",
            autocompletion=words.planners,
        ),
    ] = "as_written",
    budget: Annotated[
        str | None,
        typer.Option(
            help="For the planner: 64MiB, or 25% of store-all's peak.",
            autocompletion=words.budgets,
        ),
    ] = None,
    argnums: Annotated[
        str, typer.Option(help="Numbers of the arguments to differentiate, as in 0,1.")
    ] = "0",
    measure: o.MeasureIfItFits = None,
    repeats: o.Repeats = 1,
    witness: o.ByWitness = None,
    seed: o.Seed = 0,
    nan: Annotated[
        bool, typer.Option("--nan", help="Stop at the first value that holds a NaN or infinity.")
    ] = False,
    fake: o.Fake = False,
    json: o.Json = False,
    output: o.Outputs = None,
) -> None:
    """Profile one step (loss and gradients) of TARGET, predicted and measured.

    Prints the values that are kept, largest first, the peak and what is live at it, and where the
    FLOPs go. Figures show the live bytes over the step, data files the whole table.
    """
    from ckpt.cli import outputs
    from ckpt.cli import target as targets
    from ckpt.reports import table
    from ckpt.reports.exports import dumps
    from ckpt.reports.reproduce import reproduction
    from ckpt.studies.profile import Profile
    from ckpt.studies.profile import profile as run
    from ckpt.witness import malloc

    paths = outputs.check(output or (), Profile)
    given = o.model_options(
        set_, depth=depth, width=width, batch=batch, dtype=dtype, segments=segments
    )
    numbers = tuple(o.listed(argnums, "--argnums", int) or ())
    chosen = targets.load(target, given, seed, fake=fake)
    program = chosen.program(numbers if len(numbers) > 1 else numbers[0])
    common: dict[str, Any] = {"planner": planner, "budget": budget}
    found = run(program, measure=False, **common)
    ledger = found.ledger(sort=sort, top=top, by=None if by == "node" else by)
    if measure is not False and not chosen.real:
        note(f"note: {target} returns shapes alone, so nothing is measured")
    elif measure is not False and _fits(found.simulated.whole_peak, chosen.name, bool(measure)):
        with chosen.finite() if nan else nullcontext():
            arrays = chosen.arrays()
            found = run(program, *arrays, measure=True, repeats=repeats, witness=witness, **common)
        if told := malloc.hint(found.simulated.peak):
            note(f"note: {told}")
    own = chosen.own_terms(program, found.measured is not None)
    if json:
        document(dumps(found.to_dict() | ({"plain": own.to_dict()} if own else {})))
    else:
        print(f"{found}\n")
        if own:
            print(f"{own}\n")
        again = found.simulated.recompute_flops
        table.show(ledger, [c for c in _COLUMNS if again or c != "recompute_flops"])
    outputs.write(
        paths,
        found,
        about=reproduction("ckpt profile", {"target": chosen.name, **given}, seed=seed),
    )
    more = o.kept(argnums=(argnums, "0"), fake=(fake, False), seed=(seed, 0))
    if not paths:
        more += o.kept(planner=(planner, "as_written"), budget=(budget, None))
        more += ["--no-measure"] if measure is False else []
        more += ["--by", "line", "-o", "timeline.svg"]
        note(f"next: {o.again('profile', target, given=given, more=more)}")
    elif (half := found.advised.budget) and argnums == "0":
        more += ["--budget", half]
        note(f"next: {o.again('plan', target, given=given, more=more)}")
    else:
        more = o.kept(fake=(fake, False), seed=(seed, 0))
        note(f"next: {o.again('frontier', target, given=given, more=more)}")


def _fits(nbytes: int, name: str, asked: bool) -> bool:
    """Is there memory for a real run? If it was asked for and there isn't, StepMemoryError."""
    from ckpt.errors import StepMemoryError
    from ckpt.models.memory import require

    try:
        require(nbytes, f"one step of {name}")
    except StepMemoryError as error:
        if asked:
            raise
        note(f"note: predicted only: {error}")
        return False
    return True
