"""Calls that can be done tile by tile: what each reads and makes, and how arrays are cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ckpt.tape.core.abstract import AbstractArray, contiguous
from ckpt.tape.core.op import Fill, Op
from ckpt.tape.ops.reducing.reductions import over
from ckpt.tape.ops.tiles import TILE

LEAST = 1 << 20
"""Bytes of an array from which on the temporaries of a rule are tiles, which take no longer."""


class Operand:
    """An array that a run reads or makes; of one that is broadcast, what it is broadcast from."""

    __slots__ = ("array", "lift", "part")

    def __init__(self, array: AbstractArray, lift: int = 0) -> None:
        self.part = part_of(array)
        self.lift = lift
        self.array = lifted(array, lift)


def part_of(array: AbstractArray) -> tuple[slice, ...]:
    """What the array is broadcast from."""
    return tuple(
        slice(1) if n > 1 and not stride else slice(None)
        for n, stride in zip(array.shape, array.strides, strict=True)
    )


def lifted(array: AbstractArray, lift: int) -> AbstractArray:
    """What the array is broadcast from, with so many axes of length one behind its own: what is
    left of rows, beside the rows."""
    array = _apart(array)
    if not lift:
        return array
    strides = (*array.strides, *[array.itemsize] * lift)
    return AbstractArray((*array.shape, *[1] * lift), array.dtype, strides)


def _apart(array: AbstractArray) -> AbstractArray:
    """The array with those axes of length one along which it is broadcast."""
    pairs = list(zip(array.shape, array.strides, strict=True))
    shape = tuple(n if stride else min(n, 1) for n, stride in pairs)
    dense = contiguous(shape, array.itemsize)
    alike = all(n <= 1 or a == b for n, (_, a), b in zip(shape, pairs, dense, strict=True))
    return AbstractArray(shape, array.dtype, dense if alike else array.strides)


@dataclass(frozen=True, slots=True)
class Elementwise:
    """One call of a run: what it reads (operands, and numbers), and where its result goes."""

    op: Op
    sources: tuple[Any, ...]
    params: dict[str, Any]
    target: Operand
    reduced: int = 0
    """How many axes, the last ones, it reduces its operand over."""

    @property
    def fill(self) -> Fill:
        assert self.op.fill is not None
        return self.op.fill

    def operands(self) -> Iterator[Operand]:
        yield from (s for s in self.sources if isinstance(s, Operand))
        yield self.target

    def may_write_over(self, operand: Operand) -> bool:
        """May its result lie where it reads that operand?"""
        fill = self.fill
        if fill.reduces:
            return False
        read = [k for k, source in enumerate(self.sources) if source is operand]
        return fill.is_ufunc or all(k in fill.over for k in read)


def is_piece(op: Op, sources: Sequence[Any], made: Any) -> bool:
    """Is that a call which treats each element of dense arrays of real numbers by itself?

    (NumPy multiplies a single complex number in another loop than many.)
    """
    if op.fill is None or op.fill.reduces or type(made) is not AbstractArray:
        return False
    arrays = [_apart(s) for s in sources if type(s) is AbstractArray]
    numbers = [s for s in sources if type(s) is not AbstractArray]
    return (
        all(isinstance(n, (int, float, np.number, np.bool_)) for n in numbers)
        and all(_is_plain(a) for a in (made, *arrays))
        and (op.fill.is_ufunc or (not numbers and all(a.shape == made.shape for a in arrays)))
    )


def rows_of(op: Op, sources: Sequence[Any], params: dict[str, Any] | None, made: Any) -> int:
    """Over how many axes a call reduces whole rows of a dense array; 0: it doesn't.

    A cast, which a sum of float16 is too within a mean, goes by pieces that no row begins.
    """
    if op.fill is None or not op.fill.reduces or type(sources[0]) is not AbstractArray:
        return 0
    (x,), params = sources, params or {}
    axes, rank = sorted(over(params.get("axis"), x.ndim)), x.ndim
    if not 0 < len(axes) < rank or axes != list(range(rank - len(axes), rank)):
        return 0
    casts = params.get("dtype") not in (None, x.dtype) or x.dtype.char not in "fdg"
    return 0 if casts or made.dtype != x.dtype or not _is_plain(x) else len(axes)


@dataclass(frozen=True, slots=True)
class Extent:
    """The shape of what a run is of, and over how many axes rows of it are reduced. A run is of
    arrays of that shape, of what is broadcast to it, and of what is left of its rows."""

    shape: tuple[int, ...] = ()
    reduced: frozenset[int] = frozenset((0,))

    def taking(
        self, op: Op, sources: Sequence[Any], params: dict[str, Any] | None, made: Any
    ) -> Taken | None:
        """What such a call is in a run of this extent; None: it can't be one of its calls."""
        reduced = rows_of(op, sources, params, made)
        if not (reduced or is_piece(op, sources, made)):
            return None
        widest = sources[0] if reduced else made
        shape = self.shape or widest.shape
        lift = 0 if widest.shape == shape else None if reduced else self.lift(widest.shape)
        if lift is None:
            return None
        lifts = (*[lift] * len(sources), lift + widest.ndim - made.ndim)
        return Taken(Extent(shape, self.reduced | {reduced}), widest, lifts, reduced)

    def lift(self, made: tuple[int, ...]) -> int | None:
        """How many axes what has such a shape lacks behind; None: it isn't what is left of rows."""
        for reduced in self.reduced:
            left = self.shape[: len(self.shape) - reduced]
            if made == (*left, *[1] * reduced):
                return 0
            if made == left:
                return reduced
        return None

    def sees(self, view: Any, operand: Operand) -> bool:
        """Does a view show all of an operand, as rows or what is left of them?"""
        return type(view) is AbstractArray and any(
            lifted(view, lift) == operand.array for lift in self.reduced
        )

    def depth(self, arrays: Iterable[AbstractArray]) -> int:
        """Along how many of its first axes such arrays are cut into tiles; 0: they can't be."""
        return depth(self.shape, arrays, max(self.reduced))


class Taken(NamedTuple):
    """A call as one of a run."""

    extent: Extent
    """The run's, with it."""
    widest: AbstractArray
    """What it goes over."""
    lifts: Sequence[int]
    """How many axes what it reads and what it makes lack behind."""
    reduced: int = 0
    """Over how many axes it reduces rows."""


def _is_plain(array: AbstractArray) -> bool:
    dense = contiguous(array.shape, array.itemsize)
    return array.dtype.kind in "fbiu" and array.strides == dense


def depth(shape: tuple[int, ...], arrays: Iterable[AbstractArray], reduced: int = 0) -> int:
    """Along how many of the first axes such arrays, the last ``reduced`` of them those of rows, are
    cut into tiles; 0: they can't be."""
    arrays = list(arrays)
    for k in range(len(shape) - reduced, 0, -1):
        if prod(shape[k:]) > TILE:
            break
        if all(is_cut(a, shape, k) is not None for a in arrays):
            return k
    return 0


def is_cut(array: AbstractArray, shape: tuple[int, ...], k: int) -> bool | None:
    """Has the array the first k axes of the shape (True), none of them (False), or some?"""
    first = ((1,) * (len(shape) - array.ndim) + array.shape)[:k]
    if first == shape[:k]:
        return True
    return False if all(n == 1 for n in first) else None
