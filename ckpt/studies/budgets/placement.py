"""Where a curve of recompute over memory is looked at: where least is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

Row = Mapping[str, Any]

SIMILAR = 0.5
"""Stretches of at least this share of the largest are halved together, so that several workers have
something to do; the same ones however many there are."""


def next_budgets(rows: Sequence[Row], low: int, high: int, most: int) -> list[int]:
    """The budgets to ask about next, given the rows of all those before; none: that is all.

    First ``high``, then ``low``, then the smallest that a planner names where it refuses. Then,
    until there are ``most``, halfway along the stretches of which least is known: recompute falls
    as memory grows, so between two budgets the curve lies in a rectangle, as wide as from the
    smaller one to what the plan for the larger one really takes, as high as the plans differ in
    recompute. The largest rectangles are halved; where none is left the curve is known. Depends on
    the rows alone, in whatever order they came.
    """
    asked = sorted({row["budget_nbytes"] for row in rows})
    if (missing := [end for end in (high, low) if end not in asked]) and len(asked) < 2:
        return missing[:1]
    named = [row["predicted_peak_nbytes"] or row["smallest_nbytes"] for row in rows]
    smallest = min((nbytes for nbytes in named if nbytes), default=low)
    if smallest < high and _best(rows, smallest) is None and smallest not in asked:
        return [smallest][: most - len(asked)]
    rectangles = sorted(
        (area, -middle)
        for one, two in pairwise(asked)
        for area, middle in [_rectangle(rows, max(one, smallest), two)]
        if area
    )
    chosen = [-middle for area, middle in rectangles if area >= SIMILAR * rectangles[-1][0]]
    return sorted(chosen[::-1][: most - len(asked)])


def _rectangle(rows: Sequence[Row], one: int, two: int) -> tuple[float, int]:
    """In which the curve lies between two budgets: its area, and the budget halfway along it."""
    dear, cheap = _best(rows, one), _best(rows, two)
    if cheap is None:
        return 0.0, one
    top = _height(dear[0]) if dear is not None else _height(cheap[0]) + 1.0
    width = max(cheap[1] - one, 0)
    return (width if width > 1 else 0) * (top - _height(cheap[0])), one + width // 2


def _best(rows: Sequence[Row], budget: int) -> tuple[float, int] | None:
    """The least overhead of any plan within the budget, and the least peak that it takes."""
    return min(
        (
            (row["overhead"], row["predicted_peak_nbytes"])
            for row in rows
            if row["error"] is None and row["predicted_peak_nbytes"] <= budget
        ),
        default=None,
    )


def _height(overhead: float) -> float:
    """Up to a forward as it is; the more beyond, the less it matters how much."""
    return overhead if overhead <= 1 else 2 - 1 / overhead
