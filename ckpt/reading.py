"""What is read from a file is what it says it is: format, version, and the type of each field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ckpt.text import printable

MOST = 2**63
"""No number in a document reaches this, nor do all bytes of a graph together: they fit into columns
of 64 bits."""


def check_format(data: Any, expected: str, version: int, error: type[Exception]) -> None:
    """Refuse a document that isn't the expected kind of file, or of another version."""
    found = data.get("format") if isinstance(data, dict) else None
    if found != expected:
        raise error(f"not a {expected} document (its format is {found!r})")
    if data.get("version") != version:
        raise error(
            f"this {expected} document has version {data.get('version')!r}; "
            f"this release reads version {version}: make it again"
        )


def checked(name: str, kind: Any, value: Any) -> Any:
    """The value, if it is of that type, given as it is written; TypeError if not."""
    if not _IS_A.get(kind, _is_text)(value):
        raise TypeError(f"{name} is {printable(repr(value), 80)}, and no {kind}")
    return value


def _is_int(value: Any) -> bool:
    return type(value) is int and -MOST < value < MOST


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_ints(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(_is_int, value))


_IS_A: dict[Any, Callable[[Any], bool]] = {
    "int": _is_int,
    "bool": lambda value: isinstance(value, bool),
    "dict": lambda value: isinstance(value, dict),
    "dict[str, str]": lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
    "int | None": lambda value: value is None or _is_int(value),
    "tuple[int, ...]": _are_ints,
    "Overwrites": lambda value: (
        isinstance(value, tuple) and all(_are_ints(pair) and len(pair) == 2 for pair in value)
    ),
}
