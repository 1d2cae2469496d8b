"""Changes in place of what a backward reads: seen in an eager step, in a checkpointed region and in
a planned step, and named by array and line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided, sliding_window_view

import ckpt
from ckpt import Value
from ckpt.errors import MutationError, UsageError
from ckpt.tape.core.changes import ALL, DEFAULT, RUN, fingerprint
from tests.tape.ops.checking import same, store_all

RNG = np.random.default_rng(0)
LINE = r"test_changes\.py:\d+: a "
LIMIT = 64 * 1024


def everywhere(array: Any) -> int:
    return fingerprint(array, ALL)


# -- fingerprints ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 8, 100, 4096, LIMIT - 1, LIMIT])
def test_every_byte_up_to_the_limit_counts(count: int) -> None:
    array = RNG.integers(0, 256, count, dtype=np.uint8)
    before = fingerprint(array, LIMIT)
    for at in {0, count // 3, count // 2, count - 1}:
        changed = array.copy()
        changed[at] ^= 128
        assert fingerprint(changed, LIMIT) != before


@pytest.mark.parametrize("at", [0, 12_345, LIMIT, 3 * LIMIT + 2])
def test_of_a_larger_one_every_byte_counts_if_asked(at: int) -> None:
    array = RNG.integers(0, 256, 3 * LIMIT + 3, dtype=np.uint8)
    before = everywhere(array)
    array[at] ^= 1
    assert everywhere(array) != before


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda a: a,
    "transposed": lambda a: a.T,
    "F": np.asfortranarray,
    "every other row": lambda a: a[::2],
    "every other column": lambda a: a[:, ::2],
    "reversed": lambda a: a[::-1, ::-1],
    "columns reversed": lambda a: a[:, ::-1],
    "inner columns": lambda a: a[:, 1:-1],
    "windows": lambda a: sliding_window_view(a, 3, axis=1),
    "broadcast": lambda a: np.broadcast_to(a, (3, *a.shape)),
    "another byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "unaligned": lambda a: unaligned(a),
    "read-only": lambda a: read_only(a),
}


def unaligned(array: Any) -> Any:
    memory = np.empty(array.nbytes + 1, np.uint8)[1:]
    made = memory.view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


def read_only(array: Any) -> Any:
    made = array.view()
    made.flags.writeable = False
    return made


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "g", "c8", "c16", "i1", "i8", "?"])
@pytest.mark.parametrize("shape", [(6, 8), (300, 400)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_in_any_layout_its_elements_count_and_no_others(
    layout: str, shape: tuple[int, int], dtype: str
) -> None:
    array = (RNG.standard_normal(shape) > 0).astype(dtype)
    seen = LAYOUTS[layout](array)
    for whole in (ALL, DEFAULT, 0):
        assert fingerprint(seen, whole) == fingerprint(seen, whole)
    before, sampled = everywhere(seen), fingerprint(seen, 0)
    written = seen if seen.flags.writeable else array
    at = (1,) * (written.ndim - 2) + (2, 3)
    written[at] = 1 - written[at]
    assert everywhere(seen) != before
    written[at] = 1 - written[at]
    if dtype != "g":  # which has bytes that mean nothing
        assert everywhere(seen) == before
    written[...] = 1 - written
    assert everywhere(seen) != before
    assert fingerprint(seen, 0) != sampled


def test_what_lies_beside_a_view_does_not_count() -> None:
    for array in (RNG.standard_normal((12, 9)), RNG.standard_normal((1200, 90))):
        for whole in (ALL, 0):
            before = fingerprint(array[::2], whole)
            array[1] += 1
            assert fingerprint(array[::2], whole) == before


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3)), np.zeros((3, 0)).T, np.broadcast_to(np.zeros((0, 1)), (0, 4)),
        np.zeros(()), np.array(["2020", "2021"], "M8[D]"), np.array([b"a", b"bc"]),
        np.array([None, 3]), np.zeros(3, [("a", "f4"), ("b", "i2")]),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_odd_has_one(array: Any) -> None:
    assert everywhere(array) == everywhere(array) == fingerprint(array)
    assert fingerprint(array, 0) == fingerprint(array, 0)


def test_nothing_of_the_size_of_an_array_is_copied() -> None:
    import tracemalloc

    array = RNG.standard_normal((2000, 500))
    for seen in (array, array.T, array[:, ::-1], array[::2], array[:, ::2], array[:, 1:]):
        for whole in (ALL, DEFAULT):
            fingerprint(seen, whole)
            tracemalloc.start()
            fingerprint(seen, whole)
            assert tracemalloc.get_traced_memory()[1] < 200_000
            tracemalloc.stop()


# -- structured changes ----------------------------------------------------------------------------


def blocks(array: Any, rng: Any) -> None:
    """Two blocks of rows change places."""
    k = rng.integers(1, len(array) // 2 + 1)
    a, b = rng.choice(len(array) // k, 2, replace=False) * k
    array[a : a + k], array[b : b + k] = array[b : b + k].copy(), array[a : a + k].copy()


def cancels(array: Any, rng: Any) -> None:
    """A number is added to one element and taken from another: the sum stays."""
    flat = array.reshape(-1)
    a, b = rng.choice(flat.size, 2, replace=False)
    flat[a] += 1
    flat[b] -= 1


def cancels_in_rows_and_columns(array: Any, rng: Any) -> None:
    (a, b), (c, d) = (rng.choice(n, 2, replace=False) for n in array.shape)
    array[[a, b], [c, d]] += 1
    array[[a, b], [d, c]] -= 1


def swaps(array: Any, rng: Any) -> None:
    flat = array.reshape(-1)
    a, b = rng.choice(flat.size, 2, replace=False)
    flat[[a, b]] = flat[[b, a]]


def flips(array: Any, rng: Any) -> None:
    """The signs of an even number of elements."""
    flat = array.reshape(-1)
    chosen = rng.choice(flat.size, 2 * rng.integers(1, 5), replace=False)
    flat[chosen] *= -1


def moved(axis: int) -> Callable[[Any, Any], None]:
    def change(array: Any, rng: Any) -> None:
        array[...] = np.roll(array, rng.integers(1, array.shape[axis]), axis)

    return change


STRUCTURED: dict[str, Callable[[Any, Any], Any]] = {
    "rows shuffled": lambda a, rng: rng.shuffle(a),
    "columns shuffled": lambda a, rng: rng.shuffle(a, axis=1),
    "blocks change places": blocks,
    "rolled rows": moved(0),
    "rolled columns": moved(1),
    "all signs flipped": lambda a, rng: np.negative(a, out=a),
    "a row's signs flipped": lambda a, rng: a.__setitem__(i := rng.integers(len(a)), -a[i]),
    "some signs flipped": flips,
    "two elements swapped": swaps,
    "what cancels": cancels,
    "what cancels in rows and columns": cancels_in_rows_and_columns,
    "reversed": lambda a, rng: a.__setitem__(..., a[::-1].copy()),
}
WIDTHS = (1021, 2042, 16, 64, 100, 512, 7, 1024)
WHOLE_ARRAY = ("rows shuffled", "columns shuffled", "rolled rows", "rolled columns", "reversed",
               "all signs flipped")  # fmt: skip


def structured(count: int, nbytes: Callable[[Any], int]) -> Iterator[tuple[str, Any, Any]]:
    """So many arrays, each with what became of it."""
    rng = np.random.default_rng(1)
    names = list(STRUCTURED)
    made = 0
    while made < count:
        dtype = np.dtype(rng.choice(["f4", "f8", "f2", "c8", "i4"]))
        columns = int(rng.choice(WIDTHS))
        rows = max(4, nbytes(rng) // (columns * dtype.itemsize))
        array = (rng.standard_normal((rows, columns)) * 100).astype(dtype)
        for name in names:
            changed = array.copy()
            STRUCTURED[name](changed, rng)
            if changed.tobytes() != array.tobytes():
                made += 1
                yield name, array, changed


def test_none_of_ten_thousand_structured_changes_is_missed() -> None:
    missed = [
        (name, array.shape, array.dtype)
        for name, array, changed in structured(10_000, lambda rng: int(rng.integers(200, 60_000)))
        if (array.nbytes <= LIMIT and fingerprint(array, LIMIT) == fingerprint(changed, LIMIT))
        or everywhere(array) == everywhere(changed)
    ]
    assert not missed


def test_nor_of_larger_arrays_by_the_full_check_or_of_all_their_elements_by_the_sample() -> None:
    for name, array, changed in structured(300, lambda rng: int(rng.integers(70_000, 2_000_000))):
        assert everywhere(array) != everywhere(changed), name
        if name in WHOLE_ARRAY:
            assert fingerprint(array, LIMIT) != fingerprint(changed, LIMIT), name


UPDATES: dict[str, Callable[[Any], Any]] = {
    "a small step": lambda a: np.subtract(a, 1e-3 * np.sign(a), out=a),
    "scaled": lambda a: np.multiply(a, 0.999, out=a),
    "filled": lambda a: a.fill(0),
    "filled anew": lambda a: a.__setitem__(..., np.random.default_rng(5).random(a.shape)),
    "sorted": lambda a: a.sort(axis=0),
    "rectified": lambda a: np.maximum(a, 0, out=a),
    "every other one": lambda a: a.reshape(-1)[1::2].__imul__(-1),
    "the first half": lambda a: a[: len(a) // 2].__imul__(-1),
    "the last tenth": lambda a: a[-len(a) // 10 :].__imul__(-1),
    "transposed": lambda a: a.__setitem__(..., a.T.copy()),
    "shuffled": lambda a: np.random.default_rng(5).shuffle(a),
}


@pytest.mark.parametrize("side", [200, 512, 1000])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("update", UPDATES)
def test_an_update_of_a_large_array_is_seen(update: str, dtype: str, side: int) -> None:
    for layout in (np.ascontiguousarray, lambda a: a[:, ::-1], lambda a: np.repeat(a, 2, 0)[::2]):
        array = layout(RNG.standard_normal((side, side)).astype(dtype))
        assert array.nbytes > LIMIT
        before = fingerprint(array, LIMIT)
        target = np.ascontiguousarray(array)
        UPDATES[update](target)
        array[...] = target
        assert fingerprint(array, LIMIT) != before


def test_a_sample_of_one_in_a_hundred_elements_that_differ_is_enough() -> None:
    """A shuffled one-hot matrix: nearly all is zero before and after."""
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(100):
        array = np.eye(100, dtype="f4")[rng.integers(0, 100, 2000)]
        before = fingerprint(array, LIMIT)
        rng.shuffle(array)
        missed += fingerprint(array, LIMIT) == before
    assert not missed


# -- kinds of memory -------------------------------------------------------------------------------


class Tagged(np.ndarray):
    """A subclass that gives plain results."""

    def __array_wrap__(self, made: Any, context: Any = None, return_scalar: bool = False) -> Any:
        return np.asarray(made)[()]


SIZES = {"small": (6, 8), "large": (150, 200)}
ARRAYS: dict[str, Callable[[Any], Any]] = {
    "plain": np.array,
    "F": np.asfortranarray,
    "a view": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "reversed": lambda a: a.copy()[::-1, ::-1],
    "of another byte order": lambda a: a.astype(">f8"),
    "half": lambda a: a.astype("f2"),
    "a subclass": lambda a: np.array(a).view(Tagged),
}


def changed(array: Any) -> None:
    array[...] = array[::-1].copy() * 2 + 1


READERS: dict[str, Callable[[Any, Any], Any]] = {
    "multiply": lambda w, a: w * a,
    "from the left": lambda w, a: a * w,
    "divide": lambda w, a: np.sin(w) / a,
    "matmul": lambda w, a: np.tanh(w) @ a.T,
    "where": lambda w, a: np.where(a > 0, w, w * a),
    "maximum": lambda w, a: np.maximum(w, a),
    "einsum": lambda w, a: np.einsum("ij,ij->i", w, a),
    "two at once": lambda w, a: w * a * a,
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("wrap", [lambda f: f, ckpt.checkpoint], ids=["eager", "region"])
def test_a_captured_array(wrap: Any, reader: str, kind: str, size: str) -> None:
    shape = SIZES[size]
    array = ARRAYS[kind](RNG.standard_normal(shape))
    w = Value(RNG.standard_normal(shape))
    loss = np.sum(wrap(lambda w: READERS[reader](w, array))(w) ** 2)
    changed(array)
    with pytest.raises(MutationError, match=rf"{LINE}\d+x\d+ .* array that .* reads was"):
        loss.backward()
    assert w.grad is None


@pytest.mark.parametrize("wrap", [lambda f: f, ckpt.checkpoint], ids=["eager", "region"])
@pytest.mark.parametrize("mode", ["r+", "c"])
def test_a_memory_mapped_file(tmp_path: Path, wrap: Any, mode: Any) -> None:
    np.save(tmp_path / "data.npy", RNG.standard_normal((3, 4)))
    data = np.load(tmp_path / "data.npy", mmap_mode=mode)
    x = RNG.standard_normal((3, 4))

    def loss(x: Any) -> Any:
        return np.sum(np.tanh(x * data) ** 2)

    expected = ckpt.value_and_grad(lambda x: np.sum(np.tanh(x * np.array(data)) ** 2))(x)
    same(expected, ckpt.value_and_grad(wrap(loss))(x), "eager")
    step = ckpt.plan(loss, x, budget="100%")
    same(expected, step(x), "planned")
    step.verify(x)
    assert len(step.captured) == 1
    w = Value(x)
    out = wrap(loss)(w)
    data[:] = 0
    with pytest.raises(MutationError, match=f"{LINE}3x4"):
        out.backward()


LEAVES: dict[str, Callable[[Any], Any]] = {
    "itself": lambda w: w * w,
    "transposed": lambda w: w.T @ w,
    "a view": lambda w: np.exp(w.T) * w.T,
    "a view of a view": lambda w: (v := w.reshape(-1)[1:]) * v,
    "a slice": lambda w: w[1:] * w[1:],
    "a broadcast view": lambda w: (v := np.broadcast_to(w, (2, *w.shape))) * v,
    "without a gradient": lambda w: np.sum(w) * ckpt.stop_gradient(w),
    "a view without a gradient": lambda w: np.sum(w) * ckpt.stop_gradient(w).T,
}


@pytest.mark.parametrize("wrap", [lambda f: f, ckpt.checkpoint], ids=["eager", "region"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("reader", LEAVES)
def test_the_data_of_a_leaf(reader: str, size: str, wrap: Any) -> None:
    for keep in (None, "reshape"):
        w = Value(RNG.standard_normal(SIZES[size]))
        read = ckpt.checkpoint(keep=keep)(LEAVES[reader]) if keep else wrap(LEAVES[reader])
        loss = np.sum(read(w))
        changed(w.data)
        with pytest.raises(MutationError, match=f"{LINE}.* array that .* reads was changed"):
            loss.backward()


@pytest.mark.parametrize("wrap", [lambda f: f, ckpt.checkpoint], ids=["eager", "region"])
@pytest.mark.parametrize(
    "read",
    [
        lambda w, i: w[i] * 2.0, lambda w, i: w[:, i], lambda w, i: np.take(w, i, axis=0),
        lambda w, i: w[i, i], lambda w, i: np.take_along_axis(w, i[:, None], axis=0),
    ],
)  # fmt: skip
def test_an_array_of_indices(read: Any, wrap: Any) -> None:
    w, i = Value(RNG.standard_normal((4, 4))), np.array([0, 1, 3])
    loss = np.sum(wrap(lambda w: read(w, i))(w))
    i[0] = 2
    with pytest.raises(MutationError, match=f"{LINE}.* int64 array"):
        loss.backward()


def test_an_array_that_is_an_option() -> None:
    times = np.array([1.0, 2.0])

    @ckpt.op
    def scaled(x: Any, *, times: Any = None) -> Any:
        return x * times

    scaled.vjp(x=lambda g, times: g * times)
    for wrap in (lambda f: f, ckpt.checkpoint):
        w = Value(np.ones(2))
        loss = np.sum(wrap(lambda w: scaled(w, times=times))(w))
        times[0] += 1
        with pytest.raises(MutationError, match=f"{LINE}2 float64 array that scaled reads"):
            loss.backward()


def test_a_read_only_view_of_what_is_written_into() -> None:
    base = np.ones(3)
    w = Value(np.ones((4, 3)))
    loss = np.sum(w * np.broadcast_to(base, (4, 3)))
    base[1] = 5
    with pytest.raises(MutationError, match=f"{LINE}4x3"):
        loss.backward()


def test_windows_that_overlap() -> None:
    base = np.arange(8.0)
    w = Value(np.ones((6, 3)))
    loss = np.sum(w * sliding_window_view(base, 3))
    base[-1] = 0
    with pytest.raises(MutationError, match=f"{LINE}6x3"):
        loss.backward()


def test_a_gradient_of_a_gradient_looks_too() -> None:
    w, a = Value(np.arange(3.0) + 1), np.ones(3)
    inner = ckpt.grad(lambda v: np.sum((v * a) ** 3))
    found = np.sum(inner(w))
    a[0] = 2
    with pytest.raises(MutationError, match=f"{LINE}3 float64"):
        found.backward()

    def filled(v: Any) -> Any:
        loss = np.sum(v * v * a)
        a[1] += 1
        return loss

    with pytest.raises(MutationError, match=f"{LINE}3 float64"):
        ckpt.grad(lambda w: np.sum(ckpt.grad(filled)(w)))(np.ones(3))


def test_it_is_looked_at_in_a_nested_region_too() -> None:
    w, plain = Value(1.0), RNG.standard_normal(20)
    inner = ckpt.checkpoint(lambda w: np.tanh(w * plain) * plain)
    loss = np.sum(ckpt.checkpoint(lambda w: np.sin(inner(w)))(w))
    plain[0] += 1.0
    with pytest.raises(MutationError, match="20 float64"):
        loss.backward()


@pytest.mark.parametrize("wrap", [lambda f: f, ckpt.checkpoint], ids=["eager", "region"])
def test_every_descent_looks_again(wrap: Any) -> None:
    """A change after the first backward, and before a second one that was asked for."""
    w, plain = Value(np.ones(20)), RNG.standard_normal(20)
    loss = np.sum(wrap(lambda w: np.tanh(w * plain) * plain * w)(w))
    loss.backward(retain_graph=True)
    plain[0] += 1.0
    with pytest.raises(MutationError, match="20 float64"):
        loss.backward(retain_graph=True)
    plain[0] -= 1.0
    w.data[0] = 3
    with pytest.raises(MutationError, match="20 float64"):
        loss.backward(retain_graph=True)


# -- loops that fill one buffer --------------------------------------------------------------------

DATA = RNG.standard_normal((5, 4))
WEIGHT = 0.5 * RNG.standard_normal((4, 4))
ORDERS = {
    "new rows": [0, 1, 2, 3, 4],
    "back to the first": [0, 1, 0, 2, 0],
    "two in turn": [0, 1, 0, 1],
}


def fills(w: Any, rows: list[int], use: Any, copy: bool = False) -> Any:
    buffer, h = np.empty(4), np.ones(4)
    for k in rows:
        buffer[:] = DATA[k]
        h = use(np.tanh(h @ w), buffer.copy() if copy else buffer)
    return np.sum(h**2)


@pytest.mark.parametrize("order", ORDERS)
def test_a_buffer_that_is_filled_again(order: str) -> None:
    rows = ORDERS[order]

    def loss(w: Any) -> Any:
        return fills(w, rows, np.multiply)

    for step in (loss, ckpt.checkpoint(loss)):
        with pytest.raises(MutationError, match=rf"{LINE}4 float64 array that multiply reads"):
            ckpt.value_and_grad(step)(WEIGHT)
        with pytest.raises(MutationError, match=rf"{LINE}4 float64 array that multiply reads"):
            ckpt.trace(step, WEIGHT)
        with pytest.raises(MutationError, match=rf"{LINE}4 float64 array that multiply reads"):
            ckpt.plan(step, WEIGHT)


@pytest.mark.parametrize("order", ORDERS)
def test_a_copy_of_it_as_the_error_says(order: str) -> None:
    def loss(w: Any) -> Any:
        return fills(w, ORDERS[order], np.multiply, copy=True)

    expected = ckpt.value_and_grad(loss)(WEIGHT)
    same(expected, ckpt.value_and_grad(ckpt.checkpoint(loss))(WEIGHT), "region")
    same(expected, ckpt.plan(loss, WEIGHT)(WEIGHT), "planned")


def test_no_rule_reads_what_is_added() -> None:
    """Then it may be filled again in an eager step; a plan would read it later."""

    def loss(w: Any, copy: bool = False) -> Any:
        return fills(w, ORDERS["new rows"], np.add, copy)

    same(
        ckpt.value_and_grad(lambda w: loss(w, True))(WEIGHT), ckpt.value_and_grad(loss)(WEIGHT), ""
    )
    with pytest.raises(MutationError, match=rf"{LINE}4 float64 array that add reads"):
        ckpt.plan(loss, WEIGHT)
    w, h, buffer = Value(WEIGHT), 0.0, np.empty((4, 4))
    for k in range(3):  # nothing in this block is computed again
        buffer[:] = DATA[k]
        h = h + ckpt.checkpoint(lambda w: w + buffer)(w)
    np.sum(h).backward()
    assert np.array_equal(w.grad, np.full((4, 4), 3.0))


def test_weights_that_are_moved_and_put_back_between_two_losses() -> None:
    w = Value(np.arange(3.0) + 1)
    first = np.sum(w**3)
    w.data[0] += 1
    second = np.sum(w**3)
    w.data[0] -= 1
    with pytest.raises(MutationError, match=f"{LINE}3 float64"):
        (first + second).backward()
    first = np.sum(w**3)
    w.data[0] += 1
    np.sum(w**3)  # looked at, and never differentiated
    w.data[0] -= 1
    first.backward()
    assert np.array_equal(w.grad, 3 * np.array([1.0, 2.0, 3.0]) ** 2)


def test_indices_filled_again_under_trace() -> None:
    def loss(w: Any) -> Any:
        index, total = np.empty(2, int), 0.0
        for k in range(3):
            index[:] = k, k + 1
            total = total + np.sum(w[index] ** 2)
        return total

    for run in (ckpt.value_and_grad(loss), lambda w: ckpt.plan(loss, w)):
        with pytest.raises(MutationError, match=f"{LINE}2 int64 array that gather reads"):
            run(WEIGHT)


# -- planned steps ---------------------------------------------------------------------------------


def runs(loss: Any, *args: Any, **options: Any) -> Iterator[Callable[..., Any]]:
    program = ckpt.trace(loss, *args, **options)
    schedule = store_all(program.graph)
    yield lambda *given: program.execute(schedule, *given)
    yield program.compile(schedule)


def test_between_two_calls_a_captured_array_and_an_index_may_change() -> None:
    a, i = np.arange(4.0), np.array([0, 2])

    def loss(w: Any) -> Any:
        return np.sum(w * a) + np.sum(w[i] ** 2)

    for run in (*runs(loss, np.ones(4)), *runs(loss, np.ones(4), check="all")):
        run(np.ones(4))
        a += 1
        i += 1
        i %= 4
        same(ckpt.value_and_grad(loss)(np.ones(4)), run(np.ones(4)), "new values")


def test_a_step_in_which_an_op_of_the_users_changes_an_array() -> None:
    a, i, x = np.arange(4.0) + 1, np.array([0, 2]), np.ones(4)
    target: list[Any] = []

    @ckpt.op(name="writes", infer=lambda x: x)
    def writes(x: Any) -> Any:
        for array in target:
            array[...] = array[::-1].copy()
        return np.positive(x)

    writes.vjp(x=lambda g: g * 1.0)

    def loss(w: Any, x: Any) -> Any:
        return np.sum(w[i] ** 2) + np.sum(writes(w * a) * x)

    w = np.arange(4.0)
    x = np.arange(4.0)
    for run in runs(loss, w, x):
        for array, name in ((a, "test_changes"), (i, "test_changes"), (w, "p0"), (x, "x1")):
            target.clear()
            same(ckpt.value_and_grad(loss)(w, x), run(w, x), "unchanged")
            target.append(array)
            with pytest.raises(MutationError, match=rf"{name}.*: a \d (float|int)64 array"):
                run(w, x)
            array[...] = array[::-1].copy()


def test_what_the_function_changes_from_call_to_call_is_not_frozen() -> None:
    state = np.zeros(3)

    def loss(w: Any) -> Any:
        state[:] = state + 1.0
        return np.sum(w * state)

    with pytest.raises(MutationError, match=f"{LINE}3 float64 .* pass the array as an argument"):
        ckpt.plan(loss, np.ones(3))
    ckpt.plan(lambda w, state: np.sum(w * state), np.ones(3), state)


# -- how closely -----------------------------------------------------------------------------------


def a_large_array() -> tuple[Any, int]:
    """And a place in it that the sample leaves out."""
    array = RNG.standard_normal((200, 100))
    assert array.nbytes > LIMIT
    for at in range(array.size):
        before = fingerprint(array, LIMIT)
        array.reshape(-1)[at] += 1
        if fingerprint(array, LIMIT) == before:
            return array, at
    raise AssertionError


OPTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "checkpoint": lambda f, check: ckpt.value_and_grad(ckpt.checkpoint(check=check)(f)),
    "value_and_grad": lambda f, check: ckpt.value_and_grad(f, check=check),
    "grad": lambda f, check: ckpt.grad(f, check=check),
    "trace": lambda f, check: lambda w: ckpt.trace(f, w, check=check),
    "plan": lambda f, check: lambda w: ckpt.plan(f, w, check=check),
    "around a block": lambda f, check: ckpt.grad(ckpt.checkpoint(f), check=check),
    "in a block": lambda f, check: ckpt.grad(
        ckpt.checkpoint(lambda w: ckpt.checkpoint(check=check)(f)(w)), check=None
    ),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_the_options(option: str) -> None:
    make = OPTIONS[option]
    array, at = a_large_array()
    w = RNG.standard_normal(array.shape)

    def one_element(w: Any) -> Any:
        loss = np.sum(w * array)
        array.reshape(-1)[at] += 1
        return loss

    def everything(w: Any) -> Any:
        loss = np.sum(w * array)
        array[...] += 1
        return loss

    with pytest.raises(MutationError):
        make(one_element, "all")(w)
    with pytest.raises(MutationError):
        make(everything, "all")(w)
    if option not in ("plan", "in a block"):
        make(one_element, "default")(w)
    if option != "in a block":  # which inherits what holds around
        with pytest.raises(MutationError):
            make(everything, "default")(w)
    if option != "plan":  # traces twice, and compares
        make(everything, None)(w)
    with pytest.raises(UsageError, match="check is 'default', 'all' or None, not 'some'"):
        make(everything, "some")(w)


@pytest.mark.parametrize(("said", "seen"), [("all", 2), ("default", 1), ("NONE", 0), ("", 1)])
def test_the_environment_variable(said: str, seen: int) -> None:
    code = """
import numpy as np, ckpt
w, a, seen = ckpt.Value(np.ones(100_000)), np.ones(100_000), 0
for change in (slice(None), slice(12, 13)):
    loss = np.sum(w * a)
    a[change] += 1
    try: loss.backward()
    except ckpt.MutationError: seen += 1
print(seen)
"""
    environment = {k: v for k, v in os.environ.items() if k != "CKPT_CHECK"}
    if said:
        environment["CKPT_CHECK"] = said
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == seen


def test_a_wrong_word_in_the_environment() -> None:
    code = "import ckpt\ntry: ckpt.Value\nexcept ckpt.UsageError as error: print(error)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CKPT_CHECK": "some"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "CKPT_CHECK is 'all', 'default' or 'none', not 'some'" in done.stdout


# -- what isn't looked at --------------------------------------------------------------------------


def test_what_the_tape_made_is_not_watched() -> None:
    """Nobody can write into it: nothing to look at, and no time lost."""
    w = Value(RNG.standard_normal((4, 4)))
    h = np.tanh(w)
    for made in (
        h * h,
        h.T @ h,
        h[1:] * h[1:],
        np.where(h > 0, h, 2.0) * (h > 0.5),
        h.reshape(-1) ** 2,
    ):
        assert made._node.watched is None
        assert not made._node.given


def test_after_backward_nothing_is_held() -> None:
    import weakref

    w = Value(np.ones(4))
    array = np.ones(4)
    gone = weakref.ref(array)
    loss = np.sum(w * array)
    del array
    assert gone() is not None
    loss.backward()
    assert gone() is None


def test_the_users_array_stays_his_own() -> None:
    """An op of his own that hands on its operand makes no array of his read-only."""

    @ckpt.op
    def same_again(x: Any) -> Any:
        return x

    same_again.vjp(x=lambda g: g)
    data = np.ones(3)
    w = Value(data)
    out = same_again(w)
    assert data.flags.writeable
    assert not out.data.flags.writeable
    loss = np.sum(out * out)
    data[0] = 5
    with pytest.raises(MutationError):
        loss.backward()


def test_runs_are_as_long_as_they_are_said_to_be() -> None:
    assert RUN % 16 == 0  # whole complex numbers
    overlapping = as_strided(np.arange(10.0), (100_000,), (0,))
    assert fingerprint(overlapping) == fingerprint(overlapping, ALL)  # a single number
