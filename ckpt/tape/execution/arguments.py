"""Reading arrays out of nested arguments, and putting results into them, as generated code.

Doing either leaf by leaf with general functions would cost more than a small step itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.tape.core.tree import filled
from ckpt.tape.traced.trace import Program


def reader(program: Program) -> Callable[[tuple[Any, ...]], tuple[Any, ...] | None]:
    """``read(args)``: the argument arrays, or None where anything isn't just as it was traced."""
    names: dict[str, Any] = {"ndarray": np.ndarray}
    lines: list[str] = []
    checks: list[str] = []
    found: list[str] = []
    arrays = {at for at, _ in program.leaves}
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
                checks.append(f"{source} == {constant(tree)}")
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

    visit(program.arguments, "args")
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
