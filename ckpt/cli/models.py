"""``ckpt models``: the workloads there are."""

from __future__ import annotations

import textwrap
from typing import Annotated, Any

import typer

from ckpt.cli import options as o
from ckpt.cli.run import document, note
from ckpt.cli.shared import words
from ckpt.units import format_bytes


def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Only these; by default all.",
            metavar="[NAME]...",
            autocompletion=words.models,
        ),
    ] = None,
    json: o.Json = False,
) -> None:
    """List models and presets: options, parameters, nodes, forward FLOPs, activation bytes.

    Found by tracing shapes; nothing of their size is allocated.
    """
    from ckpt import models as known
    from ckpt.cli.progress import progress
    from ckpt.models.facts import facts
    from ckpt.reports import table
    from ckpt.reports.exports import dumps
    from ckpt.text import filled

    rows = []
    with progress(len(names or known.names()), "tracing") as tell:
        for name in names or known.names():
            rows.append(facts(known.build(name)).row())
            tell(name)
    if json:
        document(dumps({"title": "ckpt models", "rows": rows}))
    else:
        print(filled(_verdict(rows)), end="\n\n")
        table.show(rows, [column for column in rows[0] if column != "options"])
        print("\noptions, as --NAME VALUE or --set NAME=VALUE:")
        for row in rows:
            text = f"{row['model']}: {row['options']}"
            print(textwrap.fill(text, 80, subsequent_indent="  ", break_on_hyphens=False))
    note(f"next: {o.again('profile', rows[0]['model'], more=['--no-measure'])}")


def _verdict(rows: list[dict[str, Any]]) -> list[str]:
    """How many there are, how large, and what the columns count."""
    most = max(rows, key=lambda row: int(row["activations_nbytes"]))
    size = format_bytes(most["activations_nbytes"])
    many = f"{len(rows)} models and presets" if len(rows) > 1 else "1 model"
    return [
        f"{many}; a step of {most['model']} keeps {size} where nothing is recomputed.",
        "Activations: what is kept from forward to backward. Nothing was allocated.",
    ]
