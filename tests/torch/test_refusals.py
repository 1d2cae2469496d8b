"""What can't be planned is refused, with the op and the user's line."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("torch")
import torch
from torch import nn

import ckpt
import ckpt.torch
from tests.torch.programs import PROGRAMS, mlp

X = torch.randn(6, 16)
W = nn.Parameter(torch.randn(16))
LSTM, NORM = nn.LSTM(16, 16), nn.BatchNorm1d(16, momentum=None)


def branching(x):
    y = (x * W).sum()
    return y if y > 0 else -y


REFUSED = {
    "item": (lambda x: x.sum() * (x * W).sum().item(), ckpt.AbstractError, "test_refusals.py:"),
    "prod": (lambda x: (x * W).prod(), ckpt.UnsupportedError, "test_refusals.py:.* value is 0"),
    "branch": (branching, ckpt.AbstractError, "test_refusals.py:"),
    "mask": (lambda x: (x * W)[x > 0].sum(), ckpt.AbstractError, "shape that depends on values"),
    "momentum": (lambda x: NORM(x * W).sum(), ckpt.AbstractError, "value"),
    "rrelu": (lambda x: nn.functional.rrelu(x * W, training=True).sum(), ckpt.UnsupportedError,
              "rrelu"),
    "lstm": (lambda x: LSTM(x * W)[0].sum(), ckpt.UnsupportedError, "workspace"),
    "complex": (lambda x: torch.fft.fft(x * W).sum(), ckpt.UnsupportedError, "complex loss"),
    "no loss": (lambda x: x.sum(), ckpt.TapeError, "needs a gradient"),
    "not a tensor": (lambda x: 3, ckpt.TapeError, "needs a gradient"),
    "several": (lambda x: (x * W, x + W), ckpt.TapeError, "no scalar"),
    "frozen number": (lambda x: (x * W).sum() * random.random(), ckpt.TapeError, "freeze it"),
    "frozen constant": (lambda x: (x * W * torch.tensor([random.random()])).sum(), ckpt.TapeError,
                        "differ"),
    "captured value": (lambda x: (x * DOUBLED).sum(), ckpt.UnsupportedError, "as an argument"),
}  # fmt: skip
DOUBLED = W * 2


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    function, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        ckpt.torch.plan(function, X)


def test_subclasses_and_compiled_modules() -> None:
    class Mine(torch.Tensor):
        pass

    with pytest.raises(ckpt.UnsupportedError, match="Mine"):
        ckpt.torch.plan(lambda x: (x * W).sum(), X.as_subclass(Mine))
    model = torch.compile(mlp(), backend="eager")
    with pytest.raises(ckpt.UnsupportedError, match="compiled"):
        ckpt.torch.plan(lambda x: model(x).sum(), X)


def test_a_budget_that_nothing_fits() -> None:
    with pytest.raises(ckpt.BudgetError, match="the smallest"):
        ckpt.torch.plan(lambda x: (x * W).sin().sum(), X, budget=10)
    with pytest.raises(ckpt.UsageError, match="cost is"):
        ckpt.torch.plan(lambda x: (x * W).sum(), X, cost="time")


def test_shapes_alone_are_planned_and_not_run() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        model, x = mlp(4096, 8), torch.randn(64, 4096)
    step = ckpt.torch.plan(lambda x: model(x).mean(), x)
    assert step.timeline.peak > 8 * 4096 * 4096 * 4
    assert "planned from shapes" in str(step)
    with pytest.raises(ckpt.UsageError, match="shapes alone"):
        step(x)
    with torch.device("meta"):
        model, x = mlp(4096, 8), torch.randn(64, 4096)
    assert ckpt.torch.plan(lambda x: model(x).mean(), x).timeline.peak > 8 * 4096 * 4096 * 4


def test_results_laid_out_otherwise_than_torchs_shapes_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Layer norm's gradient is: without knowing so it is refused, and never read wrongly."""
    function, args = PROGRAMS["turned norm"]()
    ckpt.torch.plan(function, *args, planner="store_all").verify(*args)
    monkeypatch.setattr("ckpt.torch.capture.record._CONTIGUOUS", set())
    with pytest.raises(ckpt.UnsupportedError, match="native_layer_norm_backward gives strides"):
        ckpt.torch.plan(function, *args)
