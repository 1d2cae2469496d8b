"""Linear and integer programs, collected row by row and handed to HiGHS through SciPy."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from math import ceil, floor, gcd, inf, isfinite
from typing import Any

from ckpt.errors import MissingExtraError
from ckpt.planners.base import clock

OPTIMAL, STOPPED, INFEASIBLE = "optimal", "stopped by the clock", "infeasible"


@dataclass(frozen=True)
class Solution:
    """What HiGHS answers: a state, the best point found (or None), and what is proven."""

    status: str
    x: Any
    value: float
    """The objective at ``x``; infinite without one."""
    bound: float
    """No point has a lower objective; -inf if nothing is proven."""
    seconds: float


@dataclass
class LinearProgram:
    """Minimize ``objective . x`` over columns with bounds and rows ``low <= coefs . x <= high``."""

    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    integer: list[int] = field(default_factory=list)
    objective: list[float] = field(default_factory=list)
    row_low: list[float] = field(default_factory=list)
    row_high: list[float] = field(default_factory=list)
    _rows: array[int] = field(default_factory=lambda: array("q"))
    _columns: array[int] = field(default_factory=lambda: array("q"))
    _coefs: array[float] = field(default_factory=lambda: array("d"))

    def column(
        self, low: float = 0, high: float = 1, *, cost: float = 0, integer: bool = False
    ) -> int:
        self.low.append(low)
        self.high.append(high)
        self.integer.append(int(integer))
        self.objective.append(cost)
        return len(self.low) - 1

    def row(self, terms: list[tuple[int, float]], *, low: float = -inf, high: float = inf) -> int:
        """Add one constraint and return its number; a column named twice counts with the sum."""
        number = len(self.row_low)
        self.row_low.append(low)
        self.row_high.append(high)
        for column, coef in terms:
            self._rows.append(number)
            self._columns.append(column)
            self._coefs.append(coef)
        return number

    def solve(
        self, *, time_limit: float, integer: bool = True, objective: list[float] | None = None
    ) -> Solution:
        """Solve with HiGHS, to a gap of zero; ``integer=False`` solves the linear relaxation.

        Raises MissingExtraError without SciPy. A linear program that is stopped proves nothing.
        """
        numpy, sparse, optimize = _scipy()
        shape = (len(self.row_low), len(self.low))
        matrix = sparse.csr_array(
            (numpy.array(self._coefs), (numpy.array(self._rows), numpy.array(self._columns))),
            shape=shape,
        )
        integer = integer and any(self.integer)
        began = time.perf_counter()
        work = partial(
            optimize.milp,
            numpy.array(self.objective if objective is None else objective),
            integrality=numpy.array(self.integer) if integer else None,
            bounds=optimize.Bounds(numpy.array(self.low), numpy.array(self.high)),
            constraints=optimize.LinearConstraint(
                matrix, numpy.array(self.row_low), numpy.array(self.row_high)
            ),
            options={"time_limit": max(time_limit, 0.01), "mip_rel_gap": 0.0},
        )
        result = clock.heeded(work)
        seconds = time.perf_counter() - began
        if result is None:
            return Solution(STOPPED, None, inf, -inf, seconds)
        if result.status == 2:
            return Solution(INFEASIBLE, None, inf, inf, seconds)
        if result.status == 0:
            bound = result.mip_dual_bound if integer else result.fun
            return Solution(OPTIMAL, result.x, result.fun, min(bound, result.fun), seconds)
        bound = result.mip_dual_bound if integer else None
        if bound is None or not isfinite(bound):
            bound = -inf
        value = inf if result.x is None else result.fun
        return Solution(STOPPED, result.x if integer else None, value, bound, seconds)


def _scipy() -> tuple[Any, Any, Any]:
    try:
        import numpy
        from scipy import optimize, sparse
    except ModuleNotFoundError:
        raise MissingExtraError("scipy", "ilp", "planner ilp") from None
    return numpy, sparse, optimize


def unit(sizes: Iterable[int]) -> tuple[float, bool]:
    """What to divide by, and whether that leaves whole numbers.

    The common divisor, unless it leaves numbers too large for a solver's tolerances.
    """
    found = [size for size in sizes if size]
    common = gcd(*found) or 1
    if max(found, default=0) <= common * 10**4:
        return float(common), True
    return max(found) / 10**3, False


def proven_cost(value: float, cost_unit: float, whole: bool) -> int:
    """The cost that a solver's bound proves, its tolerance (1e-7 of it) allowed for.

    Where every cost is a whole number of units, so is the optimum: the bound is rounded up.
    """
    if value == -inf:
        return 0
    if whole:
        return ceil(value * (1 - 1e-7) - 1e-4) * int(cost_unit)
    return floor(value * cost_unit * (1 - 1e-6))
