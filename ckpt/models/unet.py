"""U-Net (Ronneberger, Fischer and Brox, 2015, arXiv:1505.04597): long skips from the way down to
the way up, so that every cut is crossed by many values."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt import nn
from ckpt.models.base import Array, Workload, numbered, run_layers, scoped
from ckpt.models.resnet import check_size


def unet(
    *,
    depth: int = 3,
    width: int = 8,
    batch: int = 4,
    rows: int = 64,
    columns: int = 64,
    classes: int = 2,
    dtype: str = "float32",
    segments: int | None = None,
) -> Workload:
    """``depth`` times down to half the size and up again; 4 and width 64 are the paper's (figure
    1), with zeros around each convolution's input so that sizes stay.

    Layers hand on a pair: the image, and those waiting for the way up.
    """
    check_size("rows", rows, depth)
    check_size("columns", columns, depth)

    def convolve(p: Any, x: Any) -> Any:
        """Two 3x3 convolutions."""
        x = nn.relu(nn.conv2d(x, p["w1"], p["b1"], padding=1))
        return nn.relu(nn.conv2d(x, p["w2"], p["b2"], padding=1))

    def down(p: Any, state: Any) -> Any:
        x, skips = state
        x = convolve(p, x)
        return nn.max_pool2d(x, 2), (*skips, x)

    def bottom(p: Any, state: Any) -> Any:
        x, skips = state
        return convolve(p, x), skips

    def up(p: Any, state: Any) -> Any:
        x, (*skips, skip) = state
        x = nn.conv_transpose2d(x, p["up"], p["b"], stride=2)
        return convolve(p, np.concatenate([skip, x], axis=1)), tuple(skips)

    def loss(params: Any, images: Any, classes: Any) -> Any:
        layers = [
            *numbered("down", down, params["down"]),
            scoped("bottom", bottom, params["bottom"]),
            *reversed(numbered("up", up, params["up"])),
        ]
        x, _ = run_layers(layers, (images, ()), segments)
        x = nn.conv2d(x, params["head"]["w"], params["head"]["b"])
        return nn.cross_entropy(x, classes, axis=1)

    def convs(channels: int, out: int) -> dict[str, Array]:
        return {
            "w1": Array((out, channels, 3, 3), (2 / (9 * channels)) ** 0.5),
            "b1": Array((out,)),
            "w2": Array((out, out, 3, 3), (2 / (9 * out)) ** 0.5),
            "b2": Array((out,)),
        }

    widths = [width * 2**k for k in range(depth + 1)]
    params = {
        "down": [convs(n, m) for n, m in zip([1, *widths], widths[:-1], strict=False)],
        "bottom": convs(widths[-2], widths[-1]),
        "up": [
            {"up": Array((2 * n, n, 2, 2), (2 * n) ** -0.5), "b": Array((n,)), **convs(2 * n, n)}
            for n in widths[:-1]
        ],
        "head": {"w": Array((classes, width, 1, 1), width**-0.5), "b": Array((classes,))},
    }
    images = Array((batch, 1, rows, columns), 1.0)
    return Workload(loss, (params, images, Array((batch, rows, columns), below=classes)), dtype)
