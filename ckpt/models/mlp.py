"""Two multilayer perceptrons: residual blocks, in which checkpointing shows its character, and a
plain stack of tanh(x @ w), in which it can't."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt import nn
from ckpt.models.base import Array, Workload, run_layers


def residual_mlp(
    *,
    depth: int = 100,
    width: int = 64,
    batch: int = 512,
    expand: int = 4,
    dtype: str = "float32",
    segments: int | None = None,
) -> Workload:
    """Residual blocks x + gelu(norm(x) @ w) @ v; a block caches several times its boundary."""
    hidden = expand * width

    def block(p: Any, x: Any) -> Any:
        h = nn.layer_norm(x, p["scale"], p["shift"])
        h = nn.gelu(np.matmul(h, p["w"]))
        return x + np.matmul(h, p["v"])

    def loss(params: Any, x: Any, y: Any) -> Any:
        layers = [lambda x, p=p: block(p, x) for p in params]
        out = run_layers(layers, x, segments)
        return np.mean(np.square(out - y))

    params = [
        {
            "scale": Array((width,), mean=1.0),
            "shift": Array((width,)),
            "w": Array((width, hidden), width**-0.5),
            "v": Array((hidden, width), (hidden * depth) ** -0.5),
        }
        for _ in range(depth)
    ]
    data = Array((batch, width), 1.0)
    return Workload(loss, (params, data, data), dtype)


def mlp(
    *,
    depth: int = 100,
    width: int = 256,
    batch: int = 512,
    dtype: str = "float32",
    segments: int | None = None,
) -> Workload:
    """Layers tanh(x @ w). A layer's only residual is its neighbour's input, so checkpointing each
    layer saves nothing."""

    def loss(params: Any, x: Any) -> Any:
        layers = [lambda x, w=w: np.tanh(np.matmul(x, w)) for w in params]
        return np.mean(np.square(run_layers(layers, x, segments)))

    params = [Array((width, width), width**-0.5) for _ in range(depth)]
    return Workload(loss, (params, Array((batch, width), 1.0)), dtype)
