"""Files a command writes: checked before any work, written whole, named on stderr."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ckpt.cli.run import note


def check(paths: Iterable[Path], *, kinds: Sequence[str] = ()) -> list[Path]:
    """Refuse now what could not be written later; UsageError names it.

    ``kinds`` are the extensions there may be; by default those of figures and of rows.
    """
    from ckpt.reports.exports import DATA_KINDS
    from ckpt.reports.figure import FIGURE_KINDS
    from ckpt.reports.files import check_output

    return [
        check_output(path, kinds or (*FIGURE_KINDS, *DATA_KINDS)) for path in dict.fromkeys(paths)
    ]


def named(command: str, name: str = "") -> list[Path]:
    """Where a command writes unless told otherwise: ``plots/sweep-gpt.png``, .svg and .csv.

    ``name`` is a model's, or a target's: ``file.py:name`` becomes ``file-name``.
    """
    path, _, function = name.rpartition(":")
    last = f"{Path(path).stem}-{function}" if path else name
    safe = re.sub(r"[^\w.-]+", "-", last).strip("-.")[:80]
    return [
        Path(f"plots/{command}{f'-{safe}' if safe else ''}{kind}")
        for kind in (".png", ".svg", ".csv")
    ]


def partial(paths: Sequence[Path]) -> Path:
    """Where the rows are kept while they are made: ``plots/sweep.partial.jsonl``."""
    return paths[0].with_name(f"{paths[0].stem}.partial.jsonl")


def write(
    paths: Sequence[Path],
    rows: Sequence[Any],
    plot: Callable[[Path], Any],
    *,
    title: str = "",
    about: Mapping[str, Any] | None = None,
    drawn: Sequence[str] = (),
    chosen: bool = True,
) -> None:
    """Draw the figure or write the rows into each path, by its extension.

    ``plot`` draws figures, and the kinds ``drawn`` besides.

    Beside a data file, ``about`` says how to make it again. Where the paths weren't ``chosen`` by
    the user, it is said how they are.
    """
    from ckpt.reports import exports, figure

    for path in paths:
        if path.suffix.lower() in (*figure.FIGURE_KINDS, *drawn):
            plot(path)
        else:
            exports.write(path, rows, title=title, metadata=about)
        if chosen:
            note(f"wrote {path}")
    if not chosen:
        stem = paths[0].with_suffix("")
        kinds = " ".join(path.suffix for path in paths)
        note(f"wrote {stem} ({kinds}); -o FILE writes elsewhere, in the kind of its ending")
