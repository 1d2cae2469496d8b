"""The same nets in PyTorch: ``TWINS[model](options)`` is a loss of tensors, structured as ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as everyone imports it


def norm(x: Any, p: Any) -> Any:
    return F.batch_norm(x, None, None, p["scale"], p["shift"], training=True)


def conv_norm(p: Any, x: Any, stride: int = 1, groups: int = 1) -> Any:
    padding = p["w"].shape[-1] // 2
    return norm(F.conv2d(x, p["w"], stride=stride, padding=padding, groups=groups), p)


def classified(x: Any, head: Any, classes: Any) -> Any:
    return F.cross_entropy(x.mean((2, 3)) @ head["w"] + head["b"], classes)


def resnet(options: Any) -> Callable[..., Any]:
    def loss(params: Any, images: Any, classes: Any) -> Any:
        x = F.relu(conv_norm(params["stem"], images))
        for p in params["blocks"]:
            new = p["second"]["w"].shape[0] - x.shape[1]
            h = F.relu(conv_norm(p["first"], x, 2 if new else 1))
            if new:
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, new // 2, new - new // 2))
            x = F.relu(x + conv_norm(p["second"], h))
        return classified(x, params["head"], classes)

    return loss


def bottleneck_resnet(options: Any) -> Callable[..., Any]:
    chen = options["chen"]

    def module(p: Any, x: Any, stride: int = 1, last: bool = False) -> Any:
        x = conv_norm(p, x, stride)
        return F.leaky_relu(x, 0.25) if chen else x if last else F.relu(x)

    def loss(params: Any, images: Any, classes: Any) -> Any:
        x = F.max_pool2d(module(params["stem"], images, 2), 3, stride=2, padding=1)
        for p in params["blocks"]:
            narrowest = p["reduce"]["w"].shape[0] == params["stem"]["w"].shape[0]
            stride = 2 if "shortcut" in p and not narrowest else 1
            h = module(p["conv"], module(p["reduce"], x), stride)
            h = module(p["expand"], h, last=True)
            if "shortcut" in p:
                x = module(p["shortcut"], x, stride, last=True)
            x = x + h if chen else F.relu(x + h)
        return classified(x, params["head"], classes)

    return loss


def vgg(options: Any) -> Callable[..., Any]:
    def loss(params: Any, images: Any, classes: Any, rng: Any) -> Any:
        x, convs = images, params["convs"]
        # stages of 1, 1, 1, 2 and 2 convolutions, at depth 7
        last_of_stage = (0, 1, 2, 4, 6)
        assert len(convs) == 7
        for k, p in enumerate(convs):
            x = F.relu(F.conv2d(x, p["w"], p["b"], padding=1))
            if k in last_of_stage:
                x = F.max_pool2d(x, 2)
        x = x.flatten(1)
        first, second, last = params["linear"]
        x = F.relu(x @ first["w"] + first["b"])
        x = F.relu(x @ second["w"] + second["b"])
        return F.cross_entropy(x @ last["w"] + last["b"], classes)

    return loss


def mobilenet(options: Any) -> Callable[..., Any]:
    def loss(params: Any, images: Any, classes: Any) -> Any:
        x = F.relu(conv_norm(params["stem"], images, 2))
        narrowest = 2 * params["stem"]["w"].shape[0]
        for p in params["blocks"]:
            channels, out = x.shape[1], p["pointwise"]["w"].shape[0]
            stride = 2 if out not in (channels, narrowest) else 1
            x = F.relu(conv_norm(p["depthwise"], x, stride, channels))
            x = F.relu(conv_norm(p["pointwise"], x))
        return classified(x, params["head"], classes)

    return loss


def unet(options: Any) -> Callable[..., Any]:
    def convolve(p: Any, x: Any) -> Any:
        x = F.relu(F.conv2d(x, p["w1"], p["b1"], padding=1))
        return F.relu(F.conv2d(x, p["w2"], p["b2"], padding=1))

    def loss(params: Any, images: Any, classes: Any) -> Any:
        x, skips = images, []
        for p in params["down"]:
            skips.append(convolve(p, x))
            x = F.max_pool2d(skips[-1], 2)
        x = convolve(params["bottom"], x)
        for p in params["up"][::-1]:
            x = F.conv_transpose2d(x, p["up"], p["b"], stride=2)
            x = convolve(p, torch.cat([skips.pop(), x], 1))
        return F.cross_entropy(F.conv2d(x, params["head"]["w"], params["head"]["b"]), classes)

    return loss


def gpt(options: Any) -> Callable[..., Any]:
    heads = options["heads"]

    def attend(p: Any, x: Any) -> Any:
        batch, length, width = x.shape
        qkv = (x @ p["qkv"] + p["qkv_bias"]).chunk(3, -1)
        q, k, v = (a.reshape(batch, length, heads, -1).transpose(1, 2) for a in qkv)
        # by hand, since FlopCounterMode counts no FLOPs of F.scaled_dot_product_attention on CPUs
        scores = q @ k.transpose(-1, -2) / (width // heads) ** 0.5
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        out = scores.masked_fill(future, -torch.inf).softmax(-1) @ v
        return out.transpose(1, 2).reshape(batch, length, width) @ p["out"] + p["out_bias"]

    def loss(params: Any, tokens: Any, following: Any, rng: Any) -> Any:
        x = F.embedding(tokens, params["tokens"]) + params["positions"]
        width = x.shape[-1:]
        for p in params["layers"]:
            x = x + attend(p, F.layer_norm(x, width, p["scale1"], p["shift1"]))
            h = F.layer_norm(x, width, p["scale2"], p["shift2"])
            h = F.gelu(h @ p["up"] + p["up_bias"], approximate="tanh")
            x = x + h @ p["down"] + p["down_bias"]
        x = F.layer_norm(x, width, params["scale"], params["shift"])
        head = params["tokens"].T if options["tied"] else params["head"]
        return F.cross_entropy((x @ head).flatten(0, 1), following.flatten())

    return loss


def lstm(options: Any) -> Callable[..., Any]:
    def reordered(gates: Any) -> Any:
        """Ours are input, forget, output, candidate; PyTorch's candidate comes third."""
        i, f, o, g = gates.chunk(4, -1)
        return torch.cat([i, f, g, o], -1)

    def loss(params: Any, xs: Any, following: Any, start: Any) -> Any:
        cells = list(start)
        total = 0.0
        for x, target in zip(xs, following, strict=True):
            x = x @ params["in"] if x.is_floating_point() else F.embedding(x, params["in"])
            for k, p in enumerate(params["layers"]):
                w, u, b = (reordered(p[name]) for name in ("w", "u", "b"))
                cells[k] = torch.lstm_cell(x, cells[k], w.T, u.T, b, torch.zeros_like(b))
                x = cells[k][0]
            total = total + F.cross_entropy(x @ params["out"] + params["bias"], target)
        return total / len(xs)

    return loss


def laplacian(u: Any) -> Any:
    kernel = torch.tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=u.dtype)
    return F.conv2d(u[:, None], kernel[None, None], padding=1)[:, 0]


def wave(options: Any) -> Callable[..., Any]:
    def loss(speed: Any, start: Any, observed: Any) -> Any:
        u = before = start
        for _ in range(options["depth"]):
            u, before = 2 * u - before + speed * laplacian(u), u
        return (u - observed).square().mean()

    return loss


def heat(options: Any) -> Callable[..., Any]:
    def loss(conductivity: Any, start: Any, observed: Any) -> Any:
        u = start
        for _ in range(options["depth"]):
            u = u + conductivity * laplacian(u)
        return (u - observed).square().mean()

    return loss


TWINS = {
    "resnet": resnet,
    "bottleneck_resnet": bottleneck_resnet,
    "vgg": vgg,
    "mobilenet": mobilenet,
    "unet": unet,
    "gpt": gpt,
    "lstm": lstm,
    "wave": wave,
    "heat": heat,
}
