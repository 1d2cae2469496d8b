"""Rows on disk as they are made, so that a study that was stopped goes on where it was."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from ckpt.reports import exports
from ckpt.reports.files import unwritable


class Journal:
    """A JSONL file of rows, and beside it what they were made from.

    ``rows`` are those of an earlier run, if that was made from the same ``about`` (arguments, seed,
    versions, BLAS, threads), as ``sound`` makes them of a line; of those of which it makes None it
    warns. A file that is of another run is kept under another name. UsageError if it can't be read
    or written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        about: Mapping[str, Any],
        sound: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda row: row,
    ) -> None:
        self.path = Path(path)
        same = exports.read_sidecar(path) == exports.plain(about)
        if not same:
            set_aside(self.path)
        found = exports.read_jsonl(path) if same else []
        self.rows = [row for row in map(sound, found) if row is not None]
        if len(self.rows) < len(found):
            lost = len(found) - len(self.rows)
            warnings.warn(f"{path}: {lost} of {len(found)} rows are damaged and made anew",
                          stacklevel=2)  # fmt: skip
        self._writer = exports.JsonlWriter(path, resume=same)
        exports.write_sidecar(path, about)

    def write(self, row: Mapping[str, Any]) -> None:
        self._writer.write(row)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
        if not self.path.stat().st_size:  # there is nothing to go on from
            discard(self.path)


def is_sound(
    row: Mapping[str, Any],
    columns: Sequence[str],
    *,
    texts: Collection[str] = (),
    flags: Collection[str] = (),
    reals: Collection[str] = (),
    may_lack: Collection[str] = (),
) -> bool:
    """Has this row of a file exactly these columns, each of its kind? All but ``texts``, ``flags``
    and ``reals`` are counts; a value is None in ``may_lack`` alone."""

    def fits(column: str, value: Any) -> bool:
        if value is None:
            return column in may_lack
        if column in texts:
            return isinstance(value, str)
        if column in flags:
            return isinstance(value, bool)
        if column in reals:
            return type(value) in (int, float) and 0 <= value < math.inf
        return type(value) is int and 0 <= value < 2**63

    return row.keys() == set(columns) and all(map(fits, row.keys(), row.values()))


def set_aside(path: Path) -> None:
    """Give a file that is there another name, and warn of it: ``sweep.partial.1.jsonl``."""
    if not path.is_file() or not path.stat().st_size:
        return
    aside = next(
        new for k in count(1) if not (new := path.with_suffix(f".{k}{path.suffix}")).exists()
    )
    with suppress(OSError):  # there may be none
        os.replace(exports.sidecar_path(path), exports.sidecar_path(aside))
    try:
        os.replace(path, aside)
    except OSError as error:
        raise unwritable(path, error) from None
    warnings.warn(f"{path} is of another run, and is now {aside}", stacklevel=3)


def discard(path: str | os.PathLike[str]) -> None:
    """Take a journal and its sidecar away; what they held is elsewhere by now."""
    Path(path).unlink(missing_ok=True)
    exports.sidecar_path(path).unlink(missing_ok=True)
