"""VGG (Simonyan and Zisserman, 2015, arXiv:1409.1556): 3x3 convolutions, and most of the parameters
in one linear layer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ckpt import nn
from ckpt.models.base import Array, Random, Workload, numbered, run_layers, spread
from ckpt.models.resnet import check_size, linear_arrays


def vgg(
    *,
    depth: int = 8,
    width: int = 16,
    batch: int = 16,
    size: int = 32,
    hidden: int = 128,
    classes: int = 10,
    dropout: float = 0.0,
    dtype: str = "float32",
    segments: int | None = None,
) -> Workload:
    """``depth`` convolutions in five stages that halve the image, then three linear layers.

    8, 10, 13 and 16 convolutions lie as in the paper's VGG-11, 13, 16 and 19.
    """

    def convolve(p: Any, halve: bool, x: Any) -> Any:
        x = nn.relu(nn.conv2d(x, p["w"], p["b"], padding=1))
        return nn.max_pool2d(x, 2) if halve else x

    def loss(params: Any, images: Any, classes: Any, rng: Any) -> Any:
        layers = numbered("conv", convolve, params["convs"], halves)
        x = run_layers(layers, images, segments)
        x = np.reshape(x, (x.shape[0], -1))
        first, second, last = params["linear"]
        x = nn.dropout(nn.relu(x @ first["w"] + first["b"]), dropout, rng)
        x = nn.dropout(nn.relu(x @ second["w"] + second["b"]), dropout, rng)
        return nn.cross_entropy(x @ last["w"] + last["b"], classes)

    convs, halves, channels = [], [], 3
    for stage, count in enumerate(spread(depth, (2, 2, 3, 3, 3))):
        out = width * min(2**stage, 8)
        for k in range(count):
            scale = (2 / (9 * channels)) ** 0.5
            convs.append({"w": Array((out, channels, 3, 3), scale), "b": Array((out,))})
            halves.append(k == count - 1)
            channels = out
    check_size("size", size, sum(halves))
    outer = size // 2 ** sum(halves)
    sizes = (channels * outer**2, hidden, hidden, classes)
    params = {"convs": convs, "linear": [linear_arrays(n, m) for n, m in pairwise(sizes)]}
    images, labels = Array((batch, 3, size, size), 1.0), Array((batch,), below=classes)
    return Workload(loss, (params, images, labels, Random()), dtype)
