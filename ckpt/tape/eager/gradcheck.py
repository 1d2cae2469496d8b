"""Is a gradient right? Compare it with central finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.errors import TapeError, VerificationError
from ckpt.tape.core import tree
from ckpt.tape.core.generators import Generators
from ckpt.tape.core.value import Value
from ckpt.tape.eager.grad import value_and_grad

STEP = float(np.finfo(np.float64).eps) ** (1 / 3)
"""Balances the truncation error of a central difference, of order step², against rounding."""


def gradcheck(
    function: Callable[..., Any],
    *args: Any,
    argnums: int | tuple[int, ...] | None = None,
    order: int = 1,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    entries: int = 64,
    seed: int = 0,
) -> float:
    """Check the gradients of ``function(*args)`` against central finite differences, in float64.

    ``args`` hold floats, arrays or Values in nested lists, tuples and dicts; those of ``argnums``
    (by default all that hold floats only) are differentiated. ``function`` may return a Value of
    any shape, or a nest of them: a random projection of it is checked, so that no part can hide.
    ``order=2`` checks the gradient of the gradient as well. Of an array with more than ``entries``
    elements, so many are drawn. Of a complex z = x + iy, the gradient is dL/dx - i dL/dy.

    Returns the largest error met, in units of the tolerance ``atol + rtol * |gradient|``; where it
    would exceed 1 raises VerificationError, saying where and by how much. The random generators
    that the function reaches draw the same each time, and are put back.
    """
    args = tuple(tree.rebuild(argument, _in_double) for argument in args)
    numbers = _differentiated(args, argnums)
    generators = Generators(function, args)

    def steady(*args: Any) -> Any:
        generators.restore()  # a difference of two draws is no derivative
        return function(*args)

    projected = _projection(steady, np.random.default_rng(seed))
    worst = 0.0
    try:
        for _ in range(order):
            worst = max(worst, _check(projected, args, numbers, rtol, atol, entries, seed))
            gradients = value_and_grad(projected, numbers)
            projected = _projection(_second(gradients), np.random.default_rng(seed + 1))
    finally:
        generators.restore()
    return worst


def _second(both: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: both(*args)[1]


def _in_double(leaf: Any) -> Any:
    """Floats as float64 (complex numbers as complex128), layout kept; anything else as it is."""
    data = leaf.data if isinstance(leaf, Value) else leaf
    if isinstance(data, (np.ndarray, np.generic)) and data.dtype.kind in "fc":
        return data.astype(np.complex128 if data.dtype.kind == "c" else np.float64, copy=False)
    return np.asarray(data)[()] if isinstance(data, (float, complex)) else data


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, (np.ndarray, np.generic)) and leaf.dtype.kind in "fc"


def _differentiated(
    args: tuple[Any, ...], argnums: int | tuple[int, ...] | None
) -> tuple[int, ...]:
    if isinstance(argnums, int):
        return (argnums,)
    if argnums is not None:
        return tuple(argnums)
    found = [
        k
        for k, a in enumerate(args)
        if (flat := list(tree.leaves(a))) and all(map(_is_float, flat))
    ]
    if not found:
        raise TapeError(
            "gradcheck: none of the arguments holds floats, so there is nothing to check"
        )
    return tuple(found)


def _projection(function: Callable[..., Any], rng: np.random.Generator) -> Callable[..., Any]:
    """A real scalar of everything ``function`` returns, with weights drawn at the first call."""
    weights: list[Any] = []

    def projected(*args: Any) -> Any:
        results = list(tree.leaves(function(*args)))
        if not weights:
            for r in results:
                if not isinstance(r, Value):
                    raise TapeError(
                        f"gradcheck: the function returned a {type(r).__name__}, not a Value"
                    )
                w = rng.uniform(0.5, 1.5, (2, *r.shape))
                if r.dtype.kind == "c":
                    w = w + 1j * rng.uniform(0.5, 1.5, w.shape)
                weights.append(w)
        total: Any = 0.0
        for r, w in zip(results, weights, strict=True):
            # Quadratic, so that the cotangent, too, depends on the arguments.
            part = np.sum(r * (w[0] + w[1] * r))
            total = total + (np.real(part) if part.dtype.kind == "c" else part)
        return total

    return projected


def _check(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    numbers: tuple[int, ...],
    rtol: float,
    atol: float,
    entries: int,
    seed: int,
) -> float:
    grads = value_and_grad(function, numbers)(*args)[1]
    rng = np.random.default_rng(seed)
    worst = 0.0
    for number, found in zip(numbers, grads, strict=True):
        for place, (leaf, g) in enumerate(
            zip(tree.leaves(args[number]), tree.leaves(found), strict=True)
        ):
            if np.shape(g) != np.shape(leaf):
                raise VerificationError(
                    f"argument {number}: the gradient has shape {np.shape(g)}, "
                    f"the array {np.shape(leaf)}"
                )
            for flat in _chosen(np.size(leaf), entries, rng):
                index = tuple(int(i) for i in np.unravel_index(flat, np.shape(leaf)))
                expected = _difference(function, args, numbers, number, place, leaf, index)
                given = g[index] if index else g
                error = abs(given - expected) / (atol + rtol * abs(expected))
                if not error <= 1:
                    raise VerificationError(
                        f"argument {number}{f', leaf {place}' if place else ''} at {list(index)}: "
                        f"the gradient is {given!r}, finite differences give {expected!r}, "
                        f"off by {abs(given - expected):.3g}, {error:.3g} times the tolerance"
                    )
                worst = max(worst, float(error))
    return worst


def _chosen(size: int, entries: int, rng: np.random.Generator) -> Any:
    return range(size) if size <= entries else rng.choice(size, entries, replace=False)


def _difference(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    numbers: tuple[int, ...],
    number: int,
    place: int,
    leaf: Any,
    index: tuple[int, ...],
) -> Any:
    """The derivative by one element: by its real part, minus i times that by its imaginary part."""

    def slope(direction: complex) -> float:
        step: float = STEP * max(1.0, float(abs(leaf[index] if index else leaf)))

        def at(distance: float) -> float:
            moved = np.array(leaf, order="K")
            moved[index] += (direction if moved.dtype.kind == "c" else direction.real) * distance
            places = iter(range(10**9))
            argument = tree.rebuild(
                args[number], lambda item: moved[()] if next(places) == place else item
            )
            # As Values: the function may use what plain arrays don't have.
            given = [
                tree.rebuild(argument if k == number else a, Value) if k in numbers else a
                for k, a in enumerate(args)
            ]
            return float(function(*given).data)

        return (at(step) - at(-step)) / (2 * step)

    real = slope(1.0 + 0j)
    return real - 1j * slope(1j) if leaf.dtype.kind == "c" else real
