"""``ckpt compare``: two saved profiles or plans, before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ckpt.cli import options as o
from ckpt.cli.run import document, note

_FILE = "A saved plan or profile: -o a.plan.json, -o a.profile.json."


def compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help=_FILE)],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help=_FILE)],
    json: o.Json = False,
) -> None:
    """Compare two plans or profiles - before and after a change, with two NumPys - line by line.

    The bytes that each line has live at the peak, and what it recomputes.
    """
    import ckpt.studies.plan
    import ckpt.studies.profile  # noqa: F401  - plans and profiles are read as well
    from ckpt.errors import UsageError
    from ckpt.reports import documents, table
    from ckpt.reports.exports import dumps
    from ckpt.studies import compare as study

    found = []
    for path in (before, after):
        read = documents.read(path)
        if not isinstance(read, documents.Planned):
            raise UsageError(f"{path} holds no plan and no profile: there are no peaks to compare")
        found.append(read)
    rows, verdict = study.moved(*found), study.verdict(*found)
    if json:
        document(dumps({"title": "ckpt compare", "verdict": verdict, "rows": rows}))
    else:
        print("\n".join(verdict))
        if rows:
            print()
            table.show(rows, study.COLUMNS, title="what moved, by line: live at the peak")
        else:
            print("nothing moved")
    note(f"next: {o.again('show', after)}")
