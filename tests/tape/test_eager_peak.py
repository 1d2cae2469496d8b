"""What an eager step holds at most: activations and cotangents, and what the caller's own variables
hold - but no gradient once it has come to rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ckpt

RNG = np.random.default_rng(0)
WIDE, BATCH = 250, 4
WEIGHTS = [RNG.standard_normal((WIDE, WIDE)) / 16 for _ in range(6)]
X = RNG.standard_normal((BATCH, WIDE))
WEIGHT_NBYTES = WEIGHTS[0].nbytes
SLACK = 64 * 1024
"""Of Python's own objects, and of what NumPy allocates once."""


def peak(function: Any, *args: Any, **options: Any) -> int:
    program = ckpt.trace(function, *args, **options)
    program.measure(program.plain, *args)  # the first one pays for what is allocated once
    return program.measure(program.plain, *args)[1]


def chain(ws: Any, x: Any) -> Any:
    for w in ws:
        x = np.tanh(x @ w)
    return np.sum(x)


def test_gradients_at_rest_are_left_out() -> None:
    """Six weights of half a MB, and activations of 8 KB: each gradient rests where it is made."""
    assert 60 * X.nbytes < WEIGHT_NBYTES
    assert peak(chain, WEIGHTS, X) < 16 * X.nbytes + SLACK


def test_a_gradient_is_left_out_once_however_often_it_is_added_to() -> None:
    """A second contribution to it is an array beside it, while it is added: one, not none."""
    found = peak(lambda ws, x: chain([ws[0]] * 4, x), WEIGHTS[:1], X)
    assert WEIGHT_NBYTES <= found < WEIGHT_NBYTES + 12 * X.nbytes + SLACK


def test_activations_and_cotangents_are_all_there() -> None:
    """n layers of x = tanh(x): n outputs kept, and a cotangent at least beside them."""
    large = RNG.standard_normal((300, 300))
    for n in (2, 8):

        def deep(w: Any, n: int = n) -> Any:
            for _ in range(n):
                w = np.tanh(w)
            return np.sum(w)

        found = peak(deep, large) / large.nbytes
        assert n + 1 <= found < n + 3


@pytest.mark.parametrize(("count", "more"), [(1, 1), (3, 3), (4, 3)])
def test_what_the_callers_variables_hold_is_there_too(count: int, more: int) -> None:
    """x + 1 is read by no rule, so the tape lets go of it; a list of the caller's doesn't. The last
    one is held in any case, for the sine of it."""
    large = RNG.standard_normal((300, 300))
    held: list[Any] = []

    def keeps(w: Any, count: int) -> Any:
        held.clear()
        h = np.sin(w)
        for k in range(4):
            h = h + 1
            if k < count:
                held.append(h)
        return np.sum(np.sin(h))

    found = peak(keeps, large, count) - peak(keeps, large, 0)
    assert found == pytest.approx(more * large.nbytes, abs=SLACK)


def test_a_peak_of_the_forward_counts() -> None:
    large = RNG.standard_normal((300, 300))

    def spends(w: Any) -> Any:
        np.concatenate([np.ones_like(large)] * 9)
        return np.sum(np.tanh(w))

    assert 10 * large.nbytes <= peak(spends, large) < 11 * large.nbytes + SLACK


def test_of_two_arguments_and_aux() -> None:
    """aux is the caller's as well, while the backward runs or not."""

    def both(a: Any, b: Any) -> Any:
        h = a @ b
        return np.sum(np.tanh(h)), {"h": h}

    found = peak(both, X, WEIGHTS[0], argnums=(0, 1), has_aux=True)
    assert 3 * X.nbytes <= found < 8 * X.nbytes + SLACK


def test_the_result_is_that_of_the_plain_step() -> None:
    program = ckpt.trace(chain, WEIGHTS, X)
    (loss, grads), _ = program.measure(program.plain, WEIGHTS, X)
    expected = ckpt.value_and_grad(chain)(WEIGHTS, X)
    assert loss == expected[0]
    for found, wanted in zip(grads, expected[1], strict=True):
        np.testing.assert_array_equal(found, wanted)
