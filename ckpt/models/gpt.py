"""A GPT: GPT-2's architecture (Radford et al., 2019), of which GPT-3 (Brown et al., 2020) is a
larger one but for its sparse layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt import nn
from ckpt.errors import UsageError
from ckpt.models.base import Array, Random, Workload, run_layers, scoped


def gpt(
    *,
    depth: int = 12,
    width: int = 128,
    heads: int = 4,
    batch: int = 8,
    sequence: int = 64,
    vocab: int = 256,
    dropout: float = 0.0,
    tied: bool = True,
    dtype: str = "float32",
    segments: int | None = None,
) -> Workload:
    """``depth`` layers of causal attention and a multilayer perceptron on ``sequence`` tokens.

    ``tied``: the table that embeds the tokens is also the head. Dropout is on the embedding, the
    attention weights, and what each half of a layer adds.
    """
    if width % heads:
        raise UsageError(f"width {width} can't be split into {heads} heads of equal width")

    def attend(p: Any, x: Any, rng: Any) -> Any:
        batch, length, width = x.shape
        qkv = np.reshape(x @ p["qkv"] + p["qkv_bias"], (batch, length, 3, heads, width // heads))
        qkv = np.transpose(qkv, (2, 0, 3, 1, 4))
        out = nn.attention(qkv[0], qkv[1], qkv[2], causal=True, rate=dropout, rng=rng)
        out = np.reshape(np.swapaxes(out, 1, 2), (batch, length, width))
        return out @ p["out"] + p["out_bias"]

    def layer(p: Any, rng: Any, x: Any) -> Any:
        h = attend(p, nn.layer_norm(x, p["scale1"], p["shift1"]), rng)
        x = x + nn.dropout(h, dropout, rng)
        h = nn.layer_norm(x, p["scale2"], p["shift2"])
        h = nn.gelu(h @ p["up"] + p["up_bias"]) @ p["down"] + p["down_bias"]
        return x + nn.dropout(h, dropout, rng)

    def loss(params: Any, tokens: Any, following: Any, rng: Any) -> Any:
        x = nn.embedding(params["tokens"], tokens) + params["positions"]
        x = nn.dropout(x, dropout, rng)
        layers = [scoped(f"layer {k}", layer, p, rng) for k, p in enumerate(params["layers"])]
        x = run_layers(layers, x, segments)
        x = nn.layer_norm(x, params["scale"], params["shift"])
        head = np.swapaxes(params["tokens"], 0, 1) if tied else params["head"]
        return nn.cross_entropy(x @ head, following)

    def linear(name: str, inputs: int, out: int, std: float = 0.02) -> dict[str, Array]:
        return {name: Array((inputs, out), std), f"{name}_bias": Array((out,))}

    def norm(number: str = "") -> dict[str, Array]:
        return {f"scale{number}": Array((width,), mean=1.0), f"shift{number}": Array((width,))}

    onto = 0.02 * (2 * depth) ** -0.5  # what is added to the stream, which all layers add to
    params = {
        "tokens": Array((vocab, width), 0.02),
        "positions": Array((sequence, width), 0.01),
        "layers": [
            {
                **norm("1"),
                **linear("qkv", width, 3 * width),
                **linear("out", width, width, onto),
                **norm("2"),
                **linear("up", width, 4 * width),
                **linear("down", 4 * width, width, onto),
            }
            for _ in range(depth)
        ],
        **norm(),
    }
    if not tied:
        params["head"] = Array((width, vocab), 0.02)
    text = Array((batch, sequence), below=vocab)
    return Workload(loss, (params, text, text, Random()), dtype)
