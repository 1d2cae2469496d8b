"""A frontier's rows on disk, each with its schedule."""

from __future__ import annotations

from ckpt.errors import CkptError
from ckpt.schedule import Schedule
from ckpt.studies.budgets.planned import COLUMNS, Row
from ckpt.studies.journal import is_sound


def to_keep(row: Row) -> Row:
    """A row that was told, as plain data."""
    made = row["schedule"]
    return {**row, "schedule": None if made is None else made.to_json()}


def kept(row: Row) -> Row | None:
    """What `to_keep` was given; None if that isn't what it is: a plan in its budget, with its
    schedule, or an error."""
    made = ("predicted_peak_nbytes", "recompute_flops", "overhead")
    told = {key: value for key, value in row.items() if key != "schedule"}
    if "schedule" not in row or not is_sound(
        told,
        COLUMNS,
        texts=("planner", "error"),
        reals=("overhead", "gap_percent", "planning_seconds"),
        may_lack=(
            *made, "measured_peak_nbytes", "bound_flops", "gap_percent", "smallest_nbytes", "error",
        ),
    ):  # fmt: skip
        return None
    if row["error"] is not None:
        return None if any(row[key] is not None for key in (*made, "schedule")) else dict(row)
    if any(row[column] is None for column in made):
        return None
    if not (row["bound_flops"] or 0) <= row["recompute_flops"]:
        return None
    if row["predicted_peak_nbytes"] > row["budget_nbytes"]:
        return None
    try:
        return {**row, "schedule": Schedule.from_json(row["schedule"])}
    except CkptError:
        return None
