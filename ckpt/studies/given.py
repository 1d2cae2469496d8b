"""What a study is given: a Program, a NumPy function and its arguments, or a Graph alone.

The one place where the studies know a front end by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ckpt.errors import UsageError
from ckpt.graph import Graph
from ckpt.program import Program
from ckpt.tape.core import tree
from ckpt.tape.execution.program import steady, trace


def program_of(
    function: Callable[..., Any] | Program,
    args: tuple[Any, ...],
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    name: str = "",
    *,
    frozen: bool = False,
    check: Any = "default",
) -> Program:
    """``function`` itself if it is a Program, else its trace on ``args``.

    What is to be ``frozen`` into a plan is traced twice: TapeError if that makes a difference.
    """
    if isinstance(function, Program):
        return function
    if not callable(function):
        raise UsageError(f"a function or a Program is needed, not a {type(function).__name__}")
    whose = {type(leaf).__module__.partition(".")[0] for leaf in tree.leaves(args)}
    for kind, package in (("torch tensors", "torch"), ("JAX arrays", "jax")):
        if whose & {package, f"{package}lib"}:
            raise UsageError(
                f"these arguments are {kind}: use ckpt.{package}.plan, ckpt.{package}.profile, …, "
                f"or ckpt.{package}.trace for a Program"
            )
    return (steady if frozen else trace)(
        function, *args, argnums=argnums, has_aux=has_aux, name=name, check=check
    )


def graph_of(
    function: Callable[..., Any] | Program | Graph,
    args: tuple[Any, ...],
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    name: str = "",
    *,
    frozen: bool = False,
    check: Any = "default",
) -> tuple[Graph, Program | None]:
    """The graph, and the program that it is of, unless a Graph alone is given."""
    if isinstance(function, Graph):
        return function, None
    program = program_of(function, args, argnums, has_aux, name, frozen=frozen, check=check)
    return program.graph, program


def are_arrays(args: tuple[Any, ...]) -> bool:
    """Can a step be run on these, or do some only have a shape?"""
    return bool(args) and not any(getattr(leaf, "abstract", False) for leaf in tree.leaves(args))
