"""MobileNet v1 (Howard et al., 2017, arXiv:1704.04861): a convolution is one within each channel,
then one of 1x1 across them."""

from __future__ import annotations

from typing import Any

from ckpt import nn
from ckpt.models.base import Array, Workload, model, run_layers, scoped, spread
from ckpt.models.resnet import check_size, conv_norm, conv_norm_arrays, linear_arrays


@model("mobilenet")
def mobilenet(
    *,
    depth: int = 13,
    width: int = 8,
    batch: int = 16,
    size: int = 64,
    classes: int = 10,
    dtype: str = "float32",
    segments: int | None = None,
) -> Workload:
    """``depth`` separable convolutions in five stages; 13 of width 32 are the paper's (table 1)."""
    stages = spread(depth, (1, 2, 2, 6, 2))

    def separable(p: Any, stride: int, x: Any) -> Any:
        w = p["depthwise"]["w"]
        x = nn.conv2d(x, w, stride=stride, padding=1, groups=w.shape[0])
        x = nn.relu(nn.batch_norm(x, p["depthwise"]["scale"], p["depthwise"]["shift"]))
        return nn.relu(conv_norm(p["pointwise"], x))

    def loss(params: Any, images: Any, classes: Any) -> Any:
        x = nn.relu(conv_norm(params["stem"], images, 2))
        layers = [
            scoped(f"block {k}", separable, p, strides[k]) for k, p in enumerate(params["blocks"])
        ]
        x = nn.global_avg_pool(run_layers(layers, x, segments))
        return nn.cross_entropy(x @ params["head"]["w"] + params["head"]["b"], classes)

    blocks = []
    strides = []
    channels = width
    for stage, count in enumerate(stages):
        for k in range(count):
            out = width * 2 ** (stage + 1)
            blocks.append(
                {
                    "depthwise": conv_norm_arrays(channels, channels, 3, dtype, groups=channels),
                    "pointwise": conv_norm_arrays(channels, out, 1, dtype),
                }
            )
            strides.append(2 if stage and not k else 1)
            channels = out
    check_size("size", size, 1 + strides.count(2))
    params = {
        "stem": conv_norm_arrays(3, width, 3, dtype),
        "blocks": blocks,
        "head": linear_arrays(channels, classes, dtype),
    }
    images = Array((batch, 3, size, size), 1.0, dtype=dtype)
    return Workload("mobilenet", loss, (params, images, Array((batch,), below=classes)))
