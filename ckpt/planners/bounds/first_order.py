"""Duals of a program by a first-order method, in NumPy alone.

Source: the primal-dual hybrid gradient of Chambolle & Pock 2011, made quick for linear programs as
in Applegate et al. 2021 (arXiv:2106.04756: scaling, restarts, a primal weight) and Lu & Yang 2024
(arXiv:2407.16144: reflected Halpern iterations). Since every column lies in a box, any duals on the
way give a bound; the best seen is kept.
"""

from __future__ import annotations

from math import exp, log, sqrt
from typing import Any

import numpy as np

from ckpt.planners.base import clock
from ckpt.planners.bounds.boxes import BoxProgram, Solved

LOOK = 40
"""Iterations from one look at the bound to the next."""

SUFFICIENT, NECESSARY, ARTIFICIAL = 0.2, 0.8, 0.36
"""Restart where the residual has fallen to the first; to the second and rises again; or when the
third of all iterations have passed since the last restart."""

SETTLED = 1e-5
"""It stops when the bound is within this share of the primal objective."""


class Matrix:
    """Rows and columns of a sparse matrix, to multiply from either side."""

    def __init__(self, rows: Any, columns: Any, coefs: Any, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._by_row = _Half(rows, columns, coefs, shape[0])
        order = np.lexsort((rows, columns))
        self._by_column = _Half(columns[order], rows[order], coefs[order], shape[1])

    def times(self, x: Any) -> Any:
        return self._by_row.times(x)

    def back(self, y: Any) -> Any:
        return self._by_column.times(y)


class _Half:
    def __init__(self, rows: Any, columns: Any, coefs: Any, count: int) -> None:
        self.there, self.starts = np.unique(rows, return_index=True)
        self.columns, self.coefs, self.count = columns, coefs, count

    def times(self, x: Any) -> Any:
        found = np.zeros(self.count)
        if len(self.starts):
            found[self.there] = np.add.reduceat(self.coefs * x[self.columns], self.starts)
        return found


def solve(program: BoxProgram, iterations: int, start: Any = None) -> Solved:
    """The best duals found in ``iterations``, and the last point; ``start``: duals to begin at.

    Where the bound outgrows what any point may cost, they prove that no point meets the rows.
    """
    if not program.rows:
        return Solved(np.zeros(0), 0, program.low)
    rows, columns, coefs = program.entries
    row_scale, column_scale, coefs = _scaled(rows, columns, coefs, program)
    matrix = Matrix(rows, columns, coefs, (program.rows, program.columns))
    unit = max(1.0, float(program.costs.max(initial=0.0)))
    costs = program.costs / unit * column_scale
    least = program.least * row_scale
    low, high = program.low / column_scale, program.high / column_scale
    step = 0.998 / _norm(matrix)

    # ax is A x, by is A' y; both follow the combinations that x and y are made of.
    x = x1 = low.copy()
    y = np.zeros(program.rows) if start is None else start / row_scale / unit
    ax, by = matrix.times(x), matrix.back(y)
    best, best_y = -np.inf, y
    weight = _ratio(np.linalg.norm(costs), np.linalg.norm(least))
    restarted = x, y, ax, by
    first, before, since = 0.0, 0.0, 0
    for k in range(iterations):
        # One step of PDHG from (x, y) to (x1, y1).
        x1 = np.clip(x - step / weight * (costs - by), low, high)
        ax1 = matrix.times(x1)
        y1 = np.maximum(0.0, y + step * weight * (least - 2 * ax1 + ax))
        by1 = matrix.back(y1)
        dx, dy, adx = x1 - x, y1 - y, ax1 - ax
        moved = weight * float(dx @ dx) + float(dy @ dy) / weight - 2 * step * float(dy @ adx)
        moved = sqrt(max(0.0, moved))
        if (k + 1) % LOOK == 0 or k + 1 == iterations:
            reduced = costs - by1
            found = float(least @ y1 + np.where(reduced > 0, reduced * low, reduced * high).sum())
            if found > best:
                best, best_y = found, y1
            value, short = float(costs @ x1), float((least - ax1).max(initial=0.0))
            if clock.stopped() or (
                short <= SETTLED and value - best <= SETTLED * (1.0 + abs(value))
            ):
                iterations = k + 1
                break
        if since == 0:
            first = moved
        fallen = moved <= SUFFICIENT * first or (moved <= NECESSARY * first and moved > before)
        if since and (fallen or since >= ARTIFICIAL * (k + 1)):
            weight = _reweighted(weight, x1 - restarted[0], y1 - restarted[1])
            x, y, ax, by = restarted = x1, y1, ax1, by1
            since = 0
            continue
        share = (since + 1) / (since + 2)  # Halpern's, of the reflected step
        pairs = zip((x, y, ax, by), (x1, y1, ax1, by1), restarted, strict=True)
        x, y, ax, by = (share * (2 * b - a) + (1 - share) * c for a, b, c in pairs)
        before = moved
        since += 1
    return Solved(best_y * row_scale * unit, iterations, x1 * column_scale)


def _scaled(rows: Any, columns: Any, coefs: Any, program: BoxProgram) -> tuple[Any, Any, Any]:
    """Scales of rows and columns that make the coefficients alike (Ruiz 2001), and the scaled."""
    row_scale, column_scale = np.ones(program.rows), np.ones(program.columns)
    scaled = np.abs(coefs)
    for _ in range(8):
        for place, scale in ((rows, row_scale), (columns, column_scale)):
            largest = np.zeros(len(scale))
            np.maximum.at(largest, place, scaled)
            factor = 1 / np.sqrt(np.where(largest > 0, largest, 1.0))
            scale *= factor
            scaled = scaled * factor[place]
    return row_scale, column_scale, coefs * row_scale[rows] * column_scale[columns]


def _norm(matrix: Matrix) -> float:
    """The largest singular value, a little above, by power iterations."""
    x = np.ones(matrix.shape[1])
    norm = 1.0
    for _ in range(30):
        x = matrix.back(matrix.times(x / np.linalg.norm(x)))
        norm = float(np.linalg.norm(x))
        if not norm:
            return 1.0
    return sqrt(norm) * 1.02


def _ratio(one: Any, other: Any) -> float:
    return float(one / other) if one > 0 and other > 0 else 1.0


def _reweighted(weight: float, dx: Any, dy: Any) -> float:
    ratio = _ratio(np.linalg.norm(dy), np.linalg.norm(dx))
    return exp(0.5 * log(ratio) + 0.5 * log(weight))
