"""``ckpt show``: read a saved plan, graph, schedule or timeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckpt.cli import options as o
from ckpt.cli.run import note


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A JSON file of ckpt's.")],
    instructions: Annotated[
        bool, typer.Option("--instructions", help="Print the schedule, a line an instruction.")
    ] = False,
    output: o.Outputs = None,
) -> None:
    """Show what a plan, graph, schedule or timeline says; -o draws it.

    A plan is shown in words, with its certificate.
    """
    import ckpt.studies.plan  # noqa: F401  - plans are read as well
    from ckpt.cli import outputs
    from ckpt.graph import Graph
    from ckpt.reports import documents, figure

    paths = outputs.check(output or (), kinds=figure.FIGURE_KINDS)
    document = documents.read(file)
    print(documents.describe(document, instructions=instructions), end="")
    for path in paths:
        figure.save(documents.draw(document), path)
        note(f"wrote {path}")
    if isinstance(document, documents.Planned):
        note(f"next: {o.again('simulate', file, more=['-o', 'timeline.svg'])}")
    elif not isinstance(document, Graph):
        note(f"next: {o.again('show', file, more=['--instructions'])}")
