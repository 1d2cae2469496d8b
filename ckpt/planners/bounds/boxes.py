"""A linear program over numbers from 0 to 1 that any duals bound, in exact arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

Ints = Any
"""An array of int64."""

EXACT = float(2**53)
"""Whole numbers up to here, and their sums, are exact in float64."""


@dataclass
class BoxProgram:
    """Minimize ``costs . x`` over ``low <= x <= high`` with rows ``coefs . x >= least``.

    Every number is whole, and bounds are 0 or 1. Columns and rows are added in blocks, as arrays.
    """

    _low: list[Any] = field(default_factory=list)
    _high: list[Any] = field(default_factory=list)
    _costs: list[Any] = field(default_factory=list)
    _least: list[Any] = field(default_factory=list)
    _entries: list[tuple[Any, Any, Any]] = field(default_factory=list)
    columns: int = 0
    rows: int = 0

    def add_columns(self, which: Any, low: Any = 0, high: Any = 1, costs: Any = 0) -> Any:
        """A column where ``which`` (a mask) is set; their numbers, and -1 elsewhere."""
        count = int(np.count_nonzero(which))
        numbers = np.full(len(which), -1)
        numbers[which] = np.arange(self.columns, self.columns + count)
        for store, given in ((self._low, low), (self._high, high), (self._costs, costs)):
            store.append(np.broadcast_to(given, len(which))[which].astype(float))
        self.columns += count
        return numbers

    def add_rows(self, terms: list[tuple[Any, int]], least: int) -> None:
        """Rows ``sum of coefficient * x[columns] >= least``, one for each place of the arrays of
        columns; a column of -1 is left out."""
        count = len(terms[0][0])
        if not count:
            return
        for columns, coefficient in terms:
            there = np.flatnonzero(columns >= 0)
            coefs = np.full(len(there), float(coefficient))
            self._entries.append((there + self.rows, columns[there], coefs))
        self._least.append(np.full(count, float(least)))
        self.rows += count

    def add_limit(self, columns: Any, sizes: Any, most: int) -> None:
        """One row ``sizes . x[columns] <= most``."""
        self._entries.append((np.full(len(columns), self.rows), columns, -sizes.astype(float)))
        self._least.append(np.array([-float(most)]))
        self.rows += 1

    @cached_property
    def low(self) -> Any:
        return np.concatenate([*self._low, np.zeros(0)])

    @cached_property
    def high(self) -> Any:
        return np.concatenate([*self._high, np.zeros(0)])

    @cached_property
    def costs(self) -> Any:
        return np.concatenate([*self._costs, np.zeros(0)])

    @cached_property
    def least(self) -> Any:
        return np.concatenate([*self._least, np.zeros(0)])

    @cached_property
    def entries(self) -> tuple[Any, Any, Any]:
        """Rows, columns and coefficients, ordered by row."""
        if not self._entries:
            return np.zeros(0, int), np.zeros(0, int), np.zeros(0)
        rows, columns, coefs = (np.concatenate(part) for part in zip(*self._entries, strict=True))
        order = np.lexsort((columns, rows))
        return rows[order], columns[order], coefs[order]

    def bound(self, duals: Any, *, priced: bool = True) -> int:
        """No point has a lower objective, whatever the duals: they are rounded to whole numbers,
        none below zero, so that every sum here is exact; 0 where they are too large for that.

        Not ``priced``, all costs are taken for 0: if that is above 0, no point meets the rows.
        """
        y = np.rint(np.maximum(np.nan_to_num(duals, posinf=0.0), 0.0))
        rows, columns, coefs = self.entries
        flow = coefs * y[rows]
        costs = self.costs if priced else np.zeros(self.columns)
        size = np.abs(flow).sum() + costs.sum() + np.abs(self.least * y).sum()
        if size >= EXACT:
            return 0
        reduced = costs - np.bincount(columns, flow, minlength=self.columns)
        at_best = np.where(reduced > 0, reduced * self.low, reduced * self.high)
        return int(self.least @ y + at_best.sum())
