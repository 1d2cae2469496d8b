"""On a GPU, where there is one: the same bits, and the predicted peak of requested bytes."""

from __future__ import annotations

import copy

import pytest

pytest.importorskip("torch")
import torch

import ckpt.torch
from tests.torch.programs import GPT, Residual, mlp

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(autouse=True)
def deterministic(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


MODELS = {
    "mlp": lambda: (mlp(256, 6), torch.randn(512, 256)),
    "residual": lambda: (torch.nn.Sequential(Residual(16), Residual(16)),
                         torch.randn(4, 16, 32, 32)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("planner", ["store_all", "chain"])
def test_bits_and_peak(name: str, planner: str) -> None:
    model, x = MODELS[name]()
    model, x = model.cuda(), x.cuda()
    budget = None if planner == "store_all" else "85%"
    step = ckpt.torch.plan(lambda x: model(x).square().mean(), x, planner=planner, budget=budget)
    assert "unverified here" in str(step)
    found = step.verify(x)
    assert found.measured <= found.promised + 16
    assert "unverified" not in str(step)


def test_dropout_in_autocast_is_replayed() -> None:
    model = GPT(depth=3, width=64, vocabulary=100, length=32)
    model.wpe = torch.nn.Embedding(32, 64)
    model = model.cuda()
    tokens = torch.randint(100, (2, 32), device="cuda")

    def loss(tokens: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            x = model.drop(model.wte(tokens))
            for block in model.blocks:
                x = block(x)
        return x.float().square().mean()

    step = ckpt.torch.plan(loss, tokens, planner="chain", budget="80%")
    assert step.timeline.recompute_flops > 0
    step.verify(tokens)


def test_training_is_the_plain_training() -> None:
    torch.manual_seed(0)
    model = mlp(64, 4).cuda()
    other = copy.deepcopy(model)
    x = torch.randn(32, 64, device="cuda")
    step = ckpt.torch.plan(lambda x: model(x).square().mean(), x, planner="chain", budget="80%")
    ours = torch.optim.AdamW(step.parameters())
    theirs = torch.optim.AdamW(other.parameters())
    for _ in range(3):
        step(x).backward()
        other(x).square().mean().backward()
        for optimizer in (ours, theirs):
            optimizer.step()
            optimizer.zero_grad()
    assert all(map(torch.equal, model.parameters(), other.parameters()))
