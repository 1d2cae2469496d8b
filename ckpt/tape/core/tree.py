"""Nested lists, tuples and dicts of arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

from ckpt.errors import TapeError, UsageError

_NESTED = (list, tuple, dict)


def positions_of(argnums: Any) -> tuple[int, ...]:
    """``argnums`` as a tuple; UsageError unless it is an int or several."""
    numbers = tuple(argnums) if isinstance(argnums, (tuple, list)) else (argnums,)
    if not numbers or not all(isinstance(number, int) for number in numbers):
        raise UsageError(f"argnums is an argument's position or a tuple of them, not {argnums!r}")
    return numbers


def chosen(numbers: tuple[int, ...], args: tuple[Any, ...]) -> tuple[int, ...]:
    """The positions among ``args`` that ``argnums`` mean; TapeError for one that isn't there."""
    for number in numbers:
        if not -len(args) <= number < len(args):
            raise TapeError(f"argnums {number} is out of range: there are {len(args)} arguments")
    return tuple(number % len(args) for number in numbers)


def loss_and_aux(result: Any, has_aux: bool) -> tuple[Any, Any]:
    """What a differentiated function returned, taken apart; TapeError where it isn't a pair."""
    if not has_aux:
        return result, None
    if not isinstance(result, tuple) or len(result) != 2:
        raise TapeError("with has_aux the function returns a pair (loss, aux)")
    return result


def leaves(tree: Any) -> Iterator[Any]:
    """The leaves of nested lists, tuples and dicts, in order; dicts in their own order."""
    if isinstance(tree, dict):
        for item in tree.values():
            yield from leaves(item)
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from leaves(item)
    elif tree is not None:
        yield tree


def rebuild(tree: Any, function: Callable[[Any], Any]) -> Any:
    """A tree of the same structure, each leaf replaced by ``function(leaf)``."""
    if type(tree) in (list, tuple):  # the usual ones, without a call for each leaf
        made = [
            rebuild(item, function) if item is None or isinstance(item, _NESTED) else function(item)
            for item in tree
        ]
        return made if type(tree) is list else tuple(made)
    if isinstance(tree, dict):
        return filled(tree, {key: rebuild(item, function) for key, item in tree.items()})
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(rebuild(item, function) for item in tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)(rebuild(item, function) for item in tree)
    return None if tree is None else function(tree)


def paired(given: Any, like: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each leaf of ``like`` with what ``given`` has in its place: (path, given leaf, leaf).

    Dicts are matched by key, whatever their order. Raises TapeError where the structures differ.
    """
    if isinstance(like, dict):
        if not isinstance(given, dict) or given.keys() != like.keys():
            raise _unlike(path, given, like)
        for key in like:
            yield from paired(given[key], like[key], f"{path}[{key!r}]")
    elif isinstance(like, (list, tuple)):
        if type(given) is not type(like) or len(given) != len(like):
            raise _unlike(path, given, like)
        for k, item in enumerate(like):
            yield from paired(given[k], item, f"{path}[{k}]")
    elif given is None or like is None or isinstance(given, (dict, list, tuple)):
        if given is not like:
            raise _unlike(path, given, like)
    else:
        yield path, given, like


def _unlike(path: str, given: Any, like: Any) -> TapeError:
    def said(tree: Any) -> str:
        if isinstance(tree, dict):
            return f"a dict with the keys {', '.join(map(repr, tree))}"
        if isinstance(tree, (list, tuple)):
            return f"a {type(tree).__name__} of {len(tree)}"
        return "None" if tree is None else f"one {type(tree).__name__.removeprefix('Abstract')}"

    return TapeError(f"argument {path} was {said(like)} when traced and is {said(given)} now")


def filled(tree: Any, items: dict[Any, Any]) -> Any:
    """A dict like ``tree`` with other items; a defaultdict keeps its factory."""
    if type(tree) is dict:
        return items
    made = copy(tree)
    made.update(items)
    return made


def unflatten(tree: Any, items: Any) -> Any:
    """A tree of the same structure, with ``items`` for leaves."""
    rest = iter(items)
    return rebuild(tree, lambda _: next(rest))
