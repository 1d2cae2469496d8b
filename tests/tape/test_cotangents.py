"""Whose memory a cotangent lies in: what a rule gives is kept as it is, shared, or copied, so that
no gradient is written into by mistake and none holds more bytes than its own."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt import Value
from ckpt.tape.core.cotangents import owner
from tests.tape.ops.checking import same, store_all

RNG = np.random.default_rng(0)
X = RNG.standard_normal((20, 30))
TIMES = 50


def doubling(name: str, rule: Callable[..., Any]) -> Any:
    """2 x with a rule that gives 2 g in some memory of its own."""
    return ckpt.op(name=name)(lambda x: x * 2).vjp(x=rule)


RULES: dict[str, Callable[..., Any]] = {
    "a slice of a large array": lambda g: (np.concatenate([g] * TIMES) * 2)[: len(g)],
    "every other column": lambda g: np.repeat(g * 2, 2, axis=1)[:, ::2],
    "a transposed slice": lambda g: (np.concatenate([g.T] * TIMES) * 2)[-g.shape[1] :].T,
    "reshaped": lambda g: np.reshape(np.reshape(g, (-1,)) * 2, g.shape),
    "an array": lambda g: g * 2,
}


def test_these_rules_hold_more_than_they_show() -> None:
    sizes = [owner(RULES[name](X)).nbytes // X.nbytes for name in RULES]
    assert sizes == [TIMES, 2, TIMES, 1, 1]


@pytest.mark.parametrize("rule", RULES)
def test_a_gradient_holds_its_own_bytes_and_no_more(rule: str) -> None:
    op = doubling("holds_more", RULES[rule])

    def loss(w: Any) -> Any:
        return np.sum(op(w) * X)

    leaf = Value(X)
    loss(leaf).backward()
    found = {
        "backward()": leaf.grad,
        "grad": ckpt.grad(loss)(X),
        "checkpointed": ckpt.grad(ckpt.checkpoint(loss))(X),
    }
    program = ckpt.trace(loss, X)
    schedule = store_all(program.graph)
    found["executed"] = program.execute(schedule, X)[1]
    found["compiled"] = program.compile(schedule)(X)[1]
    for way, gradient in found.items():
        assert owner(gradient).nbytes == X.nbytes, way
        same(2 * X, gradient, way)


def test_a_cotangent_on_its_way_holds_its_own_bytes_as_well() -> None:
    """The large array is gone when the next rule runs, which the slice of it is for."""
    large: list[Any] = []
    alive: list[bool] = []

    def slices(g: Any) -> Any:
        made = np.concatenate([g] * TIMES) * 2
        large.append(weakref.ref(made))
        return made[: len(g)]

    def looks(g: Any) -> Any:
        alive.append(large[0]() is not None)
        return g * 3

    first = ckpt.op(name="looks")(lambda x: x * 3).vjp(x=looks)
    second = doubling("slices", slices)
    leaf = Value(X)
    np.sum(second(first(leaf))).backward()
    assert alive == [False]
    same(np.full_like(X, 6), leaf.grad, "gradient")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("first", [True, False])
def test_what_it_gives_is_summed_like_any_other(rule: str, first: bool) -> None:
    op = doubling("summed", RULES[rule])

    def loss(w: Any) -> Any:
        h = np.sin(w)
        parts = [np.sum(op(h) * X), np.sum(h * X)]
        return parts[first] + parts[not first] + np.sum(h.T * X.T)

    expected = ckpt.grad(lambda w: 4 * np.sum(np.sin(w) * X))(X)
    np.testing.assert_allclose(ckpt.grad(loss)(X), expected)
    assert owner(ckpt.grad(loss)(X)).nbytes == X.nbytes


SPREAD: dict[str, Callable[..., Any]] = {
    "a spread row": lambda g: np.broadcast_to(np.sum(g, axis=0), g.shape),
    "a spread number": lambda g: np.broadcast_to(np.sum(g), g.shape),
}


@pytest.mark.parametrize("rule", SPREAD)
@pytest.mark.parametrize("others", [0, 1, 2])
def test_what_is_spread_is_never_added_into(rule: str, others: int) -> None:
    """Each of its elements stands for many; nor is it a gradient, which may be written into."""
    op = ckpt.op(name="spread")(lambda x: x).vjp(x=SPREAD[rule])

    def loss(w: Any) -> Any:
        total = np.sum(op(w) * X)
        for _ in range(others):
            total = total + np.sum(w * X)
        return total + np.sum(op(w) * X)

    gradient = ckpt.grad(loss)(X)
    np.testing.assert_allclose(gradient, 2 * np.array(SPREAD[rule](X)) + others * X)
    gradient += 1
    assert owner(gradient).nbytes == X.nbytes


HANDED: dict[str, Callable[[Any], Any]] = {
    "itself": lambda h: h + 0.0,
    "transposed": lambda h: h.T,
    "reshaped": lambda h: np.reshape(h, (30, 20)),
    "a part": lambda h: np.concatenate([h[:10], h[10:]]),
}


@pytest.mark.parametrize("handed", HANDED)
def test_a_cotangent_that_two_share_is_not_added_into(handed: str) -> None:
    """a + b hands one array to both; what else comes to a must not come to b."""

    def loss(w: Any) -> Any:
        a, b = np.sin(w), np.cos(w)
        return np.sum(a * X) + np.sum(np.exp(HANDED[handed](a) + HANDED[handed](b))) + np.sum(b)

    def plain(w: Any) -> Any:
        a, b = np.sin(w), np.cos(w)
        return np.sum(a * X + np.exp(a + b) + b)

    expected = ckpt.grad(plain)(X)
    np.testing.assert_allclose(ckpt.grad(loss)(X), expected, rtol=1e-12)
    program = ckpt.trace(loss, X)
    same(ckpt.grad(loss)(X), program.execute(store_all(program.graph), X)[1], "executed")


def test_the_cotangent_that_is_given_stays_as_it_is() -> None:
    start = RNG.standard_normal((20, 30))
    before = start.copy()
    leaf = Value(X)
    h = leaf + 0.0
    (h + h * 2.0).backward(start)
    same(before, start, "start")
    same(3 * start, leaf.grad, "gradient")


def test_a_retained_gradient_is_a_copy() -> None:
    leaf = Value(X)
    h = (leaf + 0.0).retain_grad()
    np.sum(h * X).backward()
    assert not np.shares_memory(h.grad, leaf.grad)
    same(X, h.grad, "retained")
    same(X, leaf.grad, "gradient")
