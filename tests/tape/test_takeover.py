"""What dies with a step of the backward is written over - and nothing else ever is."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt import nn
from ckpt.machine import simulate
from ckpt.schedule import Backward, Free, Schedule
from ckpt.tape.core.abstract import abstract
from ckpt.tape.core.op import BY_NAME, Op
from ckpt.tape.ops.pointwise.buffers import update
from tests.graphs import step_of
from tests.tape.ops.checking import same, store_all

RNG = np.random.default_rng(0)
W = RNG.standard_normal((80, 80)).astype("f4")
X = RNG.standard_normal((80, 80)).astype("f4")
SIZE = W.nbytes
"""Of one array, in bytes."""


def planned(loss: Any, *args: Any, schedule: Schedule | None = None) -> Any:
    """The timeline of a schedule, agreed on by all three ways of running it."""
    program = ckpt.trace(loss, *args)
    schedule = schedule or store_all(program.graph)
    predicted = simulate(program.graph, schedule)
    run = ckpt.execute(program, schedule, *args)
    assert predicted.same_live_bytes(run.timeline) is None
    expected = ckpt.value_and_grad(loss)(*args)
    same(expected, run.result, "executed")
    step = program.compile(schedule)
    same(expected, step(*args), "compiled")
    same(expected, step(*args), "compiled, again")
    return predicted


def test_a_dying_read_saves_the_array_that_would_lie_beside_it() -> None:
    """tanh keeps its output: g (1 - out²) is computed in out's place."""
    predicted = planned(lambda w: np.sum(np.tanh(w * 2)), W)
    graph = ckpt.trace(lambda w: np.sum(np.tanh(w * 2)), W).graph
    (taken,) = predicted.takeovers.values()
    assert graph[taken].op == "tanh"
    assert step_of(graph, "tanh").overwrites == ((taken, SIZE),)


def test_without_the_free_right_behind_it_stays() -> None:
    def loss(w):
        return np.sum(np.tanh(w * 2))

    graph = ckpt.trace(loss, W).graph
    schedule = store_all(graph)
    at = next(p for p, i in enumerate(schedule) if isinstance(i, Backward) and i.step == 1)
    free = schedule.instructions[at + 1]
    assert isinstance(free, Free)
    later = [i for i in schedule if i != free]
    without, taken = planned(loss, W, schedule=Schedule((*later, free))), planned(loss, W)
    assert not without.takeovers
    assert list(taken.takeovers) == [at]
    assert without[at].high - taken[at].high == SIZE


def test_a_cotangent_that_dies_is_written_over() -> None:
    """exp(sin(w)): g exp(sin) lies in exp's place, and its product with the cosine in g's."""
    graph = ckpt.trace(lambda w: np.sum(np.exp(np.sin(w * 2)) * X), W).graph
    step = step_of(graph, "sin")
    (before, after) = graph.cotangents[graph.steps.index(step) :][:2]
    assert before == after == SIZE
    assert step.during == 2 * SIZE  # the cosine; the product needs no third array


def test_a_gradient_is_written_into_an_array_of_its_own() -> None:
    graph = ckpt.trace(lambda w: np.sum(np.exp(np.sin(w)) * X), W).graph
    assert step_of(graph, "sin").overwrites == ()
    planned(lambda w: np.sum(np.exp(np.sin(w)) * X), W)


def test_what_the_user_holds_is_never_written_over() -> None:
    kept: dict[str, Any] = {}
    constant = RNG.standard_normal(W.shape).astype("f4")

    def loss(w, x):
        h = np.tanh(w * x) * constant  # the argument, and what was captured, are read last here
        kept["h"] = h
        return np.sum(np.exp(h)), {"h": h, "again": np.sin(h)}

    before = W.copy(), constant.copy()
    step = ckpt.plan(loss, W, W + 1, has_aux=True, planner="store_all")
    (_, aux), _ = step(W, W + 1)
    (_, expected), _ = ckpt.value_and_grad(loss, has_aux=True)(W, W + 1)
    same(expected["h"], aux["h"], "aux")
    same(expected["again"], aux["again"], "aux")
    same(before, (W, constant), "arguments and captured arrays")


def test_an_array_that_a_users_primitive_returns_may_be_anybodys() -> None:
    table = RNG.standard_normal(W.shape).astype("f4")

    @ckpt.op(name="looked_up", infer=lambda x: abstract(table))
    def looked_up(x):
        return table

    looked_up.vjp(x=lambda g: g)
    before = table.copy()
    planned(lambda w: np.sum(np.exp(looked_up(w * 2)) * np.sin(w)), W)
    planned(lambda w: np.sum(np.square(looked_up(w * 2))), W)
    same(before, table, "the user's table")


def test_two_readers_in_one_step_and_views_keep_it() -> None:
    """x in x * x, a value that a live view shares, and one that a later rule reads."""
    planned(lambda w: np.sum(h * h) if (h := np.tanh(w * 2)) is not None else 0, W)
    planned(lambda w: np.sum((h := np.tanh(w * 2)) * h.T), W)
    planned(lambda w: np.sum((h := np.tanh(w * 2))[:40] * h[40:]) + np.sum(h.T @ h), W)
    planned(lambda w: np.sum(np.hypot(np.sin(w * 2) + 2, np.exp(w))), W)
    planned(lambda w: np.sum(np.sin(w * 2) / np.exp(w * 3)), W)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "silu", "softplus", "gelu"])
def test_activations(name: str) -> None:
    function = getattr(nn, name)
    predicted = planned(lambda w: np.sum(function(np.sin(w * 2) @ w)), W)
    assert predicted.takeovers


def operands(op: Op) -> list[Any] | None:
    """Arrays that the op takes, if two dimensions will do."""
    made = [RNG.standard_normal((40, 300)).astype("f4") for _ in op.operands]
    special: dict[str, Any] = {
        "class_losses_backward": [made[0][:, 0], made[1 % len(made)], np.arange(40)],
        "normalized_backward": [made[0], made[-1], np.ones((40, 1), "f4"), np.ones((40, 1), "f4"),
                                np.ones(300, "f4")],
        "masked": [made[0], made[0] > 0],
    }  # fmt: skip
    if op.name in special:
        return special[op.name]
    return made


STATIC = {"normalized_backward": {"axes": (1,), "eps": 0.0}, "masked": {"scale": 2.0}}
ABLE = [op for op in BY_NAME.values() if op.over is not None]


@pytest.mark.parametrize("op", ABLE, ids=lambda op: op.name)
def test_an_op_has_the_same_bits_where_it_writes_over_an_operand(op: Op) -> None:
    assert op.writes is not None
    assert op.over is not None
    params = {**op.static, **STATIC.get(op.name, {})}
    with np.errstate(all="ignore"):
        for k in range(len(op.operands)):
            given = operands(op)
            assert given is not None
            try:
                expected = op.forward(*given, **params)
            except TypeError:
                pytest.skip("not for floats")
            price = op.over(k, abstract(expected), *map(abstract, given), **params)
            target = np.array(given[k])
            if price is None or (target.shape, target.dtype) != (expected.shape, expected.dtype):
                continue
            given[k] = target
            made = op.writes(*given, out=target, **params)
            assert made is target or isinstance(made, np.ndarray)
            same(expected, target, f"over operand {k}")


LAYOUTS: dict[str, Any] = {
    "C": lambda x: x,
    "F": np.asfortranarray,
    "rows reversed": lambda x: x[::-1],
    "columns reversed": lambda x: x[:, ::-1],
    "F, rows reversed": lambda x: np.asfortranarray(x)[::-1],
    "strided": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
}
BROADCAST: dict[str, Any] = {
    "one": lambda x: np.broadcast_to(x[:1, :1].copy(), x.shape),
    "a row": lambda x: np.broadcast_to(x[:1].copy(), x.shape),
    "a column": lambda x: np.broadcast_to(x[:, :1].copy(), x.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_numpy_buffers_as_it_adds_in_place_is_foreseen(layout: str) -> None:
    for other in {**LAYOUTS, **BROADCAST}.values():
        target, g = LAYOUTS[layout](np.ones((130, 140))), other(np.ones((130, 140)))
        np.add(target, g, out=target)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        np.add(target, g, out=target)
        _, high = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert -2048 <= high - before - update(target, g) < 4096  # whole lines of the target


def test_what_numpy_buffers_while_gradients_are_added_is_held() -> None:
    def loss(p: Any) -> Any:
        block = ckpt.checkpoint(lambda a: nn.softmax(a @ a.T) @ a)
        return np.mean(block(p) - np.cumsum(p, axis=0))  # whose gradient goes by rows from below

    profile = ckpt.profile(loss, RNG.standard_normal((200, 200)))
    assert profile.measured is not None
    high = profile.timeline.peak
    assert high <= profile.measured.peak <= high + 16 * 1024
