"""Plain rows, as every report takes them: mappings or dataclasses; columns name their units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

Row = Mapping[str, Any]


def as_mappings(rows: Iterable[Any]) -> list[Row]:
    """Each row as a mapping from column to value; dataclass rows are read field by field."""
    return [
        {f.name: getattr(row, f.name) for f in fields(row)}
        if is_dataclass(row) and not isinstance(row, type)
        else row
        for row in rows
    ]


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Every column that some row has, in the order in which they first appear."""
    return list(dict.fromkeys(column for row in rows for column in row))


def group(rows: Iterable[Row], column: str) -> dict[Any, list[Row]]:
    """The rows under each value of ``column``, both in the order in which they come."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(row.get(column), []).append(row)
    return found


def stem(name: str) -> str:
    """A planner's or strategy's name without its values: ``every:4@25% -> every``."""
    return name.partition("@")[0].partition(":")[0]


def shared(rows: Sequence[Row], column: str) -> Any:
    """The value that every row has in ``column``, or None where they differ or there is none."""
    values = {row.get(column) for row in rows}
    return values.pop() if len(values) == 1 else None
