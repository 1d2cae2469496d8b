"""Residual nets: those of He et al. (2016, arXiv:1512.03385) on CIFAR and ImageNet, and the net of
a thousand layers on which Chen et al. (2016, arXiv:1604.06174, section 5.3) measure sqrt n."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt import nn
from ckpt.errors import UsageError
from ckpt.models.base import Array, Workload, layout, numbered, run_layers


def conv_norm(p: Any, x: Any, stride: int = 1) -> Any:
    """A convolution that keeps the size (over its stride), and its batch normalized."""
    x = nn.conv2d(x, p["w"], stride=stride, padding=p["w"].shape[-1] // 2)
    return nn.batch_norm(x, p["scale"], p["shift"])


def conv_arrays(channels: int, out: int, kernel: int, groups: int = 1) -> dict[str, Array]:
    """The parameters of `conv_norm`, of variance 2 / fan-in (He et al., 2015)."""
    inputs = channels // groups
    return {
        "w": Array((out, inputs, kernel, kernel), (2 / (inputs * kernel**2)) ** 0.5),
        "scale": Array((out,), mean=1.0),
        "shift": Array((out,)),
    }


def linear_arrays(inputs: int, out: int) -> dict[str, Array]:
    """The parameters of x @ w + b."""
    return {"w": Array((inputs, out), inputs**-0.5), "b": Array((out,))}


def check_size(name: str, size: int, halvings: int) -> None:
    if halvings > size.bit_length() or size % 2**halvings:
        raise UsageError(f"{name} {size} can't be halved {halvings} times, as this depth needs")


def resnet(
    *,
    depth: int = 9,
    width: int = 16,
    batch: int = 32,
    size: int = 32,
    classes: int = 10,
    dtype: str = "float32",
    segments: int | None = None,
) -> Workload:
    """Three stages of ``depth`` blocks in all, of two 3x3 convolutions each: 2 depth + 2 layers.

    Shortcuts have no parameters: where a stage begins, every other pixel, and zeros for the new
    channels (section 4.2, option A).
    """
    check_size("size", size, 2)

    def block(p: Any, x: Any) -> Any:
        new = p["second"]["w"].shape[0] - x.shape[1]
        stride = 2 if new else 1
        h = nn.relu(conv_norm(p["first"], x, stride))
        h = conv_norm(p["second"], h)
        if new:
            x = np.pad(x[:, :, ::2, ::2], ((0, 0), (new // 2, new - new // 2), (0, 0), (0, 0)))
        return nn.relu(x + h)

    def loss(params: Any, images: Any, classes: Any) -> Any:
        x = nn.relu(conv_norm(params["stem"], images))
        layers = numbered("block", block, params["blocks"])
        x = nn.global_avg_pool(run_layers(layers, x, segments))
        return nn.cross_entropy(x @ params["head"]["w"] + params["head"]["b"], classes)

    blocks, channels = [], width
    for stage, _ in layout(depth, (1, 1, 1)):
        out = width * 2**stage
        blocks.append({"first": conv_arrays(channels, out, 3), "second": conv_arrays(out, out, 3)})
        channels = out
    head = linear_arrays(channels, classes)
    params = {"stem": conv_arrays(3, width, 3), "blocks": blocks, "head": head}
    images = Array((batch, 3, size, size), 1.0)
    return Workload(loss, (params, images, Array((batch,), below=classes)), dtype)


def bottleneck_resnet(
    *,
    depth: int = 4,
    width: int = 16,
    batch: int = 8,
    size: int = 64,
    classes: int = 10,
    chen: bool = False,
    dtype: str = "float32",
    segments: int | None = None,
) -> Workload:
    """Four stages of ``depth`` blocks in all, of three convolutions each: 3 depth + 2 layers.

    Blocks lie as in ResNet-50 (3, 4, 6, 3); the 3x3 convolution has the stride. ``chen``: as in the
    code that came with Chen et al., blocks lie as in ResNet-200 (3, 24, 36, 3), and each
    convolution has its (leaky) activation, the sums none.
    """
    check_size("size", size, 5)

    def module(p: Any, x: Any, stride: int = 1, last: bool = False) -> Any:
        x = conv_norm(p, x, stride)
        if chen:
            return nn.leaky_relu(x, 0.25)
        return x if last else nn.relu(x)

    def block(p: Any, stride: int, x: Any) -> Any:
        h = module(p["reduce"], x)
        h = module(p["conv"], h, stride)
        h = module(p["expand"], h, last=True)
        if "shortcut" in p:
            x = module(p["shortcut"], x, stride, last=True)
        return x + h if chen else nn.relu(x + h)

    def loss(params: Any, images: Any, classes: Any) -> Any:
        x = module(params["stem"], images, 2)
        x = nn.max_pool2d(x, 3, stride=2, padding=1)
        layers = numbered("block", block, params["blocks"], strides)
        x = nn.global_avg_pool(run_layers(layers, x, segments))
        return nn.cross_entropy(x @ params["head"]["w"] + params["head"]["b"], classes)

    blocks, strides, channels = [], [], width
    for stage, k in layout(depth, (3, 24, 36, 3) if chen else (3, 4, 6, 3)):
        inner = width * 2**stage
        block_arrays = {
            "reduce": conv_arrays(channels, inner, 1),
            "conv": conv_arrays(inner, inner, 3),
            "expand": conv_arrays(inner, 4 * inner, 1),
        }
        if k == 0:
            block_arrays["shortcut"] = conv_arrays(channels, 4 * inner, 1)
        blocks.append(block_arrays)
        strides.append(2 if stage and not k else 1)
        channels = 4 * inner
    head = linear_arrays(channels, classes)
    params = {"stem": conv_arrays(3, width, 7), "blocks": blocks, "head": head}
    images = Array((batch, 3, size, size), 1.0)
    return Workload(loss, (params, images, Array((batch,), below=classes)), dtype)
