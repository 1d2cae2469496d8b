"""A linear program over columns in boxes, which any duals bound in exact arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

Ints = Any
"""An array of int64."""

EXACT = float(2**53)
"""Whole numbers up to here, and their sums, are exact in float64."""


class Solved(NamedTuple):
    """What a solver found."""

    duals: Any
    """None where it was stopped."""
    used: int
    """Iterations."""
    point: Any = None
    """The columns, as nearly as the solver knows them; None where no point meets the rows."""


@dataclass
class BoxProgram:
    """Minimize ``costs . x`` over ``low <= x <= high`` with rows ``coefs . x >= least``.

    Every number is whole. Columns and rows are added in blocks, as arrays.
    """

    _low: list[Any] = field(default_factory=list)
    _high: list[Any] = field(default_factory=list)
    _costs: list[Any] = field(default_factory=list)
    _least: list[Any] = field(default_factory=list)
    _entries: list[tuple[Any, Any, Any]] = field(default_factory=list)
    _places: list[Any] = field(default_factory=list)
    columns: int = 0
    rows: int = 0
    labels: Any = None
    """Of a folded program: for each column of the one before, which it is here."""

    def add_columns(self, which: Any, low: Any = 0, high: Any = 1, costs: Any = 0) -> Any:
        """A column where ``which`` (a mask) is set; their numbers, and -1 elsewhere."""
        count = int(np.count_nonzero(which))
        numbers = np.full(len(which), -1)
        numbers[which] = np.arange(self.columns, self.columns + count)
        for store, given in ((self._low, low), (self._high, high), (self._costs, costs)):
            store.append(np.broadcast_to(given, len(which))[which].astype(float))
        self._places.append(np.flatnonzero(which))
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

    def with_row(self, columns: Any, coefficient: int, least: int) -> BoxProgram:
        """This program, and the row ``coefficient * (sum of x[columns]) >= least``."""
        row = np.full(len(columns), self.rows), columns, np.full(len(columns), float(coefficient))
        made = replace(
            self, _least=[*self._least, np.array([float(least)])],
            _entries=[*self._entries, row], rows=self.rows + 1,
        )  # fmt: skip
        rows, there, coefs = map(np.append, self.entries, row)
        made.entries = rows, there, coefs
        return made

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

    def folded(self, alike: Any) -> BoxProgram:
        """A smaller program whose every bound is one for this: columns alike are one, their sum.

        ``alike``: a number for each place of the masks that columns were added under; columns of
        one block whose places have the same number are taken together, if bounds and costs agree,
        and rows that read the same then are added up. Where a sum of rows takes only some of the
        columns that are one, or some more often, the row gives way by what that may amount to. So
        no agreement is needed for the bound to hold, only for it to be good.
        """
        block = np.repeat(np.arange(len(self._places)), [len(p) for p in self._places])
        place = np.concatenate(self._places)
        first, label = _distinct(block, alike[place], self.low, self.high, self.costs)
        rows, columns, coefs = self.entries
        coded = _mixed(label[columns] * 1_000_003 + coefs.astype(np.int64))
        signs = _mixed(self.least.astype(np.int64))
        np.add.at(signs, rows, coded)
        _, group = np.unique(signs, return_inverse=True)
        groups = int(group.max(initial=-1)) + 1
        made = BoxProgram(columns=len(first), rows=groups, labels=label)
        made._low = [np.bincount(label, self.low)]
        made._high = [np.bincount(label, self.high)]
        made._costs = [self.costs[first]]
        # What each sum of rows takes of each column; then of each sum of columns, and what is over.
        at, whole = np.unique(group[rows] * self.columns + columns, return_inverse=True)
        taken = np.bincount(whole, coefs)
        row, column = at // self.columns, at % self.columns
        pair, part = np.unique(row * len(first) + label[column], return_inverse=True)
        members = np.bincount(label)[pair % len(first)]
        coef = np.rint(np.bincount(part, taken) / members)
        over = np.maximum(0.0, taken - coef[part]) * self.high[column]
        absent = made.high[pair % len(first)] - np.bincount(part, self.high[column])
        gives = np.bincount(part, over) + np.maximum(0.0, -coef) * absent
        least = np.bincount(group, self.least, minlength=groups)
        made._least = [least - np.bincount(pair // len(first), gives, minlength=groups)]
        made._entries = [(pair // len(first), pair % len(first), coef)]
        return made


def _distinct(*keys: Any) -> tuple[Any, Any]:
    """Where each distinct column of the keys is first, in ascending order, and for each column its
    number among them: as np.unique along an axis says, which compares whole columns."""
    order = np.lexsort(keys[::-1])
    is_new = np.zeros(len(order), dtype=bool)
    is_new[:1] = True
    for key in keys:
        is_new[1:] |= key[order[1:]] != key[order[:-1]]
    label = np.empty(len(order), np.intp)
    label[order] = np.cumsum(is_new) - 1
    return order[is_new], label


def _mixed(numbers: Any) -> Any:
    """Hashes of 64 bits, so that their sums tell sets of numbers apart."""
    found = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    found ^= found >> np.uint64(29)
    found *= np.uint64(0xBF58476D1CE4E5B9)
    return found ^ (found >> np.uint64(32))
