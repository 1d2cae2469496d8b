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


class Within(torch.autograd.Function):
    """Adds to the gradient of a parameter out of autograd's sight."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * W

    @staticmethod
    def backward(ctx, g):
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            (x * W).backward(g)
        return x.grad


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
    "resize": (lambda x: (x.cos().resize_(3, 16) * W).sum(), ckpt.UnsupportedError,
               r"test_refusals.py:\d+: resize_ can't be planned: it gives a tensor another memory"),
    "lstm": (lambda x: LSTM(x * W)[0].sum(), ckpt.UnsupportedError,
             r"test_refusals.py:\d+: mkldnn_rnn_layer .* workspace"),
    "complex": (lambda x: torch.fft.fft(x * W).sum(), ckpt.UnsupportedError, "complex loss"),
    "no loss": (lambda x: x.sum(), ckpt.TapeError, "needs a gradient"),
    "not a tensor": (lambda x: 3, ckpt.TapeError, "needs a gradient"),
    "several": (lambda x: (x * W, x + W), ckpt.TapeError, "no scalar"),
    "frozen number": (lambda x: (x * W).sum() * random.random(), ckpt.TapeError, "freeze it"),
    "frozen constant": (lambda x: (x * W * torch.tensor([random.random()])).sum(), ckpt.TapeError,
                        "differ"),
    "gradient as a function": (
        lambda x: torch.func.grad(lambda z: (z * W).sin().sum())(x).sum(), ckpt.UnsupportedError,
        r"test_refusals.py:\d+: torch.func.grad"),
    "forward mode": (
        lambda x: torch.func.jvp(lambda z: (z * W).sin(), (x,), (x,))[1].sum(),
        ckpt.UnsupportedError, r"test_refusals.py:\d+: _efficientzerotensor .* forward-mode"),
    "backward within": (lambda x: Within.apply(x * W).sum(), ckpt.UnsupportedError, "a backward"),
    "captured value": (lambda x: (x * DOUBLED).sum(), ckpt.UnsupportedError, "as an argument"),
}  # fmt: skip
DOUBLED = W * 2


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    function, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        ckpt.torch.plan(function, X)
    assert W.grad is None


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


@pytest.mark.parametrize("name", ["turned norm", "norms in autocast", "autoencoder", "folded"])
def test_what_kernels_make_counts_and_not_what_torchs_shapes_say(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a capture can't be mended, the op is refused by name, and never read wrongly."""
    function, args = PROGRAMS[name]()
    step = ckpt.torch.plan(function, *args, planner="store_all")
    assert step.verify(*args).plain
    assert step.last.program.probed.seen
    monkeypatch.setattr(
        "ckpt.torch.capture.record.as_seen", lambda seen, args, result, mode: result
    )
    with pytest.raises(ckpt.UnsupportedError, match=r"gives strides .* torch's own shapes say"):
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
