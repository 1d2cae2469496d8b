"""A rule may hand on what it was given - a residual, a view of one, a constant: nothing is lost.

What is handed on is copied, in the graph as in memory: a sum of cotangents would write into it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt.machine import simulate
from tests.tape.ops.checking import same

RNG = np.random.default_rng(0)
W, X, ONES = RNG.standard_normal((64, 64)), RNG.standard_normal((64, 64)), np.ones((64, 64))


def product(name: str, x: Callable[..., Any], y: Callable[..., Any]) -> Any:
    """x * y with these rules."""

    def forward(x, y):
        return x * y

    return ckpt.op(name=name)(forward).vjp(x=x, y=y)


RULES = {
    "a residual": product("hand_on", lambda g, y: y, lambda g, x: x),
    "a view of one": product("hand_on_view", lambda g, y: y.T, lambda g, x: x.T),
    "a part of one": product(
        "hand_on_part", lambda g, y: np.broadcast_to(y[0], (64, 64)), lambda g, x: g
    ),
    "out": product("hand_on_out", lambda g, out: out, lambda g, out: out),
    "a constant": product("hand_on_constant", lambda g: ONES, lambda g: ONES.T),
    "its cotangent": product("hand_on_g", lambda g: g, lambda g: g.T),
    "an array of its own": product("hand_on_fresh", lambda g, y: g * y, lambda g, x: (g * x).T),
}
PROGRAMS: dict[str, Callable[..., Any]] = {
    "once": lambda op, w, x: np.sum(op(np.tanh(w), np.sin(w))),
    "and summed": lambda op, w, x: np.sum(op(h := np.tanh(w), k := np.sin(w))) + np.sum(h * k + h),
    "to a leaf": lambda op, w, x: np.sum(op(w, x)) + np.sum(w * x),
    "to a leaf first": lambda op, w, x: np.sum(w * x) + np.sum(op(w, w)),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_bytes_and_bits_agree_and_nothing_is_written_into(rule: str, program: str) -> None:
    def loss(w, x):
        return PROGRAMS[program](RULES[rule], w, x)

    traced = ckpt.trace(loss, W, X, argnums=(0, 1))
    before = W.copy(), X.copy(), ONES.copy()
    eager = ckpt.value_and_grad(loss, (0, 1))(W, X)
    again = ckpt.value_and_grad(ckpt.checkpoint(loss), (0, 1))(W, X)
    same(eager, again, "checkpointed")
    for planner in ("store_all", "recompute_all"):
        schedule = ckpt.make_schedule(traced.graph, planner)
        predicted = simulate(traced.graph, schedule)
        for _ in range(2):  # the first one pays for what NumPy and Python allocate once
            run = ckpt.execute(traced, schedule, W, X, trace_memory=True)
        assert predicted.same_live_bytes(run.timeline) is None
        # A sum of two layouts goes through a buffer of NumPy's, of 32 KiB here.
        assert run.timeline.peak < predicted.peak + W.nbytes + 12_000
        same(eager, run.result, "executed")
        same(eager, traced.compile(schedule)(W, X), "compiled")
    same(before, (W, X, ONES), "what the rules hand on")


def test_a_residual_handed_on_is_counted() -> None:
    """Two residuals and a copy of one: the other one dies, and is its own copy."""

    def loss(w):
        return np.sum(RULES["a residual"](np.tanh(w), np.sin(w)))

    program = ckpt.trace(loss, W)
    schedule = ckpt.make_schedule(program.graph, "store_all")
    predicted = simulate(program.graph, schedule)
    ckpt.execute(program, schedule, W)
    run = ckpt.execute(program, schedule, W, trace_memory=True)
    assert predicted.peak == 3 * W.nbytes + 16  # and the loss and its cotangent
    assert 0 <= run.timeline.peak - predicted.peak < 8_000
    right = ckpt.grad(lambda w: np.sum(np.tanh(w) * np.sin(w)))(W)
    np.testing.assert_allclose(run.result[1], right)
