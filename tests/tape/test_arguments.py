"""A planned step takes arguments of the traced shapes and dtypes, however they lie in memory, or
refuses them; and its results have the structure and the bits of the plain step's."""

from __future__ import annotations

import dis
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

import ckpt
from ckpt.errors import TapeError
from tests.tape.ops.checking import same, store_all

RNG = np.random.default_rng(0)
SHAPE = (300, 400)
LARGE = RNG.standard_normal(SHAPE).astype("f4")
W = RNG.standard_normal(400).astype("f4")
X = RNG.standard_normal((3, 4))


def windows(a: Any) -> Any:
    """Of its numbers, in an array of its shape whose elements overlap in memory."""
    strides = [a.itemsize] * a.ndim
    memory = np.resize(a.reshape(-1), sum(a.shape) + 1)
    return as_strided(memory, a.shape, strides)


def swapped(a: Any) -> Any:
    """The last axis lies outermost."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, -1, 0)), 0, -1) if a.ndim else a


def unaligned(a: Any) -> Any:
    made = np.empty(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    made[...] = a
    return made


def read_only(a: Any) -> Any:
    made = a.copy()
    made.flags.writeable = False
    return made


class Tagged(np.ndarray):
    """A subclass of one's own."""


def on_axis(k: int, index: Any) -> Any:
    return lambda a: a[(slice(None),) * (k % a.ndim) + (index,)] if a.ndim else a


def every_other(k: int) -> Any:
    return lambda a: on_axis(k, slice(None, None, 2))(np.repeat(a, 2, k) if a.ndim else a)


def broadcast(k: int) -> Any:
    """Along one axis the first element again and again."""
    return lambda a: np.broadcast_to(on_axis(k, slice(0, 1))(a), a.shape)


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "every other row": every_other(0),
    "every other column": every_other(-1),
    "rows reversed": on_axis(0, slice(None, None, -1)),
    "columns reversed": on_axis(-1, slice(None, None, -1)),
    "all reversed": lambda a: np.flip(a),
    "F, reversed": lambda a: np.flip(np.asfortranarray(a)),
    "every other column, reversed": lambda a: np.flip(every_other(-1)(a)),
    "one row": broadcast(0),
    "one column": broadcast(-1),
    "one number": lambda a: np.broadcast_to(a.reshape(-1)[:1].sum(), a.shape),
    "windows": windows,
    "last axis first": swapped,
    "unaligned": unaligned,
    "read-only": read_only,
    "a subclass": lambda a: a.view(Tagged),
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


PROGRAMS: dict[str, Callable[[Any, Any], Any]] = {
    "elementwise": lambda w, x: np.sum(np.tanh(w * x)),
    "sums over an axis": lambda w, x: np.sum(np.sum(x, axis=0) ** 2) + np.sum(w),
    "sums over the last": lambda w, x: np.sum(np.mean(w * 0.3, axis=-1) * np.var(x, axis=-1)),
    "running sums": lambda w, x: np.sum(np.cumsum(w, axis=0) * np.cumsum(x, axis=-1)),
    "views": lambda w, x: np.sum(np.exp(w.T[1:]) * x.T[1:]) + np.sum(w[::-1] * x),
    "matmul": lambda w, x: np.sum((w @ np.swapaxes(x, -1, -2)) ** 2),
    "sorted": lambda w, x: np.sum(np.sort(w, axis=0) * np.sort(x, axis=-1)),
    "joined": lambda w, x: np.sum(np.concatenate([w, x, w], axis=-1) ** 3),
    "in one row": lambda w, x: np.sum(np.reshape(w, (-1,)) ** 2) + np.sum(np.ravel(x) * 0.1),
    "the argument alone": lambda w, x: np.sum(w) * np.sum(x),
}


def plain_or_refused(loss: Any, traced: tuple[Any, Any], given: tuple[Any, Any]) -> int:
    """A step for one layout on another has the plain step's bits, or says what to do: how often."""
    expected = ckpt.value_and_grad(loss, (0, 1))(*given)
    refused = 0
    for run in runs(loss, *traced, argnums=(0, 1)):
        same(ckpt.value_and_grad(loss, (0, 1))(*traced), run(*traced), "as traced")
        for _ in range(2):
            try:
                same(expected, run(*given), "as given")
            except TapeError as error:
                if "when traced; laid out like this" not in str(error):
                    raise
                refused += 1
        same(ckpt.value_and_grad(loss, (0, 1))(*traced), run(*traced), "as traced, again")
    return refused


@pytest.mark.parametrize("given", LAYOUTS)
@pytest.mark.parametrize("traced", LAYOUTS)
def test_an_argument_of_other_strides_gives_the_plain_bits(traced: str, given: str) -> None:
    as_traced, as_given = LAYOUTS[traced](LARGE), LAYOUTS[given](LARGE)
    assert not plain_or_refused(column_sums, (W, as_traced), (W, as_given))

    def over_parameter(p: Any, w: Any) -> Any:
        return np.sum(np.square(np.sum(p, axis=0)) * w)

    assert not plain_or_refused(over_parameter, (as_traced, W), (as_given, W))


@given(
    st.sampled_from(sorted(PROGRAMS)),
    st.lists(st.integers(0, 9), min_size=1, max_size=4).map(tuple),
    *[st.sampled_from(sorted(LAYOUTS))] * 4,
    st.sampled_from(["f8", "f4", "c16"]),
    st.integers(0, 2**32 - 1),
)
def test_of_any_rank_each_way_round(
    name: str, shape: Any, a: str, b: str, c: str, d: str, dtype: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    if name == "matmul" and len(shape) < 2:
        shape = (*shape, 3)
    if name in ("sums over an axis", "sums over the last", "sorted") and 0 in shape:
        shape = tuple(n + 1 for n in shape)
    if dtype == "c16" and name != "elementwise":
        dtype = "f4"

    def loss(w: Any, x: Any) -> Any:
        return np.real(PROGRAMS[name](w, x))

    def drawn(layout: str) -> Any:
        array = rng.standard_normal(shape)
        array = array + 1j * rng.standard_normal(shape) if dtype == "c16" else array.astype(dtype)
        return LAYOUTS[layout](array) if array.size else array

    plain_or_refused(loss, (drawn(a), drawn(b)), (drawn(c), drawn(d)))


@pytest.mark.parametrize("given", LAYOUTS)
@pytest.mark.parametrize("traced", LAYOUTS)
def test_nothing_outside_a_buffer_is_written(traced: str, given: str) -> None:
    """Nor inside of one that isn't ours: the arguments and their surroundings are as before."""
    small = RNG.standard_normal((10, 7))

    def within(layout: str) -> tuple[Any, Any]:
        around = np.full((30, 21), 7.0)
        around[10:20, 7:14] = small
        return around, LAYOUTS[layout](around[10:20, 7:14])

    (outer, one), (other, two) = within(traced), within(given)
    before = outer.copy(), other.copy(), one.copy(), two.copy()
    junk = [np.ones(n) for n in (3, 10, 70, 140)]
    plain_or_refused(PROGRAMS["elementwise"], (small, one), (small + 1, two))
    plain_or_refused(PROGRAMS["elementwise"], (one, small), (two, small + 1))
    for was, array in zip(before, (outer, other, one, two), strict=True):
        assert np.array_equal(was, array)
    assert all((array == 1).all() for array in junk)


def test_a_step_that_needs_more_like_this_is_refused_and_the_advice_works() -> None:
    """Of a transposed array a reshape is a copy: one is as many bytes as a copy of the argument,
    and for three the schedule has no bytes."""

    def loss(w: Any, x: Any) -> Any:
        return sum(np.sum(np.tanh(np.reshape(x, (-1,)) * w * k)) for k in (1.0, 2.0, 3.0))

    x, w = LARGE, np.ones(LARGE.size, "f4")
    for run in runs(loss, w, x):
        with pytest.raises(TapeError, match=r"array 1 .* pass np\.ascontiguousarray"):
            run(w, np.asfortranarray(x))
        same(ckpt.value_and_grad(loss)(w, x), run(w, np.ascontiguousarray(x)), "as advised")
    for run in runs(loss, w, np.asfortranarray(x)):
        same(ckpt.value_and_grad(loss)(w, x), run(w, x), "which needs less")


def test_another_byte_order_is_another_dtype() -> None:
    swapped = X.astype(X.dtype.newbyteorder())
    for run in runs(lambda w, x: np.sum(w * np.tanh(x)), X, X):
        with pytest.raises(TapeError, match="trace it again for other shapes and dtypes"):
            run(X, swapped)
    for run in runs(lambda w, x: np.sum(w * np.tanh(x)), X, swapped):
        expected = ckpt.value_and_grad(lambda w, x: np.sum(w * np.tanh(x)))(X, swapped)
        same(expected, run(X, swapped), "as traced")


def test_a_memory_mapped_argument(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", np.asfortranarray(X))
    mapped = [np.load(tmp_path / name, mmap_mode="r") for name in ("x.npy", "y.npy")]
    assert mapped[0].strides != mapped[1].strides
    for one, other in (mapped, mapped[::-1], (X, mapped[0]), (mapped[1], X)):
        assert not plain_or_refused(PROGRAMS["elementwise"], (X, one), (X, other))
        assert not plain_or_refused(PROGRAMS["elementwise"], (one, X), (other, X))


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


def test_a_step_remembers_layouts_and_keeps_to_its_memory() -> None:
    program = ckpt.trace(column_sums, W, LARGE)
    step = program.compile(store_all(program.graph))
    for name in [*LAYOUTS, *LAYOUTS]:
        step(W, LAYOUTS[name](LARGE))
    assert 1 < len(step.otherwise) <= 8
    assert all(other._memory is step._memory for other in step.otherwise.values())


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
    "a float for an int": (2, 2.0),
    "an int for a float": (2.0, 2),
    "a truth for an int": (1, True),
    "NumPy's number for Python's": (2.0, np.float64(2)),
    "the other zero": (0.0, -0.0),
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


def test_an_option_that_is_no_number_stays_the_same() -> None:
    for run in runs(lambda w, other: np.sum(w * w), X, float("nan")):
        run(X, float("nan"))


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


def test_a_matrix_transposed_outside_the_arena_is_an_attribute() -> None:
    """A call would cost a small step a tenth of its time."""
    x = np.arange(6.0).reshape(2, 3)

    def loss(w: Any, v: Any) -> Any:
        return np.sum(np.tanh(x @ w) @ np.swapaxes(v, 0, -1)) + np.sum(np.swapaxes(w, 0, -2) ** 2)

    w, v = np.ones((3, 4)), np.ones((2, 4))
    step = ckpt.plan(loss, w, v, argnums=(0, 1))
    same(step(w, v), ckpt.value_and_grad(loss, (0, 1))(w, v), "a step")
    calls = dis.get_instructions(step.compiled._made.run)
    assert sum(call.opname == "LOAD_ATTR" and call.argval == "T" for call in calls) == 3
