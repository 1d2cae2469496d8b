"""Functions of JAX, and arguments for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Case = tuple[Callable[..., Any], tuple[Any, ...]]


def mlp(params: Any, x: Any) -> Any:
    for w, b in params:
        x = x + jax.nn.gelu(x @ w + b)
    return jnp.mean(x * x)


def mlp_case(depth: int = 8, width: int = 32, batch: int = 64) -> Case:
    keys = jax.random.split(jax.random.key(0), depth)
    params = [(jax.random.normal(k, (width, width)) / width**0.5, jnp.zeros(width)) for k in keys]
    return mlp, (params, jax.random.normal(keys[0], (batch, width)))


def norm(x: Any, scale: Any) -> Any:
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * scale


def block(p: Any, x: Any) -> Any:
    batch, length, width = x.shape
    parts = jnp.split(norm(x, p["n1"]) @ p["qkv"], 3, -1)
    q, k, v = (a.reshape(batch, length, 2, width // 2).transpose(0, 2, 1, 3) for a in parts)
    scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), q @ k.swapaxes(2, 3), -1e30)
    mixed = (jax.nn.softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(x.shape)
    x = x + mixed @ p["out"]
    return x + jax.nn.gelu(norm(x, p["n2"]) @ p["up"]) @ p["down"]


def transformer(params: Any, x: Any) -> Any:
    for p in params:
        x = block(p, x)
    return jnp.mean(x * x)


def transformer_case(depth: int = 2, width: int = 16) -> Case:
    def one(key: Any) -> Any:
        a, b, c, d = jax.random.split(key, 4)
        return {
            "qkv": jax.random.normal(a, (width, 3 * width)) / 4,
            "out": jax.random.normal(b, (width, width)) / 4,
            "up": jax.random.normal(c, (width, 4 * width)) / 4,
            "down": jax.random.normal(d, (4 * width, width)) / 4,
            "n1": jnp.ones(width),
            "n2": jnp.ones(width),
        }

    keys = jax.random.split(jax.random.key(0), depth)
    return transformer, ([one(k) for k in keys], jax.random.normal(keys[0], (2, 16, width)))


def dropout_case() -> Case:
    """Keys, a scan, a branch, a user's own checkpoint, a split, a constant, an argument unused."""
    table = jnp.arange(8.0)

    def loss(p: Any, key: Any, x: Any) -> Any:
        h = jnp.tanh(x @ p["w"]) + table
        for k in jax.random.split(key, 3):
            h = h * jax.random.bernoulli(k, 0.5, h.shape)
        h, sums = jax.lax.scan(lambda c, w: (jnp.tanh(c @ w), c.sum()), h, p["s"])
        h = jax.lax.cond(h.sum() > 0, jnp.sin, jnp.cos, h)
        left, right = jnp.split(h, 2, axis=1)
        h = jax.checkpoint(lambda h: jnp.sin(jnp.sin(h)))(left + jax.nn.relu(right))
        return jnp.mean(jax.jit(jax.nn.logsumexp)(h)) + sums.sum()

    params = {"w": jnp.eye(8) * 0.3, "s": jnp.ones((3, 8, 8)) * 0.1, "unused": jnp.ones(3)}
    return loss, (params, jax.random.key(1), jnp.ones((4, 8)))


def conv_case() -> Case:
    def loss(ws: Any, x: Any) -> Any:
        for w in ws:
            x = x + jax.nn.relu(jax.lax.conv(x, w, (1, 1), "SAME"))
        return jnp.var(x)

    keys = jax.random.split(jax.random.key(0), 4)
    return loss, (
        [jax.random.normal(k, (4, 4, 3, 3)) / 6 for k in keys],
        jax.random.normal(keys[0], (2, 4, 8, 8)),
    )


PROGRAMS: dict[str, Callable[[], Case]] = {
    "mlp": mlp_case,
    "transformer": transformer_case,
    "dropout": dropout_case,
    "conv": conv_case,
}
