"""``ckpt execute``: run a plan that was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckpt.cli import options as o
from ckpt.cli.run import document, note


def execute(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="What `ckpt plan -o` wrote.")],
    target: o.TargetArgument,
    depth: o.Depth = None,
    width: o.Width = None,
    batch: o.Batch = None,
    dtype: o.Dtype = None,
    segments: o.Segments = None,
    set_: o.Set = None,
    seed: o.Seed = 0,
    witness: o.ByWitness = None,
    json: o.Json = False,
) -> None:
    """Run PLAN on TARGET, for which it must have been made, and hold it to its promises.

    The measured peak must be the predicted one, and the gradients those of plain backward, bit for
    bit; exit code 4 if they aren't.
    """
    from ckpt.cli import target as targets
    from ckpt.cli.shared.plans import described
    from ckpt.models.memory import require
    from ckpt.reports.exports import dumps
    from ckpt.studies.plan import load_plan

    loaded = load_plan(plan)
    given = o.model_options(
        set_, depth=depth, width=width, batch=batch, dtype=dtype, segments=segments
    )
    chosen = targets.load(target, given, seed)
    step = loaded.bind(chosen.program(frozen=True))
    require(step.timeline.whole_peak, f"one step of {chosen.name}")
    found = step.verify(*chosen.arrays(), witness=witness)
    if json:
        document(dumps(described(step, found)))
    else:
        print(found)
    note(f"next: {o.again('show', plan, more=['-o', 'plan.html'])}")
