"""What can't be planned is refused, with the op and the user's line."""

from __future__ import annotations

import random
from pathlib import Path

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
    "item": (lambda x: x.sum() * (x * W).sum().item(), ckpt.AbstractError,
             r"test_refusals.py:\d+: aten\._local_scalar_dense"),
    "prod": (lambda x: (x * W).prod(), ckpt.UnsupportedError, "test_refusals.py:.* value is 0"),
    "branch": (branching, ckpt.AbstractError, r"test_refusals.py:\d+: aten\._local_scalar_dense"),
    "mask": (lambda x: (x * W)[x > 0].sum(), ckpt.AbstractError,
             r"test_refusals.py:\d+: aten\.nonzero.* shape that depends on values"),
    "momentum": (lambda x: NORM(x * W).sum(), ckpt.AbstractError,
                 r"test_refusals.py:\d+: .* asks for a value"),
    "rrelu": (lambda x: nn.functional.rrelu(x * W, training=True).sum(), ckpt.UnsupportedError,
              r"test_refusals.py:\d+: rrelu_with_noise"),
    "lstm": (lambda x: LSTM(x * W)[0].sum(), ckpt.UnsupportedError,
             r"test_refusals.py:\d+: mkldnn_rnn_layer .* workspace"),
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


@pytest.mark.filterwarnings("ignore")
def test_tensors_in_parts_are_refused(tmp_path: Path) -> None:
    from torch import distributed
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.distributed.tensor import Replicate, distribute_tensor, init_device_mesh

    distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        spread = distribute_tensor(X, mesh, [Replicate()])
        held = nn.Parameter(distribute_tensor(X.clone(), mesh, [Replicate()]))
        sharded, wrapped = nn.Linear(16, 16), nn.Linear(16, 16)
        fully_shard(sharded, mesh=mesh)
        wrapped = FullyShardedDataParallel(wrapped, device_id=torch.device("cpu"))
        for function, x, message in (
            (lambda x: (x * W).sum(), spread, "argument 0 is a DTensor"),
            (lambda x: (x * held).sum(), X, r"test_refusals.py:\d+: a DTensor"),
            (lambda x: sharded(x).sum(), X, "FSDP"),
            (lambda x: wrapped(x).sum(), X, "FSDP"),
        ):
            with pytest.raises(ckpt.UnsupportedError, match=message):
                ckpt.torch.plan(function, x)
    finally:
        distributed.destroy_process_group()
