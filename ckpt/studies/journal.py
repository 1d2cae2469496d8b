"""Rows on disk as they are made, so that a study that was stopped goes on where it was."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckpt.reports import exports
from ckpt.reports.files import write_text


class Journal:
    """A JSONL file of rows, and beside it what they were made from.

    ``rows`` are those of an earlier run, if that was made from the same ``about`` (arguments, seed,
    versions, BLAS, threads); else the file begins anew. UsageError if it can't be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], about: Mapping[str, Any]) -> None:
        self.path = Path(path)
        same = exports.read_sidecar(path) == exports.plain(about)
        self.rows = exports.read_jsonl(path) if same else []
        self._writer = exports.JsonlWriter(path, resume=same)
        write_text(exports.sidecar_path(path), exports.dumps(about) + "\n")

    def write(self, row: Mapping[str, Any]) -> None:
        self._writer.write(row)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()


def discard(path: str | os.PathLike[str]) -> None:
    """Take a journal and its sidecar away; what they held is elsewhere by now."""
    Path(path).unlink(missing_ok=True)
    exports.sidecar_path(path).unlink(missing_ok=True)
