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
    """Show what a plan, profile, graph, schedule or timeline says; -o draws it.

    A plan is shown in words, with its certificate. Plans and profiles are also written in every
    other form that they have: -o plan.html, -o step.trace.json.
    """
    import ckpt.studies.plan
    import ckpt.studies.profile  # noqa: F401  - plans and profiles are read as well
    from ckpt.cli import outputs
    from ckpt.reports import documents, figure
    from ckpt.reports.files import acyclic, check_output
    from ckpt.reports.formats.shown import Shown

    document = documents.read(file)
    whole = isinstance(document, Shown)
    paths = (
        outputs.check(output or (), type(document))
        if whole
        else [check_output(path, figure.FIGURE_KINDS) for path in output or ()]
    )
    with acyclic():
        text = documents.describe(document, instructions=instructions)
    print(text, end="")
    if whole:
        outputs.write(paths, document)
    else:
        for path in paths:
            figure.save(documents.draw(document), path)
            note(f"wrote {path}")
    note(f"next: {_next(file, document, whole, bool(paths), instructions)}")


def _next(file: Path, document: object, whole: bool, drawn: bool, instructions: bool) -> str:
    """The page, then what `simulate` says, then the schedule itself: nothing twice."""
    from ckpt.graph import Graph

    if isinstance(document, Graph):
        return "ckpt simulate --help"
    if instructions:
        return "ckpt lesson"
    if whole and not drawn:
        return o.again("show", file, more=["-o", f"{file.name.partition('.')[0]}.html"])
    return o.again("simulate", file) if whole else o.again("show", file, more=["--instructions"])
