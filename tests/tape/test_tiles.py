"""Large arrays are gone over in tiles, by several threads: the same bits, and fewer bytes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ckpt
from ckpt import nn
from ckpt.errors import UsageError
from ckpt.nn import blocks
from ckpt.planners import make_schedule
from ckpt.tape.core import tree
from ckpt.tape.core.abstract import AbstractArray
from ckpt.tape.core.op import BY_NAME
from ckpt.tape.execution import tiling
from ckpt.tape.execution.arena import place
from ckpt.tape.execution.draws import Draws
from ckpt.tape.execution.lines import Code, write
from ckpt.tape.ops import tiles
from ckpt.tape.traced import joined, pieces, tiled
from tests.programs import choices, make
from tests.test_agreement import check

LARGE = (4096, 300)
"""A float32 array of 4.9 MB, two lanes."""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Arrays of 64 bytes are large, and eight elements a tile."""
    for module in (pieces, joined):
        monkeypatch.setattr(module, "TILE", 8)
    monkeypatch.setattr(tiling, "TILES", (16, 8))
    monkeypatch.setattr(blocks, "BLOCK", 8)
    monkeypatch.setattr(tiles, "LANE_NBYTES", 256)
    for module in (pieces, joined, tiling):
        monkeypatch.setattr(module, "LEAST", 64)
    _forget()
    yield
    _forget()


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = ckpt.threads()
    yield
    ckpt.threads(before)


def _forget() -> None:
    for op in BY_NAME.values():
        op.kernels.clear()


def normal(*shapes: tuple[int, ...], dtype: str = "f4") -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def runs(code: Code) -> list[int]:
    """How many calls each run of a code does."""
    return [len(x.function.pieces) for x in code.lines if isinstance(x.function, tiled.TiledRun)]


def code_of(loss: Any, *args: Any) -> tuple[Code, Code]:
    """Lines of a step at store-all, as they are and with their runs."""
    program = ckpt.trace(loss, *args)
    schedule = make_schedule(program.graph, "store_all")
    limit = ckpt.simulate(program.graph, schedule).peak
    draws = Draws(program.traced, schedule)
    return write(program.traced, schedule, draws), tiling.tiled(
        write(program.traced, schedule, draws), limit
    )


# -- threads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "n"), [("2", 2), (" 5,1", 5), ("", 0), ("many", 0), (None, 0)])
def test_threads_are_those_of_the_environment_until_they_are_set(
    said: str | None, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    monkeypatch.setattr(tiles._POOL, "number", 0)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert ckpt.threads() == (n or cores)
    assert ckpt.threads(3) == ckpt.threads() == 3


@pytest.mark.parametrize("n", [0, -1, 1.0, True])
def test_threads_takes_a_number_from_one(n: Any) -> None:
    with pytest.raises(UsageError, match="from 1"):
        ckpt.threads(n)


def test_every_tile_is_done_once_and_in_no_lane_twice_at_once() -> None:
    done = np.zeros(1000, int)
    busy = np.zeros(4, int)

    def work(lane: int, numbers: Iterator[int]) -> None:
        for number in numbers:
            busy[lane] += 1
            assert busy[lane] == 1
            done[number] += 1
            busy[lane] -= 1

    for n in (1, 2, 4, 9):
        ckpt.threads(n)
        tiles.share(work, len(done), 4)
    assert (done == 4).all()


def test_nobody_waits_for_a_thread_that_has_not_begun() -> None:
    """A core that is busy otherwise, as OpenBLAS's threads keep theirs, lets a helper wait."""
    done, released = np.zeros(100, int), threading.Event()

    def work(lane: int, numbers: Iterator[int]) -> None:
        done[list(numbers)] += 1

    ckpt.threads(4)
    others = [tiles._POOL.executor.submit(released.wait, 30) for _ in range(tiles.LANES - 1)]
    try:
        tiles.share(work, len(done), 4)
        assert (done == 1).all() and not any(other.done() for other in others)
    finally:
        released.set()


def test_what_goes_wrong_in_a_thread_is_raised_here() -> None:
    """NumPy's way with floating-point errors is this thread's, in all of them."""
    x = np.ones(1 << 22, np.float32)
    x[::1000] = 1e30
    ckpt.threads(4)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        nn.gelu(x)
    with np.errstate(over="ignore"):
        assert np.isfinite(nn.gelu(x)[1:1000]).all()


def test_a_forked_process_has_threads_of_its_own() -> None:
    code = """
import os
import numpy as np, ckpt
from ckpt import nn
ckpt.threads(2)
x = np.ones(1 << 21, np.float32)
expected = nn.gelu(x)
child = os.fork()
if not child:
    os._exit(0 if (nn.gelu(x) == expected).all() else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    if hasattr(os, "fork"):
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_what_helping_threads_allocate_is_the_measured_runs_own() -> None:
    [x] = normal((4096, 512))
    ckpt.threads(3)
    tiles._POOL.renew()  # they begin in the run
    program = ckpt.trace(lambda x: np.sum(nn.gelu(x) * x), x)
    schedule = make_schedule(program.graph, "store_all")
    for _ in range(2):
        run = ckpt.execute(program, schedule, x, trace_memory=True)
        assert run.timeline.measured["untrusted"] is None
    helpers = [t for t in threading.enumerate() if t.name.startswith("ckpt_")]
    assert helpers


# -- in a rule and in a forward --------------------------------------------------------------------


def test_temporaries_of_a_rule_are_tiles() -> None:
    """tanh's rule makes out * out and 1 - that beside its result."""

    def loss(x: Any, w: Any) -> Any:
        return np.sum(np.tanh(x * w) * w)

    args = normal((1024, 300), (1024, 300))
    graph = ckpt.trace(loss, *args).graph
    step = next(s for s in graph.steps if s.label == "tanh")
    array = graph[2].nbytes
    assert array < step.during < array + (1 << 18)


def test_what_is_read_later_is_a_whole_array() -> None:
    def twice(x: Any) -> Any:
        y = np.tanh(x)
        z = np.sin(y) + y
        return np.concatenate([z, y]) * np.concatenate([y, z])

    [x] = normal(LARGE)
    op = ckpt.op(twice)
    op.no_gradient()
    program = ckpt.trace(lambda x: np.sum(op(x)) + np.sum(x), x)
    calls = next(e.kernel for e in program.traced.entries if e.node.op is op).calls  # type: ignore[union-attr]
    assert [call.op.name for call in calls][:2] == ["tanh", "sin add"]


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("planner", ["store_all", "sqrt"])
@pytest.mark.parametrize(
    ("shape", "dtype"), [(LARGE, "f4"), ((3, 700, 301), "f8"), ((600_001,), "f8")]
)
def test_agreement_and_bits_with_any_number_of_threads(
    shape: tuple[int, ...], dtype: str, planner: str, n: int
) -> None:
    def loss(x: Any, row: Any, column: Any) -> Any:
        y = np.tanh(x * 0.5 + row) * column
        y = nn.softplus(y) - nn.gelu(x)
        return np.mean(y / (1 + y * y)) + np.sum(nn.silu(x) * row)

    args = normal(shape, shape[-1:], (*shape[:-1], 1), dtype=dtype)
    expected = ckpt.value_and_grad(loss)(*args)
    ckpt.threads(n)
    program = ckpt.trace(loss, *args)
    check(program, make_schedule(program.graph, planner), args, expected)


# -- rows ------------------------------------------------------------------------------------------


def softmax(x: Any) -> Any:
    y = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return y / np.sum(y, axis=-1, keepdims=True)


def normed(x: Any) -> Any:
    z = x - np.mean(x, axis=-1, keepdims=True)
    return z / np.sqrt(np.mean(z * z, axis=-1, keepdims=True) + 1e-5)


def log_sum_exp(x: Any) -> Any:
    most = np.max(x, axis=-1)
    return x * (np.log(np.sum(np.exp(x - most[..., None]), axis=-1)) + most)[..., None]


def spread(x: Any) -> Any:
    """Over two axes, and over one of them."""
    y = np.sin(x) * 0.5
    total = np.sum(y, axis=(-2, -1), keepdims=True)
    return y * total - np.prod(1 + y * 1e-3, axis=-1, keepdims=True) * total


@pytest.mark.parametrize("function", [softmax, normed, log_sum_exp, spread])
@pytest.mark.parametrize(("shape", "dtype"), [((64, 150, 130), "f4"), ((48, 90, 131), "f8")])
def test_rows_are_reduced_in_tiles(function: Any, shape: Any, dtype: str) -> None:
    def loss(x: Any, w: Any) -> Any:
        return np.sum(function(np.tanh(x)) * w)

    args = normal(shape, shape, dtype=dtype)
    plain, code = code_of(loss, *args)
    made = [line.function for line in code.lines if isinstance(line.function, tiled.TiledRun)]
    assert max(sum(piece.reduced > 0 for piece in run.pieces) for run in made) >= 2
    assert place(code) < place(plain)
    expected = ckpt.value_and_grad(loss)(*args)
    program = ckpt.trace(loss, *args)
    for n in (1, 2):
        ckpt.threads(n)
        check(program, make_schedule(program.graph, "store_all"), args, expected)


@pytest.mark.parametrize("layout", ["F", "reversed", "broadcast"])
def test_rows_that_lie_otherwise_are_reduced_as_they_lie(layout: str) -> None:
    [x] = normal((1300, 900))
    there = {"F": np.asfortranarray(x), "reversed": x[:, ::-1], "broadcast": x[:1].repeat(1300, 0)}
    args = [np.broadcast_to(x[:1], x.shape) if layout == "broadcast" else there[layout]]

    def loss(x: Any) -> Any:
        return np.sum(softmax(x * 2) * normed(x))

    program = ckpt.trace(loss, *args)
    schedule = make_schedule(program.graph, "store_all")
    check(program, schedule, args, ckpt.value_and_grad(loss)(*args))


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "prod"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "longdouble"])
def test_a_row_of_any_length_has_numpys_bits(name: str, dtype: str) -> None:
    for rest in [(n,) for n in (1, 2, 7, 8, 9, 127, 128, 129, 1000)] + [(3, 5), (17, 9), (1, 8)]:
        [x] = normal((37, *rest), dtype=dtype)
        x[3] = -0.0
        made = getattr(np, name)(x, axis=tuple(range(1, x.ndim)))
        source = pieces.Operand(AbstractArray(x.shape, dtype))
        target = pieces.Operand(AbstractArray(made.shape, dtype), len(rest))
        piece = pieces.Elementwise(BY_NAME[name], (source,), {}, target, len(rest))
        out = np.full_like(made, np.nan)
        tiled.TiledRun([piece], [source, target], 2048)(x, out)
        assert out.tobytes() == made.tobytes()


def softmax_rule(g: Any, out: Any) -> Any:
    """With a view between."""
    return out * (g - np.sum(g * out, axis=-1)[..., None])


def normed_rule(g: Any, x: Any) -> Any:
    z = x - np.mean(x, axis=-1, keepdims=True)
    scale = np.sqrt(np.mean(z * z, axis=-1, keepdims=True) + 1e-5)
    y = z / scale
    g = g - np.mean(g, axis=-1, keepdims=True) - y * np.mean(g * y, axis=-1, keepdims=True)
    return g / scale


@pytest.mark.parametrize(("shape", "dtype"), [((64, 150, 130), "f4"), ((48, 90, 131), "f8")])
def test_functions_of_rows_are_a_run_forward_and_a_run_back(shape: Any, dtype: str) -> None:
    soft, norm = ckpt.op(softmax), ckpt.op(normed)
    soft.vjp(x=softmax_rule)
    norm.vjp(x=normed_rule)

    def loss(x: Any, w: Any) -> Any:
        return np.sum(norm(soft(x * w)) * w)

    args = normal(shape, shape, dtype=dtype)
    program = ckpt.trace(loss, *args)
    for op in (soft, norm):
        kernel: Any = next(e.kernel for e in program.traced.entries if e.node.op is op)
        for one in (kernel, *kernel.rules.values()):
            assert len(one.calls) == 1
            assert one.workspace < program.graph[0].nbytes // 3
    expected = ckpt.value_and_grad(loss)(*args)
    for n, planner in ((1, "store_all"), (2, "sqrt")):
        ckpt.threads(n)
        check(program, make_schedule(program.graph, planner), args, expected)


REDUCTIONS = (np.sum, np.mean, np.max, np.prod)


def of_rows(numbers: list[int], rank: int) -> Any:
    """A function of elementwise calls and reductions of rows, and what is left of rows, chosen by
    the numbers."""

    def function(x: Any) -> Any:
        pool, left = [x], [x[(0,) * (rank - 1)] * 0.5]
        for n in numbers:
            y, z = pool[n % len(pool)], left[n % len(left)]
            axes = tuple(range(-1 - n % (rank - 1), 0))
            match n % 7:
                case 0:
                    left.append(REDUCTIONS[n % 4](y, axis=axes, keepdims=True) * 0.1)
                case 1:
                    part = REDUCTIONS[n % 4](np.sin(y), axis=axes)
                    left.append(part[(..., *[None] * len(axes))])
                case 2:
                    left.append(np.tanh(z) + 1)
                case 3:
                    pool.append(np.tanh(y + z))
                case 4:
                    pool.append(y * z - x)
                case _:
                    pool.append(np.sin(y) * pool[-1])
        return pool[-1] + left[-1]

    return function


@pytest.mark.usefixtures("small")
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(0, 83), min_size=2, max_size=10),
    st.sampled_from([(13, 5), (3, 7, 4), (6, 2, 1, 3)]),
    st.sampled_from(["f4", "f8", "f2"]),
    st.sampled_from([1, 3]),
)
def test_random_functions_of_rows_in_small_tiles(
    numbers: list[int], shape: tuple[int, ...], dtype: str, n: int
) -> None:
    function = of_rows(numbers, len(shape))
    op = ckpt.op(function)
    op.vjp(x=lambda g, x: function(g * 0.5) * x)
    ckpt.threads(n)

    def loss(x: Any, w: Any) -> Any:
        return np.sum(op(function(x) * w) * w)

    args = normal(shape, shape, dtype=dtype)
    with np.errstate(all="ignore"):
        expected = ckpt.value_and_grad(loss)(*args)
        program = ckpt.trace(loss, *args)
        for planner in ("store_all", "recompute_all"):
            schedule = make_schedule(program.graph, planner)
            step = program.compile(schedule)
            for found in (ckpt.execute(program, schedule, *args).result, step(*args), step(*args)):
                assert found[0].tobytes() == expected[0].tobytes()
                assert found[1].tobytes() == expected[1].tobytes()


# -- across instructions ---------------------------------------------------------------------------


def test_a_formula_is_a_run_forward_and_a_run_back() -> None:
    def loss(x: Any, w: Any) -> Any:
        return np.sum(0.5 * x * (1 + np.tanh(0.8 * (x + 0.04 * (x * x * x)))) * w)

    plain, code = code_of(loss, *normal(LARGE, LARGE))
    assert not runs(plain)
    assert runs(code)[0] == 10
    assert len(runs(code)) <= 3
    assert place(code) < place(plain)


def test_layers_that_are_alike_share_a_run() -> None:
    def loss(x: Any, w: Any) -> Any:
        for _ in range(6):
            x = np.sin(x @ w) * 0.5
        return np.sum(x)

    _, code = code_of(loss, *normal((4096, 256), (256, 256)))
    made = [x.function for x in code.lines if isinstance(x.function, tiled.TiledRun)]
    assert len(made) == 12
    assert len(set(made)) <= 3


def test_a_run_ends_where_something_else_reads_it() -> None:
    def loss(x: Any, w: Any) -> Any:
        y = np.sin(np.tanh(x))
        return np.sum(np.cos(y) * np.sum(y, axis=0) * w)

    _, code = code_of(loss, *normal(LARGE, LARGE))
    assert runs(code)[:2] == [3, 2]


def test_small_arrays_are_left_as_they_are() -> None:
    plain, code = code_of(lambda x: np.sum(np.sin(np.tanh(x))), *normal((64, 64)))
    assert not runs(code)
    assert len(code.lines) == len(plain.lines)


@pytest.mark.usefixtures("small")
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices, st.integers(0, 1000), st.sampled_from([1, 2]))
def test_random_programs_in_small_tiles(steps: Any, seed: int, n: int) -> None:
    loss, args = make(steps, seed, 0)
    expected = ckpt.value_and_grad(loss)(*args)
    ckpt.threads(n)
    program = ckpt.trace(loss, *args)
    for planner in ("store_all", "sqrt", "recompute_all"):
        schedule = make_schedule(program.graph, planner)
        step = program.compile(schedule)
        executed = ckpt.execute(program, schedule, *args).result
        for found in (executed, step(*args), step(*args)):
            assert found[0] == expected[0]
            for a, b in zip(tree.leaves(found[1]), tree.leaves(expected[1]), strict=True):
                np.testing.assert_array_equal(a, b)
