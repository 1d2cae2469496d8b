"""Where values are that code reads by name: namespaces, containers, cells of closures, arrays."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from operator import attrgetter, call, is_
from types import CellType, MethodType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

NUMBERS = (int, float, complex, str, bytes, type(None))
SAMPLED = 1 << 16
"""Of so many elements of an array the bytes are compared."""


@dataclass(slots=True, eq=False)
class Watched:
    """Values as they were, and how to see whether they still are. ``gets[k](keys[k])`` is
    ``values[k]``; ``put`` puts one of them back."""

    names: tuple[str, ...]
    gets: tuple[Callable[[Any], Any], ...]
    keys: tuple[Any, ...]
    values: tuple[Any, ...]
    put: Callable[[int], None] = lambda k: None

    def others(self) -> Iterator[tuple[int, Any]]:
        """Which values are others now, and what they are."""
        for k, (get, key, old) in enumerate(zip(self.gets, self.keys, self.values, strict=True)):
            try:
                new = get(key)
            except (IndexError, ValueError):  # of a list, of an emptied cell
                new = None
            if not _same(new, old):
                yield k, new

    def changed(self) -> str:
        """In words, the first of them; nothing, if all are the same."""
        for k, new in self.others():
            was, now = _shown(self.values[k]), _shown(new)
            if was == now:
                return f"{self.names[k]} is another than it was"
            return f"{self.names[k]} is {now}, and was {was}"
        return ""

    def put_back(self, fakes: bool = False) -> dict[str, Any]:
        """All of them, or only those that are tensors without values: what they were, by name."""
        found = [k for k, new in self.others() if isinstance(new, FakeTensor) or not fakes]
        for k in found:
            self.put(k)
        return {self.names[k]: self.values[k] for k in found}

    def without(self, names: Container[str]) -> Watched:
        kept = [k for k, name in enumerate(self.names) if name not in names]

        def those(of: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(of[k] for k in kept)

        return Watched(those(self.names), those(self.gets), those(self.keys), those(self.values))


def named(space: Mapping[str, Any], names: tuple[str, ...], label: str) -> Watched:
    """Names in a namespace; one that isn't there yet is None."""
    values = tuple(map(space.get, names))
    there = {name for name in names if name in space}

    def put(k: int) -> None:
        if not isinstance(space, dict):
            return  # of a class
        if names[k] in there:
            space[names[k]] = values[k]
        else:
            space.pop(names[k], None)

    full = tuple(f"{label}.{name}" if label else name for name in names)
    return Watched(full, (space.get,) * len(names), names, values, put)


def listed(items: list[Any], label: str) -> Watched:
    values = tuple(items)

    def put(k: int) -> None:
        items[:] = values

    return _whole(items, tuple(range(len(items))), values, label, items.__getitem__, put)


def keyed(items: dict[Any, Any], label: str) -> Watched:
    kept = dict(items)

    def put(k: int) -> None:
        items.clear()
        items.update(kept)

    return _whole(items, tuple(kept), tuple(kept.values()), label, items.get, put)


def _whole(
    items: Any, keys: tuple[Any, ...], values: tuple[Any, ...], label: str, get: Any, put: Any
) -> Watched:
    names = (f"the length of {label}", *(f"{label}[{key!r}]" for key in keys))
    return Watched(names, (len, *repeat(get, len(keys))), (items, *keys), (len(keys), *values), put)


def closed_over(cell: CellType, label: str) -> Watched:
    """ValueError for a cell with nothing in it."""
    value = cell.cell_contents

    def put(k: int) -> None:
        cell.cell_contents = value

    return Watched((label,), (attrgetter("cell_contents"),), (cell,), (value,), put)


def array(numbers: Any, label: str) -> Watched:
    known = _sample(numbers)
    return Watched((label,), (partial(_sample, known=known),), (numbers,), (known,))


def _sample(numbers: Any, known: bytes = b"") -> bytes:
    """The bytes of some elements; ``known`` itself, if they are those."""
    found: bytes = numbers.ravel()[:: 1 + numbers.size // SAMPLED].tobytes()
    return known if found == known else found


def changed(places: Iterable[Watched]) -> str:
    """In words, the first of their values that is another now; nothing, if all are the same."""
    return next(filter(None, (place.changed() for place in places)), "")


def unchanged(places: Iterable[Watched]) -> Callable[[], bool]:
    """Whether every value is the very object that it was, in some 50 ns a value."""
    seen = [
        (get, key, value)
        for place in places
        for get, key, value in zip(place.gets, place.keys, place.values, strict=True)
    ]
    at = [getattr(get, "__self__", None) for get, _, _ in seen]
    of_dicts = [(space, *rest[1:]) for space, rest in zip(at, seen, strict=True)
                if type(space) is dict]  # fmt: skip
    others = [rest for space, rest in zip(at, seen, strict=True) if type(space) is not dict]
    # In columns, and dicts apart, whose bound methods would be objects more to visit.
    spaces, names, held = ([row[k] for row in of_dicts] for k in range(3))
    gets, keys, values = ([row[k] for row in others] for k in range(3))

    def same() -> bool:
        try:
            return all(map(is_, map(dict.get, spaces, names), held)) and all(
                map(is_, map(call, gets, keys), values)
            )
        except (IndexError, ValueError):
            return False

    return same


def _same(new: Any, old: Any) -> bool:
    if new is old:
        return True
    if type(new) is not type(old):
        return False
    if isinstance(old, tuple):
        return len(new) == len(old) and all(map(_same, new, old))
    return isinstance(old, (*NUMBERS, MethodType)) and bool(new == old)


def _shown(value: Any) -> str:
    if isinstance(value, tuple) and all(isinstance(v, NUMBERS) for v in value):
        return repr(value)
    if isinstance(value, NUMBERS) and not isinstance(value, bytes):
        return repr(value)
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return str(getattr(value, "__qualname__", f"a {type(value).__name__}"))
