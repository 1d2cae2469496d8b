"""Nested lists, tuples and dicts of arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


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
    if isinstance(tree, dict):
        return type(tree)((key, rebuild(item, function)) for key, item in tree.items())
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(rebuild(item, function) for item in tree))
    if isinstance(tree, (list, tuple)):
        return type(tree)(rebuild(item, function) for item in tree)
    return None if tree is None else function(tree)


def unflatten(tree: Any, items: Any) -> Any:
    """A tree of the same structure, with ``items`` for leaves."""
    rest = iter(items)
    return rebuild(tree, lambda _: next(rest))
