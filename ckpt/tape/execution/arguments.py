"""What a step is given, and what it gives: arrays out of nested arguments, and results into them.

A compiled step does both by generated code: leaf by leaf with general functions would cost more
than a small step itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.errors import TapeError
from ckpt.tape.core import tree
from ckpt.tape.core.abstract import check_class
from ckpt.tape.core.tree import filled
from ckpt.tape.core.value import Value
from ckpt.tape.traced.trace import Traced

# -- as they were traced? --------------------------------------------------------------------------


def check_arguments(traced: Traced, args: tuple[Any, ...]) -> list[Any]:
    """The argument arrays, one a leaf, as they lie; TapeError for other shapes and dtypes than were
    traced."""
    matched = _matched(traced, args)
    places = dict(traced.leaves)
    for at, (path, given, expected) in enumerate(matched):
        draws = isinstance(given, np.random.Generator) and type(given) is type(expected)
        if at not in places and not draws and not is_same(given, expected):
            raise TapeError(
                f"argument {path} was {expected!r} when traced and is {given!r} now: trace it again"
            )
    arrays = []
    for at, _ in traced.leaves:
        path, array, expected = matched[at]
        if isinstance(array, Value):
            array = array.data
        check_class(type(array))
        weak = isinstance(array, (bool, int, float)) and not expected.shape
        array = np.asarray(array, expected.dtype if weak else None)
        if array.shape != expected.shape or array.dtype != expected.dtype:
            raise TapeError(
                f"argument {path} is {array.dtype}{list(array.shape)}, but {expected.dtype}"
                f"{list(expected.shape)} was traced: trace it again for other shapes and dtypes"
            )
        arrays.append(array if array.ndim else array[()])
    return arrays


def is_same(given: Any, expected: Any) -> bool:
    """Does what isn't an array mean the same to the program? 2.0 isn't 2, nor is -0.0 zero."""
    if type(given) is not type(expected):
        return False
    if isinstance(expected, (float, complex)):
        return repr(given) == repr(expected)
    return bool(given is expected or given == expected)


def generators_given(traced: Traced, args: tuple[Any, ...]) -> dict[Any, Any]:
    """For each generator among the traced arguments, the one that was given in its place."""
    return {t: g for _, g, t in _matched(traced, args) if isinstance(t, np.random.Generator)}


def _matched(traced: Traced, args: tuple[Any, ...]) -> list[tuple[str, Any, Any]]:
    """Each leaf of the arguments: its place in words, what is given, what was traced."""
    arguments = traced.arguments
    if len(args) != len(arguments):
        raise TapeError(f"traced with {len(arguments)} arguments, called with {len(args)}")
    return [leaf for k, like in enumerate(arguments) for leaf in tree.paired(args[k], like, str(k))]


# -- results ---------------------------------------------------------------------------------------


def gather(traced: Traced, value: Any, gradients: list[Any], aux: list[Any]) -> Any:
    """A step's results as `value_and_grad` returns them: gradients in the parameters' structure."""
    found = {}
    for position, g in zip(traced.parameters, gradients, strict=True):
        node = traced.graph[position]
        found[position] = np.zeros(node.shape, node.dtype)[()] if g is None else g
    grads = structured(traced, found)
    if not traced.has_aux:
        return value, grads
    waiting = iter(aux)
    filled_in = tree.rebuild(traced.aux, lambda v: next(waiting) if isinstance(v, Value) else v)
    return (value, filled_in), grads


def structured(traced: Traced, gradients: dict[int, Any]) -> Any:
    """Gradients by node in the structure of the differentiated arguments."""
    items = [None] * sum(1 for _ in tree.leaves(traced.arguments))
    for place, position in traced.leaves:
        items[place] = gradients.get(position)
    trees = tree.unflatten(traced.arguments, items)
    chosen = [trees[k] for k in traced.argnums]
    return chosen[0] if traced.single else tuple(chosen)


# -- the same, generated ---------------------------------------------------------------------------


def reader(traced: Traced) -> Callable[[tuple[Any, ...]], tuple[Any, ...] | None]:
    """``read(args)``: the argument arrays, or None where anything isn't just as it was traced."""
    names: dict[str, Any] = {"ndarray": np.ndarray}
    lines: list[str] = []
    checks: list[str] = []
    found: list[str] = []
    arrays = {at for at, _ in traced.leaves}
    place = 0

    def constant(value: Any) -> str:
        name = f"k{len(names)}"
        names[name] = value
        return name

    def visit(tree: Any, source: str) -> None:
        nonlocal place
        if isinstance(tree, (dict, list, tuple)):
            name = f"c{len(lines)}"
            lines.append(f"{name} = {source}")
            # Checked at once: what follows reads inside.
            check = f"type({name}) is {constant(type(tree))}"
            if isinstance(tree, dict):
                check += f" and list({name}) == {constant(list(tree))}"
            else:
                check += f" and len({name}) == {len(tree)}"
            lines.append(f"if not ({check}): return None")
            for key in tree if isinstance(tree, dict) else range(len(tree)):
                visit(tree[key], f"{name}[{constant(key)}]")
        elif tree is not None:
            at, place = place, place + 1
            if at not in arrays:
                if isinstance(tree, np.random.Generator):
                    return
                checks.append(f"{constant(is_same)}({source}, {constant(tree)})")
                return
            name = f"a{at}"
            found.append(name)
            lines.append(f"{name} = {source}")
            if tree.shape:
                checks.append(
                    f"type({name}) is ndarray and {name}.shape == {constant(tree.shape)} and "
                    f"{name}.dtype is {constant(tree.dtype)} and "
                    f"{name}.strides == {constant(tree.strides)}"
                )
            else:
                checks.append(f"type({name}) is {constant(tree.dtype.type)}")

    visit(traced.arguments, "args")
    body = "\n".join(f"    {line}" for line in lines)
    condition = " and ".join(checks) or "True"
    text = f"def read(args):\n{body}\n    if {condition}:\n        return ({''.join(f'{n}, ' for n in found)})\n"  # noqa: E501
    exec(text, names)
    return names["read"]  # type: ignore[no-any-return]


def expression(tree: Any, leaf: Callable[[Any], str], constant: Callable[[Any], str]) -> str:
    """Python source that builds a tree of this structure; ``leaf`` gives each leaf's source."""
    if isinstance(tree, dict):
        items = ", ".join(
            f"{constant(key)}: {expression(item, leaf, constant)}" for key, item in tree.items()
        )
        text = "{" + items + "}"
        return text if type(tree) is dict else f"{constant(filled)}({constant(tree)}, {text})"
    if isinstance(tree, (list, tuple)):
        items = "".join(f"{expression(item, leaf, constant)}, " for item in tree)
        if hasattr(tree, "_fields"):
            return f"{constant(type(tree))}({items})"
        return f"[{items}]" if isinstance(tree, list) else f"({items})"
    return "None" if tree is None else leaf(tree)
