"""MobileNet v1 (Howard et al., 2017, arXiv:1704.04861): a convolution is one within each channel,
then one of 1x1 across them."""

from __future__ import annotations

from typing import Any

from ckpt import nn
from ckpt.models.base import Array, Workload, layout, numbered, run_layers
from ckpt.models.resnet import check_size, conv_arrays, conv_norm, linear_arrays


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

    def separable(p: Any, stride: int, x: Any) -> Any:
        w = p["depthwise"]["w"]
        x = nn.conv2d(x, w, stride=stride, padding=1, groups=w.shape[0])
        x = nn.relu(nn.batch_norm(x, p["depthwise"]["scale"], p["depthwise"]["shift"]))
        return nn.relu(conv_norm(p["pointwise"], x))

    def loss(params: Any, images: Any, classes: Any) -> Any:
        x = nn.relu(conv_norm(params["stem"], images, 2))
        layers = numbered("block", separable, params["blocks"], strides)
        x = nn.global_avg_pool(run_layers(layers, x, segments))
        return nn.cross_entropy(x @ params["head"]["w"] + params["head"]["b"], classes)

    blocks, strides, channels = [], [], width
    for stage, k in layout(depth, (1, 2, 2, 6, 2)):
        out = width * 2 ** (stage + 1)
        depthwise = conv_arrays(channels, channels, 3, groups=channels)
        blocks.append({"depthwise": depthwise, "pointwise": conv_arrays(channels, out, 1)})
        strides.append(2 if stage and not k else 1)
        channels = out
    check_size("size", size, 1 + strides.count(2))
    head = linear_arrays(channels, classes)
    params = {"stem": conv_arrays(3, width, 3), "blocks": blocks, "head": head}
    images = Array((batch, 3, size, size), 1.0)
    return Workload(loss, (params, images, Array((batch,), below=classes)), dtype)
