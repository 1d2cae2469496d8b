"""Bad input is one clear line; odd input works."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("jax")
import jax
import jax.numpy as jnp
import numpy as np

import ckpt
import ckpt.jax

X = jnp.ones((3, 4))


def prints(x: Any) -> Any:
    jax.debug.print("{}", x.sum())
    return x.sum()


def branches(x: Any) -> Any:
    return x.sum() if x.sum() > 0 else -x.sum()


def makes_numpy(x: Any) -> Any:
    return jnp.sum(np.asarray(x))


def prints_within(x: Any) -> Any:
    return jax.jit(prints)(x)


def draws(x: Any) -> Any:
    return jnp.sum(jnp.sin(x * np.random.default_rng().random(4).astype("float32")))


def draws_within(x: Any) -> Any:
    def turn(c: Any, _: Any) -> Any:
        return jax.checkpoint(lambda c: draws(c) * c)(c), None

    return jax.lax.scan(turn, x, None, length=2)[0].sum()


MET: list[Any] = []


def remembers(x: Any) -> Any:
    MET.append(x)
    return jnp.sum(jnp.sin(x) * MET[0])


@pytest.mark.parametrize(
    ("function", "args", "options", "error", "words"),
    [
        (prints_within, (X,), {}, ckpt.UnsupportedError, r"print at test_refusals.py:\d* has"),
        (draws, (X,), {}, ckpt.TapeError, r"at test_refusals.py:.*differs from one trace to the"),
        (draws_within, (X,), {}, ckpt.TapeError, r"at test_refusals.py:.*pass it as an argument"),
        (remembers, (X,), {}, ckpt.TapeError, "differs from one trace|unexpected tracer"),
        (prints, (X,), {}, ckpt.UnsupportedError, "side effect"),
        (branches, (X,), {}, ckpt.AbstractError, "looks at a traced value"),
        (makes_numpy, (X,), {}, ckpt.AbstractError, "NumPy array of a traced value"),
        (jnp.sum, (jnp.arange(3),), {}, ckpt.UsageError, r"argument 0 is int32\[3\]"),
        (jnp.sum, ("text",), {}, ckpt.UsageError, "nothing to differentiate"),
        (jnp.sum, (X,), {"argnums": 1}, ckpt.UsageError, "there is no 1"),
        (jnp.sum, (X,), {"argnums": "a"}, ckpt.UsageError, "a whole number or several"),
        (jnp.tanh, (X,), {}, ckpt.UsageError, "must return a real scalar"),
        (jnp.sum, (X,), {"has_aux": True}, ckpt.UsageError, "returns a pair"),
        (jnp.sum, (X * 1j,), {}, ckpt.UsageError, "only real arguments"),
        (jnp.sum, (X,), {"cuts": "here"}, ckpt.UsageError, "'blocks' or 'anywhere'"),
        (3, (X,), {}, ckpt.UsageError, "a function is needed"),
    ],
)  # fmt: skip
def test_refused(function: Any, args: Any, options: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words) as found:
        ckpt.jax.plan(function, *args, budget="50%", compile=False, **options)
    assert "\n" not in str(found.value)


def test_numpys_commands_name_the_right_ones() -> None:
    with pytest.raises(ckpt.UsageError, match=r"JAX arrays: use ckpt\.jax\.plan"):
        ckpt.plan(lambda x: x, X)


def test_arguments_unlike_the_traced_ones_are_refused_where_nothing_can_be_planned() -> None:
    program = ckpt.jax.trace(jnp.sum, X)
    with pytest.raises(ckpt.TapeError, match="other shapes"):
        program.plain(X[0])


def chained(x: Any, w: Any = 1.0) -> Any:
    for _ in range(8):
        x = jnp.tanh(x * w)
    return jnp.sum(x)


@pytest.mark.parametrize(
    ("budget", "args"),
    [
        ("75%", (X, 2.0)),  # weakly typed
        ("100%", (jnp.ones((0, 3)),)),
        ("75%", (np.ones((2, 2)), np.float64(0.5))),  # float64 where JAX has it off
        ("75%", (X.astype(jnp.bfloat16),)),
        ("75%", (jnp.ones(()),)),
    ],
)
def test_odd_arguments_work(budget: str, args: Any) -> None:
    step = ckpt.jax.plan(chained, *args, budget=budget, compile=False)
    value, grads = jax.jit(step)(*args)
    expected = jax.jit(jax.value_and_grad(chained))(*args)
    assert grads.dtype == expected[1].dtype and grads.shape == expected[1].shape
    np.testing.assert_allclose(
        np.asarray(grads, np.float32), np.asarray(expected[1], np.float32), rtol=1e-2
    )
    np.testing.assert_allclose(float(value), float(expected[0]), rtol=1e-2)


def test_a_constant_and_a_loss_that_is_its_argument() -> None:
    step = ckpt.jax.plan(lambda x: x, jnp.float32(2.0), budget="100%", compile=False)
    assert step(jnp.float32(2.0)) == (2.0, 1.0)
    step = ckpt.jax.plan(lambda x: jnp.float32(3.0), X, budget="100%", compile=False)
    value, gradient = step(X)
    assert value == 3.0
    np.testing.assert_array_equal(gradient, jnp.zeros_like(X))


def test_donated_arguments() -> None:
    step = ckpt.jax.plan(chained, X, budget="60%", compile=False)
    run = jax.jit(lambda x: x - step(x)[1], donate_argnums=0)
    np.testing.assert_allclose(run(jnp.array(X)), X - jax.grad(chained)(X), rtol=1e-5)
