"""Rows into files: CSV, JSONL, JSON, Markdown, HTML. Integers stay integers.

A whole file appears at once or not at all (`write`). A long run's rows reach the disk one by one
(`JsonlWriter`), and a run that was stopped reads them back (`read_jsonl`) and goes on.
"""

from __future__ import annotations

import csv
import errno
import html
import io
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from ckpt.errors import UsageError
from ckpt.reports.files import (
    check_kind,
    parse_json,
    read_bytes,
    read_json,
    unwritable,
    write_text,
)
from ckpt.reports.rows import Row, as_mappings, columns_of
from ckpt.reports.table import cell, chosen_columns, heading, is_number
from ckpt.text import printable

DATA_KINDS = (".csv", ".jsonl", ".json", ".md", ".html")


def write(
    path: str | os.PathLike[str],
    rows: Iterable[Any],
    *,
    title: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``rows`` in the kind that the extension of ``path`` names, whole or not at all.

    ``metadata`` (see `ckpt.reports.reproduce`) goes into ``<path>.meta.json`` beside it. Raises
    UsageError for an unknown extension and for a place that can't be written to.
    """
    convert = _CONVERT[check_kind(path, DATA_KINDS)]
    write_text(path, convert(as_mappings(rows), title))
    if metadata is not None:
        write_sidecar(path, metadata)
    return Path(path)


def write_sidecar(path: str | os.PathLike[str], metadata: Mapping[str, Any]) -> None:
    """Write the metadata of a data file beside it."""
    write_text(sidecar_path(path), dumps(metadata) + "\n")


def sidecar_path(path: str | os.PathLike[str]) -> Path:
    """Where the metadata of a data file is kept: ``sweep.csv -> sweep.csv.meta.json``."""
    return Path(os.fspath(path) + ".meta.json")


def read_sidecar(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The metadata beside the data file ``path``, or None if there is none that can be read."""
    try:
        found = read_json(sidecar_path(path))
    except UsageError:
        return None
    return found if isinstance(found, dict) else None


# -- each kind ----------------------------------------------------------------------------------


def to_csv(rows: Sequence[Row]) -> str:
    """A header and one line a row; None is empty, True is ``true``."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    columns = columns_of(rows)
    table.writerow(columns)
    for row in rows:
        table.writerow([_csv_cell(row.get(column)) for column in columns])
    return text.getvalue()


def _csv_cell(value: Any) -> Any:
    value = plain(value)
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


def to_jsonl(rows: Sequence[Row]) -> str:
    return "".join(dumps(row, indent=None) + "\n" for row in rows)


def to_markdown(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """A table for a README: headings and cells as people read them, numbers to the right."""
    chosen = list(columns) if columns is not None else columns_of(rows)
    rules = ["---:" if is_number(rows, column) else "---" for column in chosen]
    lines = [[heading(column) for column in chosen], rules]
    lines += [
        [
            html.escape(cell(column, row.get(column)), quote=False).replace("|", r"\|")
            for column in chosen
        ]
        for row in rows
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_html(rows: Sequence[Row], columns: Sequence[str] | None = None) -> str:
    """A ``<table>`` to be put into a page or shown by a notebook; text is escaped."""
    chosen = chosen_columns(rows, columns)
    right = {column: is_number(rows, column) for column in chosen}

    def entry(tag: str, column: str, text: str, hint: str = "") -> str:
        align = "right" if right[column] else "left"
        title = f' title="{html.escape(hint)}"' if hint else ""
        return f'<{tag} style="text-align:{align}"{title}>{html.escape(text)}</{tag}>'

    def exact(column: str, value: Any) -> str:
        """The number behind a rounded text, shown when the pointer rests on it."""
        return str(plain(value)) if right[column] and value is not None else ""

    head = "<tr>" + "".join(entry("th", c, heading(c), c) for c in chosen) + "</tr>\n"
    body = "".join(
        "<tr>"
        + "".join(entry("td", c, cell(c, row.get(c)), exact(c, row.get(c))) for c in chosen)
        + "</tr>\n"
        for row in rows
    )
    return f'<table class="ckpt"><thead>\n{head}</thead><tbody>\n{body}</tbody></table>\n'


def html_page(title: str, *parts: str) -> str:
    """A page of ``parts`` (from `to_html`, `figure.to_svg`) that needs no network."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_CSS}</style></head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n" + "\n".join(parts) + "</body></html>\n"
    )


_CSS = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:75rem;margin:2rem auto;"
    "padding:0 1rem}h1{font-size:1.4rem}table.ckpt{border-collapse:collapse;"
    "font-variant-numeric:tabular-nums;display:block;overflow-x:auto}"
    "table.ckpt th{border-bottom:2px solid #888}table.ckpt td,table.ckpt th{padding:.2rem .7rem;"
    "white-space:nowrap}table.ckpt tbody tr:nth-child(even){background:#f4f4f4}"
    "svg,img{max-width:100%;height:auto}"
)


def dumps(data: Any, indent: int | None = 2) -> str:
    """``data`` as JSON that any reader accepts: NaN and infinity become null.

    What can't be seen is spelled out, so that it can be printed on any terminal.
    """
    text = json.dumps(plain(data), indent=indent, allow_nan=False, ensure_ascii=False)
    return _UNUSUAL.sub(_spelled, text)


_UNUSUAL = re.compile(r"[^\n -~]")


def _spelled(found: re.Match[str]) -> str:
    character = found[0]
    if character.isprintable():
        return character
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


def plain(value: Any) -> Any:
    """``value`` in JSON's terms: dict, list, str, int, finite float, bool, None."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if hasattr(value, "tolist"):  # an array or a NumPy scalar
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return str(value)


def _markdown_title(title: str) -> str:
    return f"# {html.escape(printable(title), quote=False)}\n\n" if title else ""


_CONVERT: dict[str, Callable[[list[Row], str], str]] = {
    ".csv": lambda rows, title: to_csv(rows),
    ".jsonl": lambda rows, title: to_jsonl(rows),
    ".json": lambda rows, title: dumps({"title": title, "rows": rows}) + "\n",
    ".md": lambda rows, title: _markdown_title(title) + to_markdown(rows),
    ".html": lambda rows, title: html_page(title or "ckpt", to_html(rows)),
}


# -- rows as they are made ------------------------------------------------------------------------


class JsonlWriter:
    """Appends rows to a JSONL file; each is handed to the system before `write` returns.

    A killed process loses nothing that was written (a power cut may). With ``resume`` it goes on
    after the rows that are there, once a last line that was cut off is taken away. UsageError if
    the file can't be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool = False) -> None:
        check_kind(path, (".jsonl",))
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            whole = _whole_lines(self.path.read_bytes()) if resume and self.path.exists() else b""
            self._file: BinaryIO = self.path.open("r+b" if whole else "wb", buffering=0)
            self._file.truncate(len(whole))
            self._file.seek(0, os.SEEK_END)
            if whole and not whole.endswith(b"\n"):
                self._file.write(b"\n")
        except OSError as error:
            raise unwritable(path, error) from None

    def write(self, row: Any) -> None:
        """Append one row, in one write."""
        line = (dumps(row, indent=None) + "\n").encode()
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise unwritable(self.path, error) from None

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> JsonlWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of a JSONL file; no file, no rows. It warns of a last line that was cut off.

    Raises UsageError, naming the line, where any other line is damaged.
    """
    data = bytes(read_bytes(path)) if Path(path).exists() else b""
    rows = []
    whole = _whole_lines(data)
    if len(whole) < len(data):
        warnings.warn(f"{os.fspath(path)}: its last line was cut off and is left out", stacklevel=2)
    for number, line in enumerate(whole.splitlines(), 1):
        row = _parse(line)
        if row is None:
            raise UsageError(
                f"{os.fspath(path)}, line {number}, is no row of a table; "
                "mend the line, or delete the file to begin again"
            )
        rows.append(row)
    return rows


def _whole_lines(data: bytes) -> bytes:
    """``data`` up to the end of its last whole row."""
    end = data.rfind(b"\n") + 1
    return data if _parse(data[end:]) is not None else data[:end]


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = parse_json(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
