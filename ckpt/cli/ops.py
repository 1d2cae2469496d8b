"""``ckpt ops``: what has a rule."""

from __future__ import annotations

from typing import Annotated

import typer

from ckpt.cli import options as o
from ckpt.cli.run import document, note


def ops(
    word: Annotated[
        str, typer.Argument(help="Only those with this in a name.", metavar="[WORD]")
    ] = "",
    json: o.Json = False,
) -> None:
    """List the functions that can be differentiated, and what the backward of each one reads.

    Residuals are given for each operand that needs a gradient: a frozen one costs none. FLOPs are
    counted on operands of 64x64 float32. A second table says what a rule gives where there is no
    derivative: 0 at 0 for np.absolute, say.
    """
    from ckpt.errors import UsageError
    from ckpt.lesson.catalogue import op_rows
    from ckpt.reports import table
    from ckpt.reports.exports import dumps

    rows = [row for row in op_rows() if word in row["op"] or word in row["functions"]]
    if not rows:
        raise UsageError(f"no op has {word!r} in its name; `ckpt ops` lists them all")
    if json:
        document(dumps({"title": "ckpt ops", "rows": rows}))
    else:
        count = f"{len(rows)} ops have" if len(rows) > 1 else "1 op has"
        print(f"{count} a rule. Residuals: what the backward reads, by operand.\n")
        table.show(rows, ("op", "functions", "residuals", "flops"))
        chosen = [row for row in rows if row["without_derivative"]]
        if chosen:
            print("\nwhat a rule gives where there is no derivative:")
            table.show(chosen, ("op", "without_derivative"))
    note("next: ckpt profile mlp --by op")
