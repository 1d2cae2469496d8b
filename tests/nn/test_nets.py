"""Whole nets of `ckpt.nn`: every way of running them agrees; FLOPs are PyTorch's; poison."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt import nn
from ckpt.tape.core import apply as apply_module
from ckpt.tape.core.cotangents import owner
from tests.tape.ops.checking import check_agreement

rng = np.random.default_rng(0)
TOKENS, TARGETS = rng.integers(0, 11, (2, 3, 6))
WIDTH, HEADS = 8, 2


def transformer(layers: int = 2) -> dict[str, Any]:
    def normal(*shape: int) -> Any:
        return rng.normal(size=shape, scale=0.3).astype("f4")

    d = WIDTH
    return {
        "tokens": normal(11, d),
        "layers": [
            {"norm1": normal(d), "qkv": normal(d, 3 * d), "out": normal(d, d), "norm2": normal(d),
             "up": normal(d, 4 * d), "bias": normal(4 * d), "down": normal(4 * d, d)}
            for _ in range(layers)
        ],
    }  # fmt: skip


def transformer_loss(p, tokens, targets, rng=None, layer=lambda f: f):
    @layer
    def block(w, x):
        h = nn.layer_norm(x, w["norm1"])
        qkv = np.reshape(h @ w["qkv"], (*tokens.shape, 3, HEADS, -1))
        q, k, v = np.transpose(qkv, (2, 0, 3, 1, 4))
        a = nn.attention(q, k, v, causal=True, rate=0.1 if rng else 0, rng=rng)
        x = x + np.reshape(np.transpose(a, (0, 2, 1, 3)), x.shape) @ w["out"]
        h = nn.gelu(nn.rms_norm(x, w["norm2"]) @ w["up"] + w["bias"]) @ w["down"]
        return x + (nn.dropout(h, 0.1, rng) if rng else h)

    x = np.reshape(nn.embedding(p["tokens"], tokens), (-1, WIDTH))
    for w in p["layers"]:
        x = block(w, x)
    return nn.cross_entropy(x @ p["tokens"].T, targets.reshape(-1))


def conv_net(*shapes):
    return [rng.normal(size=s, scale=0.5).astype("f4") for s in shapes]


def conv_loss(ws, x, layer=lambda f: f):
    down, up, mix, scale, shift = ws

    @layer
    def block(x):
        h = nn.relu(nn.batch_norm(nn.conv2d(x, down, padding=1), scale, shift))
        h = nn.silu(nn.conv2d(nn.max_pool2d(h, 2), up, padding=1, groups=2))
        return np.concatenate([x, nn.upsample(nn.group_norm(h, 2))], axis=1)

    h = nn.conv2d(block(x), mix, stride=2)
    return nn.cross_entropy(nn.global_avg_pool(nn.leaky_relu(h)), np.arange(2))


CONV = conv_net((4, 2, 3, 3), (6, 2, 3, 3), (5, 8, 1, 1), (4,), (4,))
IMAGES = rng.normal(size=(2, 2, 8, 8)).astype("f4")


def grads(loss, *args, **options):
    value, found = ckpt.value_and_grad(loss)(*args, **options)
    return value, list(ckpt.tape.core.tree.leaves(found))


def equal(a, b) -> bool:
    return a[0] == b[0] and all(np.array_equal(x, y) for x, y in zip(a[1], b[1], strict=True))


def test_a_checkpointed_transformer_with_dropout() -> None:
    p = transformer()
    plain = grads(transformer_loss, p, TOKENS, TARGETS, np.random.default_rng(5))
    again = grads(transformer_loss, p, TOKENS, TARGETS, np.random.default_rng(5), ckpt.checkpoint)
    assert equal(plain, again)


def test_a_checkpointed_conv_net() -> None:
    assert equal(grads(conv_loss, CONV, IMAGES), grads(conv_loss, CONV, IMAGES, ckpt.checkpoint))


def test_nets_hold_what_is_simulated() -> None:
    net = transformer()
    leaves = list(ckpt.tape.core.tree.leaves(net))

    def loss(*flat):
        return transformer_loss(ckpt.tape.core.tree.unflatten(net, list(flat)), TOKENS, TARGETS)

    check_agreement(loss, *leaves)
    check_agreement(lambda x, *ws: conv_loss(ws, x), IMAGES, *CONV)


@pytest.mark.parametrize("net", ["transformer", "conv"])
def test_poison(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With NaNs in every array that no rule has declared, no gradient moves."""
    values: list[Any] = []
    original = apply_module._on_tape

    def remember(*args: Any) -> Any:
        values.append(original(*args))
        return values[-1]

    if net == "conv":
        ws: Any = CONV
        loss = lambda ws: conv_loss(ws, IMAGES)  # noqa: E731
    else:
        ws = transformer()
        loss = lambda p: transformer_loss(p, TOKENS, TARGETS, np.random.default_rng(5))  # noqa: E731
    expected = grads(loss, ws)
    leaves = ckpt.tape.core.tree.rebuild(ws, lambda a: ckpt.Value(a.copy()))
    monkeypatch.setattr(apply_module, "_on_tape", remember)
    result = loss(leaves)
    values += ckpt.tape.core.tree.leaves(leaves)
    kept = {id(owner(v._node.value)) for v in values if v._node.value is not None}
    poisoned = 0
    for v in values:
        base = owner(v.data)
        if isinstance(base, np.ndarray) and base.dtype.kind == "f" and id(base) not in kept:
            base.setflags(write=True)
            base.fill(np.nan)
            poisoned += 1
    assert poisoned > 5
    result.backward()
    for a, b in zip(ckpt.tape.core.tree.leaves(leaves), expected[1], strict=True):
        assert np.array_equal(a.grad, b)


def test_flops_of_a_transformer_are_torchs() -> None:
    """Matrix products, forward and backward, to the integer; everything else counts as 0 there."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    p = transformer()
    t = ckpt.tape.core.tree.rebuild(p, lambda a: torch.tensor(a, requires_grad=True))
    n, d = TOKENS.size, WIDTH // HEADS

    def torch_loss():
        f = torch.nn.functional
        x = t["tokens"][torch.tensor(TOKENS)].reshape(-1, WIDTH)
        for w in t["layers"]:
            h = f.layer_norm(x, (WIDTH,), w["norm1"])
            qkv = (h @ w["qkv"]).reshape(*TOKENS.shape, 3, HEADS, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            scores = q @ k.transpose(-1, -2) / math.sqrt(d)
            future = torch.triu(torch.full(scores.shape[-2:], -torch.inf), 1)
            a = torch.softmax(scores + future, -1) @ v
            x = x + a.permute(0, 2, 1, 3).reshape(n, WIDTH) @ w["out"]
            h = f.rms_norm(x, (WIDTH,), w["norm2"], 1e-5) @ w["up"] + w["bias"]
            x = x + f.gelu(h, approximate="tanh") @ w["down"]
        return f.cross_entropy(x @ t["tokens"].T, torch.tensor(TARGETS).reshape(-1))

    with FlopCounterMode(display=False) as forward:
        theirs = torch_loss()
    with FlopCounterMode(display=False) as backward:
        theirs.backward()
    graph = ckpt.trace(transformer_loss, p, TOKENS, TARGETS).graph
    products = sum(node.flops for node in graph if node.op == "matmul")
    assert products == forward.get_total_flops()
    behind = sum(step.flops for step in graph.steps if step.label == "matmul")
    assert behind == backward.get_total_flops()
    value, found = ckpt.value_and_grad(transformer_loss)(p, TOKENS, TARGETS)
    np.testing.assert_allclose(value, theirs.item(), rtol=1e-5)
    for a, b in zip(ckpt.tape.core.tree.leaves(found), ckpt.tape.core.tree.leaves(t), strict=True):
        np.testing.assert_allclose(a, b.grad, rtol=1e-3, atol=1e-5)


def test_public_names() -> None:
    assert sorted(nn.__all__) == nn.__all__
    assert all(callable(getattr(nn, name)) for name in nn.__all__)
    assert all(getattr(nn, name).__doc__ or isinstance(getattr(nn, name), ckpt.tape.core.op.Op)
               for name in nn.__all__)  # fmt: skip
