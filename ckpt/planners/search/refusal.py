"""What is said where a search finds no schedule."""

from __future__ import annotations

from collections.abc import Sequence

from ckpt.errors import BudgetError
from ckpt.graph import Graph
from ckpt.planners.bounds.floor import budget_floor
from ckpt.units import format_bytes


def none_fits(
    graph: Graph, budget: int, refusals: Sequence[BudgetError], impossible: bool, stopped: str
) -> BudgetError:
    """The least that any planner needs, and the least there can be. ``stopped`` says why the search
    ended before its end, if it did."""
    known = [error for error in refusals if error.smallest is not None]
    best = min(known, key=lambda error: error.smallest or 0, default=None)
    floor = budget_floor(graph, best.smallest if best else None)
    exists = "found" if floor.nbytes <= budget and not impossible else "there is"
    early = f", stopped early ({stopped})" if stopped else ""
    text = f"auto: {exists} no schedule within {format_bytes(budget)} ({budget} bytes){early}; "
    proven = (
        f"none needs less than {format_bytes(floor.nbytes)} ({floor.nbytes} bytes), proven by "
        f"{floor.instruction}"
    )
    if best is None:
        return BudgetError(text + proven)
    set_by = f", set by {best.instruction}" if best.instruction else ""
    between = "" if best.smallest == floor.nbytes else "; between the two it is undecided"
    return BudgetError(
        f"{text}the smallest that any planner finds needs {format_bytes(best.smallest or 0)} "
        f"({best.smallest} bytes){set_by}; {proven}{between}",
        smallest=best.smallest,
        instruction=best.instruction,
    )
