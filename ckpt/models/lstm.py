"""An LSTM (Hochreiter and Schmidhuber, 1997) unrolled over a text: two values a layer cross every
cut, and all steps share their parameters (Chen et al., 2016, arXiv:1604.06174, section 5.4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt import nn
from ckpt.models.base import Array, Workload, run_layers
from ckpt.tape.core.context import scope


def lstm(
    *,
    depth: int = 100,
    layers: int = 2,
    width: int = 64,
    batch: int = 32,
    vocab: int = 128,
    inputs: int | None = None,
    dtype: str = "float32",
    segments: int | None = None,
) -> Workload:
    """``depth`` steps in time of ``layers`` layers; each step predicts one of ``vocab`` symbols.

    The input is a text, embedded; with ``inputs``, it is so many real numbers at each step, as in
    speech, mapped to ``width``.
    """

    def cell(p: Any, x: Any, h: Any, c: Any) -> Any:
        gates = x @ p["w"] + h @ p["u"] + p["b"]
        gate = nn.sigmoid(gates[:, : 3 * width])
        c = gate[:, width : 2 * width] * c + gate[:, :width] * np.tanh(gates[:, 3 * width :])
        return gate[:, 2 * width :] * np.tanh(c), c

    def loss(params: Any, xs: Any, following: Any, start: Any) -> Any:
        def step(t: int, state: Any) -> Any:
            cells, total = state
            x = nn.embedding(params["in"], xs[t]) if inputs is None else xs[t] @ params["in"]
            new = []
            for k, (p, (h, c)) in enumerate(zip(params["layers"], cells, strict=True)):
                with scope(f"layer {k}"):
                    x, c = cell(p, x, h, c)
                new.append((x, c))
            found = nn.cross_entropy(x @ params["out"] + params["bias"], following[t])
            return new, total + found

        steps = [lambda state, t=t: step(t, state) for t in range(depth)]
        _, total = run_layers(steps, (start, 0.0), segments)
        return total / depth

    params = {
        "in": Array((inputs or vocab, width), (inputs or 1) ** -0.5),
        "layers": [
            {
                "w": Array((width, 4 * width), width**-0.5),
                "u": Array((width, 4 * width), width**-0.5),
                "b": Array((4 * width,)),
            }
            for _ in range(layers)
        ],
        "out": Array((width, vocab), width**-0.5),
        "bias": Array((vocab,)),
    }
    text = Array((depth, batch), below=vocab)
    xs = text if inputs is None else Array((depth, batch, inputs), 1.0)
    zero = Array((batch, width))
    return Workload(loss, (params, xs, text, [(zero, zero)] * layers), dtype)
