"""Files a command writes: checked before any work, written whole, named on stderr."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ckpt.cli.run import note


def check(paths: Iterable[Path], result: type) -> list[Path]:
    """Refuse now what a ``result`` could not be written to later; UsageError names it."""
    from ckpt.reports.formats import registry

    return [registry.check(path, result) for path in dict.fromkeys(paths)]


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
    result: Any,
    *,
    about: Mapping[str, Any] | None = None,
    chosen: bool = True,
) -> None:
    """Write ``result`` into each path, by its ending; beside a table, ``about`` says how to make
    it again. Where the paths weren't ``chosen`` by the user, it is said how they are."""
    from ckpt.reports.formats import registry

    for path in paths:
        registry.write(result, path, about=about)
        if chosen:
            note(f"wrote {path}")
    if not chosen:
        stem = paths[0].with_suffix("")
        kinds = " ".join(path.suffix for path in paths)
        note(f"wrote {stem} ({kinds}); -o FILE.KIND writes elsewhere, and other kinds")
