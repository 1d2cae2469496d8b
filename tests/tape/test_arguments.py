"""A planned step's arguments are as they were traced, or made so, or refused; and its results have
the structure, the bits and the strides of the plain ones."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt.errors import TapeError
from tests.tape.ops.checking import same, store_all

RNG = np.random.default_rng(0)
SHAPE = (300, 400)
LARGE = RNG.standard_normal(SHAPE).astype("f4")
W = RNG.standard_normal(400).astype("f4")
X = RNG.standard_normal((3, 4))

LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "every other row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every other column": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
}


def runs(loss: Any, *args: Any, **options: Any) -> Iterator[Callable[..., Any]]:
    """A schedule of the traced function as `execute` and as `compile` run it."""
    program = ckpt.trace(loss, *args, **options)
    schedule = store_all(program.graph)
    yield lambda *given: program.execute(schedule, *given)
    yield program.compile(schedule)


# -- layouts ---------------------------------------------------------------------------------------


def column_sums(w: Any, x: Any) -> Any:
    """Sums over an axis: one after the other in C order, pairwise in F order."""
    return np.sum(np.sum(x, axis=0) * w)


def test_layout_decides_the_bits_of_these_sums() -> None:
    by_layout = {name: np.sum(make(LARGE), axis=0).tobytes() for name, make in LAYOUTS.items()}
    assert by_layout["C"] != by_layout["F"]


@pytest.mark.parametrize("given", LAYOUTS)
@pytest.mark.parametrize("traced", LAYOUTS)
def test_an_argument_of_other_strides_gives_the_traced_bits(traced: str, given: str) -> None:
    as_traced, as_given = LAYOUTS[traced](LARGE), LAYOUTS[given](LARGE)
    expected = ckpt.value_and_grad(column_sums)(W, as_traced)
    for run in runs(column_sums, W, as_traced):
        same(expected, run(W, as_given), "an input")

    def over_parameter(p: Any) -> Any:
        return np.sum(np.square(np.sum(p, axis=0)))

    expected = ckpt.value_and_grad(over_parameter)(as_traced)
    for run in runs(over_parameter, as_traced):
        same(expected, run(as_given), "a parameter")


def test_an_argument_as_it_was_traced_is_not_copied() -> None:
    """Then what it is read from is the caller's own memory, whatever its layout."""
    seen: list[Any] = []

    @ckpt.op(name="looks_at_it", infer=lambda x: ckpt.spec((), "f4"))
    def looks(x: Any) -> Any:
        seen.append(x)
        return np.float32(0)

    for make in LAYOUTS.values():
        array = make(LARGE)
        for run in runs(lambda w, x: np.sum(w) + looks(x), W, array):
            seen.clear()
            run(W, array)
            assert np.shares_memory(seen[0], array)


def test_more_axes_than_two() -> None:
    block = RNG.standard_normal((5, 60, 70)).astype("f4")
    traced = np.ascontiguousarray(block.transpose(2, 0, 1)).transpose(1, 2, 0)
    assert np.sum(traced, axis=1).tobytes() != np.sum(block, axis=1).tobytes()

    def loss(w: Any, x: Any) -> Any:
        return np.sum(np.sum(x, axis=1) * w)

    w = np.ones((5, 70), "f4")
    for run in runs(loss, w, traced):
        same(ckpt.value_and_grad(loss)(w, traced), run(w, block), "three axes")


# -- what is refused -------------------------------------------------------------------------------

POINT = namedtuple("POINT", "x y")
WRONG: dict[str, tuple[Any, Any]] = {
    "shape": (X, X[:2]),
    "a broadcast shape": (X, X[:1]),
    "dtype": (X, X.astype("f4")),
    "dtype of the same size": (X, X.view("i8")),
    "a number's dtype": (np.float64(2), np.float32(2)),
    "an array for a number": (np.float64(2), X),
    "another option": ("relu", "tanh"),
    "another count": (3, 4),
    "one more element": ([X, X], [X, X, X]),
    "one less element": ([X, X], [X]),
    "a tuple for a list": ([X, X], (X, X)),
    "one more key": ({"a": X}, {"a": X, "b": X}),
    "other keys": ({"a": X}, {"b": X}),
    "None for an array": (X, None),
    "a list for an array": ({"a": X}, {"a": [X]}),
    "an array for a list": ([X], X),
    "deep inside": ([{"a": (X, X)}], [{"a": (X, X[:2])}]),
    "an option deep inside": ([{"a": (X, "relu")}], [{"a": (X, "tanh")}]),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_not_as_it_was_traced_is_refused(wrong: str) -> None:
    traced, given = WRONG[wrong]
    for run in runs(lambda w, other: np.sum(w * w), X, traced):
        run(X, traced)
        with pytest.raises(TapeError, match="argument 1"):
            run(X, given)


@pytest.mark.parametrize("given", [(), (X,), (X, X, X)])
def test_the_number_of_arguments(given: tuple[Any, ...]) -> None:
    for run in runs(lambda w, x: np.sum(w * x), X, X):
        with pytest.raises(TapeError, match=f"traced with 2 arguments, called with {len(given)}"):
            run(*given)


# -- what is taken ---------------------------------------------------------------------------------

TAKEN: dict[str, tuple[Any, Any]] = {
    "a Value for an array": (X, ckpt.Value(X + 1)),
    "a number for a number": (np.float64(2), 3.0),
    "a whole number for one": (np.float64(2), 3),
    "an array without axes": (np.float64(2), np.array(3.0)),
    "keys in another order": ({"a": X, "b": 2 * X}, {"b": X + 1, "a": X}),
    "of a dict's subclass": ({"a": X, "b": X}, OrderedDict(a=X + 1, b=X)),
}


@pytest.mark.parametrize("taken", TAKEN)
def test_what_stands_for_the_same_is_taken(taken: str) -> None:
    traced, given = TAKEN[taken]

    def loss(w: Any, other: Any) -> Any:
        seen = other["a"] * 3 + other["b"] if isinstance(other, dict) else other
        return np.sum(w * w) * np.sum(seen)

    plain = given.data if isinstance(given, ckpt.Value) else given
    expected = ckpt.value_and_grad(loss)(X, plain)
    for run in runs(loss, X, traced):
        same(expected, run(X, given), taken)


# -- results ---------------------------------------------------------------------------------------


def test_gradients_come_in_the_order_and_the_structure_that_was_asked_for() -> None:
    def loss(a: Any, x: Any, b: Any) -> Any:
        return np.sum(a["p"] * x) + np.sum(b.x * 3.0 * x) + np.sum(b.y[0] ** 2)

    args = OrderedDict(p=X, unread=X[0]), X + 1, POINT(X * 2, [X[1], None])
    for argnums in (0, 2, (2, 0), (0, 2), -1, (1,)):
        expected = ckpt.value_and_grad(loss, argnums)(*args)
        for run in runs(loss, *args, argnums=argnums):
            value, grads = run(*args)
            assert value == expected[0]
            assert repr(grads) == repr(expected[1])  # structures, classes and numbers


def test_a_parameter_that_nothing_reads_has_a_gradient_of_zeros() -> None:
    unread = RNG.standard_normal((2, 5)).astype("f4"), np.float32(3)
    for run in runs(lambda w, other: np.sum(w * w), X, unread, argnums=(0, 1)):
        _, (_, found) = run(X, unread)
        same((np.zeros((2, 5), "f4"), np.float32(0)), found, "zeros")
        assert type(found[1]) is np.float32


def test_numbers_come_as_numbers() -> None:
    for run in runs(lambda w, x: np.sum(w * x), 2.0, X):
        value, gradient = run(2.0, X)
        assert type(value) is type(gradient) is np.float64


def test_aux_in_its_structure() -> None:
    def loss(w: Any) -> Any:
        h = np.tanh(w)
        return np.sum(h), POINT({"h": h, "n": 3}, [np.sum(h), None, (h * 2, "text")])

    expected = ckpt.value_and_grad(loss, has_aux=True)(X)
    for run in runs(loss, X, has_aux=True):
        assert repr(run(X)) == repr(expected)
