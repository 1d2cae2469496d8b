"""Modules, closures, and planned steps within the user's own loops."""

from __future__ import annotations

import dataclasses
from functools import partial, reduce
from typing import Any

import pytest

pytest.importorskip("jax")
import jax
import jax.numpy as jnp
import numpy as np

import ckpt.jax

X = jnp.ones((32, 16))


@partial(jax.tree_util.register_dataclass, data_fields=["w", "act", "still"], meta_fields=["depth"])
@dataclasses.dataclass
class Module:
    """As Equinox writes them: a function is a leaf, and no array, and so is a flag."""

    w: Any
    act: Any
    still: bool
    depth: int

    def __call__(self, x: Any) -> Any:
        for _ in range(self.depth):
            x = self.act(x @ self.w) + (x if self.still else 0.5 * x)
        return x


def test_a_module_whose_leaves_are_not_all_arrays() -> None:
    module = Module(jnp.eye(16) * 0.1, jnp.tanh, False, 8)

    def loss(m: Module, x: Any) -> Any:
        return jnp.mean(m(x) ** 2)

    step = ckpt.jax.plan(loss, module, X, budget="60%", progress=False)
    _, gradient = step(module, X)
    assert isinstance(gradient, Module) and gradient.act is None and gradient.still is None
    expected = jax.grad(lambda w: loss(Module(w, jnp.tanh, False, 8), X))(module.w)
    np.testing.assert_allclose(gradient.w, expected, rtol=1e-4)
    found = step.verify(module, X)
    assert found.planned.nbytes < found.plain.nbytes


def test_a_closure_within_the_users_own_scan() -> None:
    w = jnp.eye(16) * 0.2

    def loss(x: Any) -> Any:
        return jnp.mean(reduce(lambda h, _: jnp.tanh(h @ w) + h, range(8), x) ** 2)

    step = ckpt.jax.plan(loss, X, budget="60%", progress=False)
    assert "constant" in {node.op for node in step.graph}

    def losses(gradients: Any) -> Any:
        def train(x: Any, _: Any) -> Any:
            value, gradient = gradients(x)
            return x - 0.1 * gradient, value

        return jax.jit(lambda x: jax.lax.scan(train, x, None, length=3)[1])(X)

    np.testing.assert_allclose(losses(step), losses(jax.value_and_grad(loss)), rtol=1e-4)
    inside = jax.jit(lambda x: ckpt.jax.plan(loss, x, budget="60%", compile=False)(x)[0])
    np.testing.assert_allclose(inside(X), loss(X), rtol=1e-4)
