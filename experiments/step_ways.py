"""The steps that `bench_step` compares: of each case the ways to take it, each made when asked for.

A way is imported and built only in the process that takes it (`step_worker`).
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import bench_nn
import numpy as np
from step_calls import CallsAlone

import ckpt
from ckpt import Value, nn
from ckpt.tape.core.tree import leaves, rebuild

Array = Any
Step = Callable[[], Any]
Make = Callable[[], Step]
THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
CLOCK = time.process_time if THREADS == 1 else time.perf_counter
"""CPU seconds of one thread; of several the time that they take."""
A, C = 0.044715, float(np.sqrt(2 / np.pi))


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)


# -- multilayer perceptrons: h = f(h @ w + b), the loss the sum of squares -------------------------


def mlp(np: Any, activation: Any, params: Any, x: Any) -> Any:
    for w, b in params:
        x = activation(x @ w + b)
    return np.sum(x * x)


def gelu(np: Any, x: Any) -> Any:
    """As one writes it from its formula."""
    return 0.5 * x * (1 + np.tanh(C * (x + A * (x * x * x))))


def hand_mlp(gelus: bool, params: Any, x: Array) -> tuple[Any, Any]:
    tape = []
    for w, b in params:
        u = x @ w
        u += b
        if gelus:
            y, t = bench_nn.hand_gelu(u)
            tape.append((x, u, t))
        else:
            y = np.tanh(u, out=u)
            tape.append((x, y, None))
        x = y
    loss = np.sum(x * x)
    g = 2 * x
    grads: list[Any] = []
    for w, _ in reversed(params):
        x, y, t = tape.pop()
        if t is not None:
            g = bench_nn.hand_gelu_back(g, y, t)
        else:
            d = y * y
            g *= np.subtract(1, d, out=d)
        grads.append((x.T @ g, g.sum(0)))
        if tape:
            g = g @ w.T
    return loss, grads[::-1]


def hand_mlp_reusing(params: Any, x: Array) -> Step:
    """The tanh one with every array but the gradients allocated beforehand."""
    shape = len(x), params[0][0].shape[1]
    kept = [np.empty(shape, x.dtype) for _ in params]
    g, d, other = (np.empty(shape, x.dtype) for _ in range(3))

    def step() -> tuple[Any, Any]:
        h = x
        for (w, b), y in zip(params, kept, strict=True):
            np.dot(h, w, y)
            np.add(y, b, y)
            h = np.tanh(y, y)
        np.multiply(h, h, d)
        loss = np.add.reduce(d, None)
        here, there = np.multiply(h, 2, g), other
        grads: list[Any] = []
        for k in range(len(params) - 1, -1, -1):
            np.multiply(kept[k], kept[k], d)
            np.subtract(1, d, d)
            np.multiply(here, d, here)
            below = kept[k - 1] if k else x
            grads.append((below.T.dot(here), np.add.reduce(here, 0)))
            if k:
                np.dot(here, params[k][0].T, there)
                here, there = there, here
        return loss, grads[::-1]

    return step


def mlp_in_torch(gelus: bool, params: Any, x: Any) -> Any:
    import torch

    for w, b in params:
        x = torch.addmm(b, x, w)
        x = torch.nn.functional.gelu(x, approximate="tanh") if gelus else torch.tanh(x)
    return (x * x).sum()


def mlp_case(depth: int, width: int, batch: int, gelus: bool) -> dict[str, Make]:
    rng = np.random.default_rng(0)
    params = [
        (normal(rng, width, width, scale=width**-0.5), normal(rng, width, scale=0.1))
        for _ in range(depth)
    ]
    x = normal(rng, batch, width)
    steps: dict[str, Make] = {"hand": lambda: partial(hand_mlp, gelus, params, x)}
    if not gelus:
        steps["hand, reused buffers"] = partial(hand_mlp_reusing, params, x)
    steps |= of_ckpt(partial(mlp, np, nn.gelu if gelus else np.tanh), params, x)
    if gelus:
        formula = of_ckpt(partial(mlp, np, partial(gelu, np)), params, x)
        steps |= formula_ways(formula)
    make = (lambda np: partial(gelu, np)) if gelus else (lambda np: np.tanh)
    steps |= peers(lambda np: partial(mlp, np, make(np)), params, x)
    return {**steps, **in_torch(partial(mlp_in_torch, gelus), params, x)}


def formula_ways(formula: dict[str, Make]) -> dict[str, Make]:
    return {f"{way}, gelu's formula": formula[way] for way in ("eager", "planned")}


def gelu_case(rows: int) -> dict[str, Make]:
    """Forward and backward of a gelu, of a float32 array of ``rows`` KiB."""
    rng = np.random.default_rng(0)
    x, weights = normal(rng, rows, 256), normal(rng, rows, 256)

    def loss(activation: Any, np: Any, x: Any, weights: Any) -> Any:
        return np.sum(activation(x) * weights)

    def hand() -> tuple[Any, Any]:
        y, t = bench_nn.hand_gelu(x)
        y *= weights
        return np.sum(y), bench_nn.hand_gelu_back(weights, x, t)

    def loss_in_torch(x: Any, weights: Any) -> Any:
        import torch

        return (torch.nn.functional.gelu(x, approximate="tanh") * weights).sum()

    formula = of_ckpt(partial(loss, partial(gelu, np), np), x, weights)
    return {
        "hand": lambda: hand,
        **of_ckpt(partial(loss, nn.gelu, np), x, weights),
        **formula_ways(formula),
        **peers(lambda np: partial(loss, partial(gelu, np), np), x, weights),
        **in_torch(loss_in_torch, x, weights),
    }


# -- a transformer of elementary functions, and a conv net: shapes and hand-written in bench_nn ----


def normed(np: Any, x: Any, g: Any, b: Any) -> Any:
    z = x - np.mean(x, axis=-1, keepdims=True)
    return z / np.sqrt(np.mean(z * z, axis=-1, keepdims=True) + bench_nn.EPS) * g + b


def transformer(np: Any, p: Any, tokens: Array, targets: Array, future: Array) -> Any:
    batch, length = tokens.shape
    heads, width = bench_nn.HEADS, bench_nn.WIDTH
    x = np.reshape(p["tokens"][tokens] + p["positions"], (-1, width))
    for layer in p["layers"]:
        h = normed(np, x, layer["g1"], layer["b1"])
        qkv = h @ layer["qkv"] + layer["qkv_b"]
        qkv = np.transpose(np.reshape(qkv, (batch, length, 3, heads, -1)), (2, 0, 3, 1, 4))
        a = qkv[0] @ np.swapaxes(qkv[1], -1, -2) * (width // heads) ** -0.5 + future
        a = np.exp(a - np.max(a, axis=-1, keepdims=True))
        a = a / np.sum(a, axis=-1, keepdims=True)
        out = np.reshape(np.transpose(a @ qkv[2], (0, 2, 1, 3)), (-1, width))
        x = x + (out @ layer["out"] + layer["out_b"])
        h = normed(np, x, layer["g2"], layer["b2"])
        h = gelu(np, h @ layer["up"] + layer["up_b"])
        x = x + (h @ layer["down"] + layer["down_b"])
    logits = normed(np, x, p["g"], p["b"]) @ p["head"]
    logits = logits - np.max(logits, axis=-1, keepdims=True)
    picked = logits[np.arange(len(x)), np.reshape(targets, -1)]
    return np.mean(np.log(np.sum(np.exp(logits), axis=-1)) - picked)


def transformer_in_torch(p: Any, tokens: Any, targets: Any, future: Any) -> Any:
    from torch.nn import functional as nn

    batch, length = tokens.shape
    heads, width = bench_nn.HEADS, bench_nn.WIDTH
    x = (p["tokens"][tokens] + p["positions"]).reshape(-1, width)
    for w in p["layers"]:
        h = nn.layer_norm(x, (width,), w["g1"], w["b1"], bench_nn.EPS)
        qkv = (h @ w["qkv"] + w["qkv_b"]).reshape(batch, length, 3, heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        a = (q @ k.transpose(-1, -2) * (width // heads) ** -0.5 + future).softmax(-1)
        x = x + ((a @ v).transpose(1, 2).reshape(-1, width) @ w["out"] + w["out_b"])
        h = nn.layer_norm(x, (width,), w["g2"], w["b2"], bench_nn.EPS)
        h = nn.gelu(h @ w["up"] + w["up_b"], approximate="tanh")
        x = x + (h @ w["down"] + w["down_b"])
    x = nn.layer_norm(x, (width,), p["g"], p["b"], bench_nn.EPS)
    return nn.cross_entropy(x @ p["head"], targets.reshape(-1))


def transformer_case(batch: int) -> dict[str, Make]:
    rng = np.random.default_rng(0)
    length = bench_nn.SEQUENCE
    tokens, targets = rng.integers(0, bench_nn.VOCABULARY, (2, batch, length))
    future = np.triu(np.full((length, length), -1e9, np.float32), 1)
    params = bench_nn.transformer_params(rng)
    return {
        "hand": lambda: partial(bench_nn.hand_transformer, params, tokens, targets),
        **of_ckpt(partial(transformer, np), params, tokens, targets, future),
        **peers(lambda np: partial(transformer, np), params, tokens, targets, future),
        **in_torch(transformer_in_torch, params, tokens, targets, future),
    }


def conv_in_torch(ws: Any, x: Any) -> Any:
    import torch

    for w in ws:
        x = torch.relu(torch.nn.functional.conv2d(x, w, padding=1))
    return (x * x).mean()


def conv_case() -> dict[str, Make]:
    rng = np.random.default_rng(0)
    n = bench_nn
    params, images = n.conv_params(rng), normal(rng, n.IMAGES, n.CHANNELS, n.SIZE, n.SIZE)
    return {
        "hand": lambda: partial(n.hand_conv, params, images),
        **of_ckpt(n.conv_loss, params, images),
        **in_torch(conv_in_torch, params, images),
    }


# -- the ways --------------------------------------------------------------------------------------


def of_ckpt(loss: Any, *args: Any) -> dict[str, Make]:
    def planned() -> Any:
        return ckpt.plan(loss, *args, planner="store_all")

    return {
        "eager": lambda: partial(ckpt.value_and_grad(loss), *args),
        "planned": lambda: partial(planned(), *args),
        "planned, calls alone": lambda: CallsAlone(planned(), args),
    }


def peers(loss_in: Callable[[Any], Any], *args: Any) -> dict[str, Make]:
    """The same function in the libraries that have NumPy's names, where they are installed."""

    def of_autograd() -> Step:
        import autograd  # type: ignore[import-untyped]
        import autograd.numpy as anp  # type: ignore[import-untyped]

        return partial(autograd.value_and_grad(loss_in(anp)), *args)

    def of_jax() -> Step:
        import jax  # type: ignore[import-not-found, unused-ignore]
        import jax.numpy as jnp  # type: ignore[import-not-found, unused-ignore]

        compiled = jax.jit(jax.value_and_grad(loss_in(jnp)))
        return lambda: jax.block_until_ready(compiled(*args))

    found = {"autograd": of_autograd} if importlib.util.find_spec("autograd") else {}
    return {**found, "jax.jit": of_jax} if importlib.util.find_spec("jax") else found


def in_torch(loss: Callable[..., Any], params: Any, *data: Array) -> dict[str, Make]:
    """A loss of tensors in PyTorch, eagerly, where that is installed."""

    def make() -> Step:
        import torch

        torch.set_num_threads(THREADS)
        given = rebuild(params, lambda a: torch.from_numpy(a.copy()).requires_grad_())
        rest = [torch.from_numpy(a) for a in data]

        def step() -> tuple[Any, Any]:
            value = loss(given, *rest)
            value.backward()
            grads = rebuild(given, lambda a: a.grad)
            for leaf in leaves(given):
                leaf.grad = None
            return value.item(), grads

        return step

    return {"torch": make} if importlib.util.find_spec("torch") else {}


# -- chains of scalars: x * a, then + b, all three of them Values ----------------------------------


def chain(kind: Any, length: int) -> Step:
    def step() -> float:
        x, a, b = kind(0.5), kind(0.999), kind(0.001)
        y = x
        for _ in range(length // 2):
            y = y * a + b
        y.backward()
        return float(a.grad)

    return step


def numbers_chain(length: int) -> Step:
    """On Values and Python numbers."""

    def step() -> float:
        x = Value(0.5)
        y = x
        for _ in range(length // 2):
            y = y * 0.999 + 0.001
        y.backward()
        return float(x.grad)

    return step


def chain_case(length: int) -> dict[str, Make]:
    """Micrograd's is the first where it is installed. Its backward is recursive."""

    def of_micrograd() -> Step:
        from micrograd.engine import Value as Scalar  # type: ignore[import-untyped]

        return chain(Scalar, length)

    steps: dict[str, Make] = {}
    if importlib.util.find_spec("micrograd"):
        steps["micrograd"] = of_micrograd
    return steps | {
        "eager": lambda: chain(Value, length),
        "eager, x * 0.999": lambda: numbers_chain(length),
    }


class Case(NamedTuple):
    title: str
    ways: Callable[[], dict[str, Make]]
    """The first is what the others are compared with."""
    more: int
    """How many times more rounds it takes: small steps are noisier."""


CASES = {
    "mlp16": Case("MLP with bias 100 x 16, batch 4", partial(mlp_case, 100, 16, 4, False), 8),
    "mlp256": Case("MLP with bias 100 x 256, batch 64", partial(mlp_case, 100, 256, 64, False), 1),
    "wide": Case("MLP 24 x 256, batch 8192, gelu", partial(mlp_case, 24, 256, 8192, True), 0),
    "gelu": Case("gelu of 16 MiB", partial(gelu_case, 2**14), 2),
    "transformer": Case("transformer 12 x 128, batch 8", partial(transformer_case, 8), 1),
    "large": Case("transformer 12 x 128, batch 64", partial(transformer_case, 64), 0),
    "conv": Case("conv 20 x 32 channels", conv_case, 0),
    "chain900": Case("chain of 900 scalar operations", partial(chain_case, 900), 20),
    "chain100000": Case("chain of 100,000 scalar operations", partial(chain_case, 100_000), 0),
}
CHAINS = ("chain900", "chain100000")
"""Of scalars: nothing in them has threads, or pages to give back."""
