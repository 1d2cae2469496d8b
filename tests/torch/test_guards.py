"""What a plan has frozen raises once it is another, and planning itself leaves nothing behind."""

from __future__ import annotations

import random
import types

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F  # noqa: N812

import ckpt
import ckpt.torch

X = torch.randn(6, 16)
GAIN = 1.0
LOOSE = nn.Parameter(torch.ones(16))
TABLE = np.ones(16, np.float32)


class Net(nn.Module):
    bias = 0.0

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.drop = nn.Linear(16, 16), nn.LayerNorm(16), nn.Dropout(0.1)
        self.scale, self.act, self.gains = 1.0, F.gelu, [1.0, 2.0]
        self.mask, self.config = torch.ones(16), types.SimpleNamespace(k=2.0, unread=0)
        self.number0 = 1.0

    @property
    def half(self):
        return self.scale / 2

    def forward(self, x):
        y = self.drop(self.act(self.norm(self.a(x)))) * self.half * self.mask * self.config.k
        y = y * self.gains[0] * GAIN * LOOSE + self.bias + torch.from_numpy(TABLE)
        return self.lowered(y).square().mean()

    def lowered(self, y):
        return y - getattr(self, f"number{0}")


def planned(function, *args, **options):
    return ckpt.torch.plan(function, *args, planner="store_all", **options)


def method(source):
    return lambda m: setattr(m, "forward", types.MethodType(source, m))


CHANGES = {
    "forward hook": (lambda m: m.a.register_forward_hook(lambda *a: None), "a has other hooks"),
    "pre-hook": (lambda m: m.register_forward_pre_hook(lambda *a: None), "the module has other h"),
    "backward hook": (
        lambda m: m.norm.register_full_backward_hook(lambda *a: None), "norm has other hooks"),
    "eps": (lambda m: setattr(m.norm, "eps", 0.5), r"norm\.eps is 0\.5, and was 1e-05"),
    "dropout": (lambda m: setattr(m.drop, "p", 0.5), r"drop\.p is 0\.5"),
    "number": (lambda m: setattr(m, "scale", 3.0), r"scale is 3\.0, and was 1\.0"),
    "dynamic name": (lambda m: setattr(m, "number0", 3.0), "number0"),
    "class's": (lambda m: setattr(m, "bias", 3.0), "bias is 3"),
    "tensor": (lambda m: setattr(m, "mask", torch.zeros(16)), "mask is another"),
    "function": (lambda m: setattr(m, "act", F.relu), "act is relu, and was gelu"),
    "object": (lambda m: setattr(m.config, "k", 7.0), r"config\.k is 7\.0"),
    "list": (lambda m: m.gains.__setitem__(0, 5.0), r"gains\[0\] is 5\.0"),
    "longer list": (lambda m: m.gains.append(5.0), "the length of gains is 3, and was 2"),
    "method": (method(lambda self, x: self.a(x).mean()), "forward is"),
    "weight norm": (lambda m: nn.utils.parametrizations.weight_norm(m.a), r"a\.weight is another"),
    "loose data": (lambda m: setattr(LOOSE, "data", torch.ones(16)), "the data of LOOSE"),
    "array": (lambda m: TABLE.__setitem__(0, TABLE[0] + 1), "TABLE is another"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_the_function_reads_by_name(name: str) -> None:
    model = Net()
    step = planned(model, X)
    step(X).backward()
    change, message = CHANGES[name]
    change(model)
    with pytest.raises(ckpt.UsageError, match=f"{message}.*plan again"):
        step(X)


def test_what_it_does_not_read_may_change() -> None:
    model = Net()
    step = planned(model, X)
    model.config.unread, model.epoch = 5, 3
    model.gains[0] = 2 / 2  # another object, and the same number
    assert step.verify(X).plain
    assert step.captured == ["a constant: (16,) torch.float32"]


def test_globals_and_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    step = planned(Net(), X)
    monkeypatch.setattr("tests.torch.test_guards.GAIN", 2.0)
    with pytest.raises(ckpt.UsageError, match=r"GAIN is 2\.0, and was 1\.0"):
        step(X)
    scale, layers = 1.0, [nn.Linear(16, 16)]

    def loss(x):
        for layer in layers:
            x = layer(x)
        return (x * scale).mean()

    step = planned(loss, X)
    scale = 2.0
    with pytest.raises(ckpt.UsageError, match=r"scale is 2\.0"):
        step(X)
    step = planned(loss, X)
    layers.append(nn.Linear(16, 16))
    with pytest.raises(ckpt.UsageError, match="the length of layers"):
        step(X)


def test_flags_and_hooks_of_all_modules() -> None:
    q = nn.Parameter(torch.randn(1, 2, 8, 8))
    step = planned(lambda x: F.scaled_dot_product_attention(q * x, q, q).mean(), torch.ones(8))
    plainly = nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH)
    with plainly, pytest.raises(ckpt.UsageError, match="attention's flash backend is False"):
        step(torch.ones(8))
    with torch.device("meta"), pytest.raises(ckpt.UsageError, match="default device is meta"):
        step(torch.ones(8, device="cpu"))
    step = planned(Net(), X)
    hook = nn.modules.module.register_module_forward_hook(lambda *a: None)
    try:
        with pytest.raises(ckpt.UsageError, match="all modules has other hooks"):
            step(X)
    finally:
        hook.remove()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_transforms_are_refused() -> None:
    step = planned(Net(), X)
    with forward_ad.dual_level(), pytest.raises(ckpt.UnsupportedError, match="forward-mode"):
        step(forward_ad.make_dual(X, X))
    for transform in (torch.func.grad, torch.func.vmap):
        with pytest.raises(ckpt.UnsupportedError, match=r"torch\.func"):
            transform(step)(X)


def test_a_backward_within_autocast() -> None:
    """Torch casts there what the backward of a float32 layer reads."""
    a = nn.Linear(16, 16)

    def loss(x):
        with torch.autocast("cpu", enabled=False):
            return a(x).square().mean()

    with torch.autocast("cpu", torch.bfloat16):
        step = planned(loss, X)
        found = step(X)
        with pytest.raises(ckpt.UsageError, match="within autocast, which casts what mm reads"):
            found.backward()
        ckpt.torch.plan(lambda x: a(x).square().mean(), X)(X).backward()  # all in bfloat16


def test_arguments_that_share_memory() -> None:
    def loss(a, b):
        y = (b * LOOSE).sin()
        a.mul_(2)
        return y.mean()

    step = planned(loss, X.clone(), X.clone())
    x = X.clone()
    with pytest.raises(ckpt.UsageError, match="memory is that of another argument"):
        step(x, x.view(6, 16))
    step(X.clone(), x).backward()
    with pytest.raises(ckpt.UnsupportedError, match="also refers to by itself"):
        planned(lambda w, x: (w * x * LOOSE).mean(), LOOSE, X)


def test_one_tensor_as_two_arguments() -> None:
    x, y = torch.randn(6, 16, requires_grad=True), torch.randn(6, 16, requires_grad=True)

    def loss(a, b):
        return ((a * b).sin() + a.exp() + b.tanh() + (a @ b.t()).sum(1, keepdim=True) * b).mean()

    step = planned(loss, x, y)
    found = torch.autograd.grad(step(x, x), x)
    assert torch.equal(found[0], torch.autograd.grad(loss(x, x), x)[0])
    assert len(step.plans) == 2
    assert step.verify(x, x).plain


def test_arguments_are_told_apart() -> None:
    def loss(x, k):
        return (LOOSE / torch.full((16,), k)).clamp(-3, 3).sum() + (x * k * LOOSE).mean()

    step = planned(loss, X, 1)
    for k in (1.0, True, 0.0, -0.0):
        assert torch.equal(step(X, k), loss(X, k))
    assert len(step.plans) == 5
    with pytest.raises(ckpt.UsageError, match="of type SimpleNamespace, would be frozen"):
        planned(lambda b: (b.x * LOOSE).sum(), types.SimpleNamespace(x=X))


def test_an_output_changed_between_forward_and_backward() -> None:
    model = Net()

    def loss(x):
        y = model.a(x)
        return y.sin().square().mean(), y

    step = ckpt.torch.plan(loss, X, planner="recompute_all")
    found, y = step(X)
    y.zero_()
    with pytest.raises(ckpt.MutationError, match="output 1, of shape"):
        found.backward()
    found, _ = step(X)
    found /= 4
    found.backward()


@torch.no_grad()
def descend(p):
    p -= 0.1 * p.grad
    p.grad.zero_()


@pytest.mark.parametrize("planner", ["store_all", "recompute_all"])
def test_an_optimizer_in_hooks_changes_what_is_read_no_more(planner: str) -> None:
    """A convolution's gradient comes in two parts, and the second one reads the weight."""
    states = []
    for plan in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(),
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(),
        )  # fmt: skip
        for p in model.parameters():
            p.register_post_accumulate_grad_hook(descend)
        x = torch.randn(2, 3, 12, 12)

        def loss(x, model=model):
            return model(x).square().mean()

        step = ckpt.torch.plan(loss, x, planner=planner, accumulate=True) if plan else loss
        for _ in range(3):
            step(x).backward()
        states.append([p.detach() for p in model.parameters()])
    assert all(map(torch.equal, *states))


class Leaves(nn.Module):
    """Keeps what it sees."""

    def __init__(self):
        super().__init__()
        self.a, self.calls, self.last, self.table, self.seen = nn.Linear(16, 16), 0, None, None, []

    def forward(self, x):
        self.calls += 1
        if self.table is None:
            self.table = torch.arange(16.0)
        self.last = self.a(x) * self.table
        self.seen.append(self.last)
        return self.last.mean()


def test_planning_leaves_nothing_behind() -> None:
    model = Leaves()
    with pytest.warns(UserWarning, match=r"the function sets calls, .*last.*: there it stays"):
        step = planned(model, X)
    assert (model.calls, model.last, model.table, model.seen) == (0, None, None, [])
    plain = model(X)
    assert torch.equal(step(X), plain)
    assert step.verify(X).plain
    assert ckpt.torch.profile(model, X).plain_peak
    assert all(type(y) is torch.Tensor for y in model.seen)


def test_a_buffer_set_anew_is_refused() -> None:
    model = nn.Sequential(nn.BatchNorm1d(16))
    model.register_buffer("ema", torch.zeros(()))

    def loss(x):
        y = model(x)
        model.ema = 0.9 * model.ema + 0.1 * y.mean().detach()
        return y.square().mean()

    with pytest.raises(ckpt.UnsupportedError, match=r"model\.ema is another .* use copy_"):
        planned(loss, X)
    assert type(model.ema) is torch.Tensor


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_draws_of_the_host_are_refused(draw) -> None:
    """A layer left out once in a hundred times is the same in two runs."""

    def loss(x):
        return (x * LOOSE).sum() if draw() > 1e-9 else x.sum()

    states = random.getstate(), np.random.get_state()[2]
    with pytest.raises(ckpt.TapeError, match=r"draws from .*random, and a plan would freeze"):
        planned(loss, X)
    assert states == (random.getstate(), np.random.get_state()[2])


def test_hooks_that_ran_are_named() -> None:
    model = Net()
    model.a.register_forward_hook(lambda m, args, out: out * 2)
    step = planned(model, X)
    assert any("ran once, with the plan" in text and "a._forward" in text for text in step.captured)
    assert step.verify(X).plain
