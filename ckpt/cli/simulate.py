"""``ckpt simulate``: what a saved schedule would do, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckpt.cli import options as o
from ckpt.cli.run import document, note


def simulate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A plan, or a graph (JSON).")],
    schedule: Annotated[
        Path | None,
        typer.Argument(
            metavar="[SCHEDULE]",
            help="A schedule of that graph: JSON, or text with a line an instruction.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Lines of what is live at the peak.")] = 10,
    json: o.Json = False,
    output: o.Outputs = None,
) -> None:
    """Perform a schedule on bytes and FLOPs alone: its peak, what is live then, its recompute.

    -o timeline.json writes the Timeline, -o timeline.svg draws it, -o step.html plays it.
    """
    import ckpt.studies.plan  # noqa: F401  - plans are read as well
    from ckpt.cli import outputs
    from ckpt.machine import simulate as performed
    from ckpt.planners import make_schedule
    from ckpt.reports.documents import explained, pair
    from ckpt.reports.exports import dumps
    from ckpt.reports.files import acyclic
    from ckpt.reports.formats.simulated import Simulation
    from ckpt.text import filled

    paths = outputs.check(output or (), Simulation)
    with acyclic():
        graph, timeline = pair(file, schedule)
        text = dumps(timeline.to_json()) if json else filled(explained(graph, timeline, top))
    document(text) if json else print(text)
    if paths:
        recomputes = timeline.recompute_flops > 0
        kept = performed(graph, make_schedule(graph, "store_all")) if recomputes else None
        outputs.write(paths, Simulation(graph, timeline, kept))
    if not paths:
        files = [file] if schedule is None else [file, schedule]
        note(f"next: {o.again('simulate', *files, more=['-o', 'timeline.svg'])}")
    elif schedule is None:
        note(f"next: {o.again('show', file, more=['--instructions'])}")
    else:
        note("next: ckpt lesson")
