"""What a result can be written as: one registry, by the ending of the file's name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ckpt.errors import UsageError
from ckpt.reports import exports, figure
from ckpt.reports.files import check_output, write_text
from ckpt.reports.formats.traces import speedscope, trace_events
from ckpt.reports.reproduce import environment

About = Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """How results are written into a file of some ending."""

    says: str
    needs: str
    """What a result's class must have for it."""
    write: Callable[[Any, Path, About], Any]


def _table(result: Any, path: Path, about: About) -> None:
    exports.write(path, result.records(), title=result.title, metadata=about)


def _json(result: Any, path: Path, about: About) -> None:
    found = result.as_json()
    write_text(path, exports.dumps(found) + "\n")
    if "environment" not in found:
        exports.write_sidecar(path, about)


def _document(result: Any, path: Path, about: About) -> None:
    result.save(path)


def _compact(make: Callable[..., Any]) -> Callable[[Any, Path, About], None]:
    def write(result: Any, path: Path, about: About) -> None:
        write_text(path, json.dumps(make(result.graph, result.timeline), separators=(",", ":")))
        exports.write_sidecar(path, about)

    return write


def _page(result: Any, path: Path, about: About) -> None:
    told = escape(json.dumps(exports.plain(about)), quote=True)
    first = '<meta charset="utf-8">'
    made = f'{first}\n<meta name="made" content="{told}">'
    write_text(path, result.page().replace(first, made, 1))


def _picture(result: Any, path: Path, about: About) -> None:
    figure.save(result.figure(), path, about)


FORMATS: dict[str, Format] = {
    ".plan.json": Format("the plan, for load_plan", "plan_document", _document),
    ".profile.json": Format("the profile, for load_profile", "profile_document", _document),
    ".trace.json": Format("for Perfetto and chrome://tracing", "timeline", _compact(trace_events)),
    ".speedscope.json": Format("for speedscope.app", "timeline", _compact(speedscope)),
    ".html": Format("the page", "page", _page),
    ".png": Format("the figure", "figure", _picture),
    ".svg": Format("the figure", "figure", _picture),
    ".pdf": Format("the figure", "figure", _picture),
    ".csv": Format("the table", "records", _table),
    ".jsonl": Format("the table, a line a row", "records", _table),
    ".json": Format("the plan itself, or the table", "as_json", _json),
    ".md": Format("the table", "records", _table),
}
"""Ending -> what is written. Of two that fit a name the longer one counts."""


def endings(kind: type) -> tuple[str, ...]:
    """Those that a result of class ``kind`` can be written as."""
    return tuple(ending for ending, form in FORMATS.items() if hasattr(kind, form.needs))


def check(path: str | os.PathLike[str], kind: type) -> Path:
    """Refuse, before any work is done, a file that a ``kind`` can't be written to.

    Raises UsageError, which lists the endings that work.
    """
    known, name = endings(kind), Path(path).name.lower()
    asked = max((e for e in FORMATS if name.endswith(e)), key=len, default="")
    if asked and asked not in known:
        raise UsageError(
            f"can't write {os.fspath(path)!r}: a {kind.__name__} is not written as {asked}; "
            f"use {' '.join(known)}"
        )
    return check_output(path, known)


def write(result: Any, path: str | os.PathLike[str], *, about: About | None = None) -> Path:
    """Write ``result`` as the ending of ``path`` says, whole or not at all.

    ``about`` says how to make it again, by default where it was made (`ckpt.reports.reproduce`):
    beside a table or a trace, in a figure's metadata, in a page. Raises as `check` does.
    """
    target = check(path, type(result))
    ending = max((e for e in FORMATS if target.name.lower().endswith(e)), key=len)
    FORMATS[ending].write(result, target, environment() if about is None else about)
    return target
