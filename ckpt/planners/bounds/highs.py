"""Duals of a program by HiGHS's dual simplex, through SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.errors import MissingExtraError
from ckpt.planners.base import clock
from ckpt.planners.bounds.boxes import BoxProgram, Solved

MOST = 2**31 - 1
"""Iterations that HiGHS can count."""


def solve(program: BoxProgram, iterations: int) -> Solved:
    """Duals and the point; none where ``iterations``, or the clock, stopped it.

    Where no point meets the rows, duals that show it. Raises MissingExtraError without SciPy.
    """
    if not program.rows:
        return Solved(np.zeros(0), 0, program.low)
    iterations = min(iterations, MOST)
    found = _solve(program, program.costs, iterations)
    if found.duals is None and found.used < iterations:
        return _refute(program, iterations - found.used)
    return found


def _solve(program: BoxProgram, costs: Any, iterations: int, extra: Any = None) -> Solved:
    try:
        from scipy import optimize, sparse
    except ModuleNotFoundError:
        raise MissingExtraError("scipy", "ilp", "planner ilp") from None
    rows, columns, coefs = program.entries
    # Rows of bytes are scaled to the others' size, costs to a thousand in all.
    scale = np.ones(program.rows)
    np.maximum.at(scale, rows, np.abs(coefs))
    unit = max(1.0, float(costs.sum())) / 1e3
    matrix = sparse.csr_array(
        (coefs / scale[rows], (rows, columns)), shape=(program.rows, program.columns)
    )
    low, high = program.low, program.high
    if extra is not None:
        matrix = sparse.hstack([matrix, sparse.csr_array(extra[:, None])], format="csr")
        low, high = np.append(low, 0.0), np.append(high, np.inf)
        costs = np.append(costs, 1.0)
        unit = 1.0
    result = clock.heeded(
        lambda: optimize.linprog(
            costs / unit, A_ub=-matrix, b_ub=-program.least / scale,
            bounds=np.column_stack([low, high]), method="highs-ds",
            options={"maxiter": iterations},
        )
    )  # fmt: skip
    if result is None:
        return Solved(None, iterations)
    used = int(result.nit)
    if result.status != 0:
        return Solved(None, iterations if result.status == 1 else used)
    return Solved(-result.ineqlin.marginals * unit / scale, used, result.x)


def _refute(program: BoxProgram, iterations: int) -> Solved:
    """Duals of the least by which all rows must give way at once."""
    rows, _, coefs = program.entries
    give = np.zeros(program.rows)
    np.maximum.at(give, rows, np.abs(coefs))
    found = _solve(program, np.zeros(program.columns), iterations, (give > 0).astype(float))
    return Solved(None if found.duals is None else found.duals * 2.0**30, found.used)
