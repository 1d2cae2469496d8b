"""A caller's arguments: which leaves are arrays, and which of those are differentiated."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ckpt.errors import UsageError


@dataclass(frozen=True, slots=True)
class Arguments:
    """How arguments are nested, and the kinds of their leaves. Leaves that aren't arrays (texts,
    functions, flags, None) are part of the function."""

    tree: Any
    kinds: tuple[Any, ...]
    """For each leaf its shape, dtype and weakness, as JAX writes them; None: no array."""
    others: tuple[Any, ...]
    """The leaves that are no arrays."""
    targets: tuple[int, ...]
    """Which of the arrays are differentiated."""
    argnums: int | tuple[int, ...] | None
    """Whose gradients are returned; None: those of all leaves of floating point."""
    names: tuple[str, ...]
    """Of the arrays: ``params['w']``."""

    @property
    def abstract(self) -> list[Any]:
        """The arrays' shapes, in a row."""
        return [
            jax.ShapeDtypeStruct(kind.shape, kind.dtype, weak_type=kind.weak_type)
            for kind in self.kinds if kind is not None
        ]  # fmt: skip

    def fill(self, arrays: list[Any]) -> tuple[Any, ...]:
        """The arguments with these for their arrays."""
        given, others = iter(arrays), iter(self.others)
        leaves = [next(others) if kind is None else next(given) for kind in self.kinds]
        found: tuple[Any, ...] = jax.tree.unflatten(self.tree, leaves)
        return found

    def like(self, other: Arguments) -> bool:
        """Would the same trace do for both?"""
        if self.tree != other.tree or len(self.others) != len(other.others):
            return False
        same = all(
            a is b or (a is not None and b is not None and alike(a, b))
            for a, b in zip(self.kinds, other.kinds, strict=True)
        )
        return same and all(
            a is b or bool(a == b) for a, b in zip(self.others, other.others, strict=True)
        )

    def nest(self, gradients: list[Any]) -> Any:
        """The gradients, nested as the arguments whose they are; None for what is no array."""
        of = dict(zip(self.targets, gradients, strict=True))
        place, leaves = 0, []
        for kind in self.kinds:
            leaves.append(None if kind is None else of.get(place))
            place += kind is not None
        nested = jax.tree.unflatten(self.tree, leaves)
        if isinstance(self.argnums, int):
            return nested[self.argnums]
        return nested if self.argnums is None else tuple(nested[n] for n in self.argnums)


def alike(a: Any, b: Any) -> bool:
    return (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)


def is_array(leaf: Any) -> bool:
    """Is it an array, or a number that becomes one? A bool of Python is neither: it is a flag, as
    modules have them."""
    if isinstance(leaf, bool):
        return False
    kinds = (jax.Array, np.ndarray, np.generic, int, float, complex, jax.ShapeDtypeStruct)
    return isinstance(leaf, kinds) or hasattr(leaf, "__jax_array__")


def arrays_among(args: tuple[Any, ...]) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(args) if is_array(leaf)]


def can_run(*args: Any) -> bool:
    """Are the arrays among the arguments more than shapes?"""
    return not any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in arrays_among(args))


def arguments_of(args: tuple[Any, ...], argnums: int | tuple[int, ...] | None = None) -> Arguments:
    """The description of ``args``.

    Raises UsageError for arguments to differentiate that aren't there, or that hold whole numbers.
    """
    wanted = _numbers(argnums, len(args))
    found, tree = jax.tree_util.tree_flatten_with_path(args)
    kinds: list[Any] = []
    names: list[str] = []
    others, targets = [], []
    for path, leaf in found:
        number = path[0].idx
        name = f"argument {number}{jax.tree_util.keystr(path[1:])}"
        if not is_array(leaf):
            kinds.append(None)
            others.append(leaf)
            continue
        try:
            kind = jax.typeof(leaf)
        except TypeError as error:
            raise UsageError(f"{name} is no array that JAX takes: {error}") from None
        smooth = jax.numpy.issubdtype(kind.dtype, np.inexact)
        if argnums is not None and number in wanted and not smooth:
            raise UsageError(
                f"{name} is {kind.str_short()}, and only numbers of floating point can be "
                "differentiated: cast it, or choose others with argnums"
            )
        if smooth and (argnums is None or number in wanted):
            if argnums is not None and jax.numpy.issubdtype(kind.dtype, np.complexfloating):
                raise UsageError(
                    f"{name} is {kind.str_short()}: as in jax.grad, only real arguments are "
                    "differentiated; pass real and imaginary part"
                )
            targets.append(len(names))
        kinds.append(kind)
        names.append(name)
    if not targets:
        among = "the arguments" if argnums is None else f"argnums={argnums}"
        raise UsageError(
            f"there is nothing to differentiate: no array of floating point among {among}"
        )
    return Arguments(
        tree, tuple(kinds), tuple(others), tuple(targets), argnums if not isinstance(argnums, int)
        else argnums % len(args), tuple(names),
    )  # fmt: skip


def _numbers(argnums: Any, count: int) -> tuple[int, ...]:
    if argnums is None:
        return ()
    try:
        numbers = (
            tuple(map(operator.index, argnums))
            if isinstance(argnums, (tuple, list))
            else (operator.index(argnums),)
        )
    except TypeError:
        raise UsageError(f"argnums is a whole number or several, not {argnums!r}") from None
    for number in numbers:
        if not -count <= number < count:
            raise UsageError(f"argnums={argnums!r} with {count} arguments: there is no {number}")
    return tuple(number % count for number in numbers)
