"""Random programs in plain NumPy: elementwise, products, reductions, views, slices, shared values,
captured masks, dropout and nested checkpoints."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

import ckpt

N = 12


def _unary(f):
    return lambda pool, w, rng: f(pick(pool, rng))


def pick(pool, rng):
    return pool[-1 - int(rng.integers(0, min(len(pool), 4)))]


def _transposed(pool, w, rng):
    return np.tanh(pick(pool, rng).T).T


def _rows(pool, w, rng):
    x = pick(pool, rng)
    return np.concatenate([x[N // 2 :] * 2, x[: N // 2]], axis=0)


def _loop_of_slices(pool, w, rng):
    x = pick(pool, rng)
    return np.stack([np.sin(x[k]) for k in range(N)])


def _mean(pool, w, rng):
    x = pick(pool, rng)
    return x - np.mean(x, axis=int(rng.integers(0, 2)), keepdims=True)


def _mask(pool, w, rng):
    return pick(pool, rng) * (rng.random((N, N)) < 0.7)


def _where(pool, w, rng):
    x = pick(pool, rng)
    return np.where(x > 0, x, 0.1 * x)


def _broadcast(pool, w, rng):
    x = pick(pool, rng)
    return x + np.broadcast_to(x[0], (N, N))


STEPS = (
    _unary(np.tanh),
    _unary(lambda x: np.sin(x) * x),
    _unary(lambda x: np.exp(-(x * x))),
    _unary(lambda x: x.reshape(N * N)[::-1].reshape(N, N)),
    _unary(lambda x: np.swapaxes(x, 0, 1) * 0.5),
    lambda pool, w, rng: pick(pool, rng) @ pick(w, rng),
    lambda pool, w, rng: pick(pool, rng).T @ pick(w, rng),
    lambda pool, w, rng: pick(pool, rng) + pick(pool, rng),
    lambda pool, w, rng: pick(pool, rng) * pick(pool, rng),
    lambda pool, w, rng: pick(pool, rng) * pick(w, rng)[0],
    _transposed, _rows, _loop_of_slices, _mean, _mask, _where, _broadcast,
)  # fmt: skip

choices = st.lists(st.integers(0, len(STEPS) - 1), min_size=1, max_size=12)
"""A program: which steps, in order."""


def make(steps, seed, depth_of_checkpoints):
    """A loss of (weights, x) that does ``steps``; every third one begins a checkpointed block."""

    def block(rest, pool, w, rng, depth):
        def run(x):
            inner = [*pool[-2:], x]
            for step in rest:
                inner.append(STEPS[step](inner, w, rng))
            return np.tanh(inner[-1])

        return ckpt.checkpoint(run) if depth else run

    def loss(w, x):
        rng = np.random.default_rng(seed)
        pool = [np.tanh(x @ w[0])]
        for at in range(0, len(steps), 3):
            part = list(steps[at : at + 3])
            inner = block(part, pool, w, rng, depth_of_checkpoints)

            def outer(x, inner=inner):
                return inner(np.cos(x))

            f = ckpt.checkpoint(outer) if depth_of_checkpoints > 1 else outer
            pool.append(f(pool[-1]))
        total = np.sum(pool[-1] * pool[0])
        return total + np.mean(pool[len(pool) // 2])

    rng = np.random.default_rng(seed + 1)
    weights = [rng.standard_normal((N, N)) / N**0.5 for _ in range(3)]
    return loss, (weights, rng.standard_normal((N, N)))
