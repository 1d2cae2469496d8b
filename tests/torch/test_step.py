"""The planned step takes the plain one's place in a training loop."""

from __future__ import annotations

import copy
import gc
import os
import re
import weakref
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import ckpt
import ckpt.torch
from ckpt.torch.report import alike
from tests.torch.programs import GPT, PROGRAMS, mlp

X = torch.randn(40, 16)


def recomputing(function, *args, **options):
    return ckpt.torch.plan(function, *args, planner="recompute_all", **options)


def gpt():
    model = GPT(depth=2)
    tokens = torch.randint(50, (8, 12))
    return model, (tokens, tokens.roll(-1, 1))


def grads(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(map(torch.equal, a, b))


def test_plan_verify_save_load(tmp_path: Path) -> None:
    function, args = gpt()
    step = ckpt.torch.plan(function, *args, budget="70%", planner="chain")
    assert step.timeline.peak <= step.schedule.budget
    found = step.verify(*args)
    assert abs(found.measured - found.promised) <= 16
    assert found.plain is not None and found.plain > found.measured
    assert "bit for bit" in str(found)
    text = str(step)
    assert "predicted peak" in text and "programs.py:" in text and "bound" in text
    step.save(tmp_path / "plan.json")
    again = ckpt.torch.load(tmp_path / "plan.json", function, *args)
    assert again.schedule == step.schedule
    assert again.verify(*args).measured == found.measured
    with pytest.raises(ckpt.UsageError, match="another program or other shapes"):
        ckpt.torch.load(tmp_path / "plan.json", function, *(a[:1] for a in args))


def test_four_steps_of_adamw_with_accumulation_and_clipping() -> None:
    """Parameters are the plain loop's bit for bit, with an optimizer made before or after."""
    states = []
    for planned in (None, "before", "after"):
        torch.manual_seed(1)
        model = GPT()
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        tokens = torch.randint(50, (2, 12))
        step = model if planned is None else recomputing(model, tokens, tokens, accumulate=True)
        if planned == "after":
            optimizer = torch.optim.AdamW(step.parameters(), 1e-2)
        torch.manual_seed(2)
        for k in range(4):
            for _ in range(2):
                batch = torch.randint(50, (2, 12))
                (step(batch, batch.roll(-1, 1)) / 2).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=bool(k % 2))
        states.append(list(model.state_dict().values()))
    assert same(states[0], states[1])
    assert same(states[0], states[2])


def test_it_is_the_users_module() -> None:
    model = mlp()
    step = recomputing(lambda x: model(x).mean(), X)
    assert step.state_dict().keys() == model.state_dict().keys()
    assert [id(p) for p in step.parameters()] == [id(p) for p in model.parameters()]
    assert isinstance(step, nn.Module)
    step.eval()
    assert not model.training
    step.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})
    step.train()
    both = ckpt.torch.plan(lambda x: (mlp_a(x) + mlp_b(x)).mean(), X)
    assert {k.partition(".")[0] for k in both.state_dict()} == {"mlp_a", "mlp_b"}


mlp_a, mlp_b = mlp(16, 1), mlp(16, 1)


def test_outputs_keep_their_nesting() -> None:
    function, args = PROGRAMS["several losses"]()
    step = recomputing(function, *args)
    out, plain = step(*args), function(*args)
    assert list(out) == ["a", "b", "y"]
    assert all(torch.equal(out[k], plain[k]) for k in out)
    assert not out["y"].requires_grad
    (out["a"] + 2 * out["b"]).backward()
    with pytest.raises(ckpt.UsageError, match="without a cotangent"):
        step(*args)["a"].backward()


def test_arguments_by_name() -> None:
    model = mlp()
    step = recomputing(
        lambda x, *, budget: (model(x) * budget).mean(), X, kwargs={"budget": torch.ones(16)}
    )
    loss = step(X, budget=torch.full((16,), 2.0))
    assert torch.equal(loss, (model(X) * 2).mean())
    assert step.verify(X, budget=torch.ones(16)).plain


def test_values_that_cannot_be_told_apart_are_refused() -> None:
    model = mlp()
    step = recomputing(lambda x, k: (model(x) * k["a"][0]).mean(), X, {"a": [2.0]})
    assert torch.equal(step(X, {"a": [3.0]}), (model(X) * 3).mean())
    with pytest.raises(ckpt.UsageError, match=r"argument 1, of type set, would be frozen"):
        step(X, {"a": {1}})
    with pytest.raises(ckpt.UsageError, match="argument 1, of type set"):
        recomputing(lambda x, k: model(x).mean(), X, {1})


def test_new_shapes_modes_and_autocast_are_planned_anew() -> None:
    model = nn.Sequential(mlp(16, 2), nn.Dropout(0.5))
    step = recomputing(lambda x: model(x).square().mean(), X)
    step(X[:3]).backward()
    model.eval()
    assert torch.equal(step(X), model(X).square().mean())
    with torch.autocast("cpu", torch.bfloat16):
        inside = step(X)
        expected = model(X).square().mean()
    assert torch.equal(inside, expected)
    model.zero_grad()
    inside.backward()
    first = grads(model)
    model.zero_grad()
    expected.backward()
    assert same(first, grads(model))
    with torch.no_grad():
        assert torch.equal(step(X), model(X).square().mean())
    assert len(step.plans) == 4
    for k in range(7, 11):
        step(torch.randn(k, 16))
    with pytest.warns(UserWarning, match="8 plans"):
        step(torch.randn(11, 16))
    step(torch.randn(12, 16))
    assert len(step.plans) == 8


def replace(module, name, value):
    setattr(module, name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, x: (m, x.double()), "dtype of argument 0"),
        (lambda m, x: (m, x.t().contiguous().t()), "strides of argument 0"),
        (lambda m, x: (m, x.clone().requires_grad_()), "requires_grad of argument 0"),
        (lambda m, x: (m[0].requires_grad_(False), x), "requires_grad of 0."),
        (
            lambda m, x: (setattr(m[0], "bias", nn.Parameter(torch.zeros(16))), x),
            "0.bias is another",
        ),
        (
            lambda m, x: (setattr(m[0].weight, "data", m[0].weight.data.clone()), x),
            "data of 0.weight",
        ),
        (
            lambda m, x: (torch.use_deterministic_algorithms(True), x),
            "deterministic_algorithms is True",
        ),
        (lambda m, x: (torch.set_default_dtype(torch.float64), x), "default dtype"),
        (lambda m, x: (m.append(nn.Linear(16, 16)), x), "other submodules"),
        (lambda m, x: (setattr(m[-1], "p", 0.9), x), r"8\.p is 0\.9, and was 0\.1"),
    ],
)
def test_what_must_not_change_raises(change, message: str) -> None:
    model = mlp().append(nn.Dropout(0.1))
    step = recomputing(lambda x: model(x).mean(), X)
    try:
        _, x = change(model, X)
        with pytest.raises(ckpt.UsageError, match=message):
            step(x)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_default_dtype(torch.float32)


def test_a_change_between_forward_and_backward_raises() -> None:
    model, x = mlp(), X.clone()
    step = recomputing(lambda x: model(x).square().mean(), x)
    loss = step(x)
    x.zero_()
    with pytest.raises(ckpt.MutationError, match="changed in place"):
        loss.backward()
    loss = step(x)
    with torch.no_grad():
        model[2].weight.add_(1)
    with pytest.raises(ckpt.MutationError, match=r"2\.weight"):
        loss.backward()


def test_a_buffer_changed_between_forward_and_backward_raises() -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16)).eval()
    step = recomputing(lambda x: model(x).square().mean(), X)
    loss = step(X)
    model[1].running_var.mul_(2)
    with pytest.raises(ckpt.MutationError, match=r"1\.running_var"):
        loss.backward()


def test_where_the_plain_step_does_not_fit_a_smaller_batch_is_compared() -> None:
    model, most = mlp(), 12

    def loss(x):
        if type(x) is torch.Tensor and x.shape[0] > most:
            raise MemoryError("no memory")
        return model(x).square().mean()

    step = recomputing(loss, X)
    found = step.verify(X)
    assert found.plain is None
    assert "on 10 of 40 samples, since there is no memory for the plain step" in str(found)
    most = 0
    with pytest.raises(ckpt.UsageError, match="most is 0, and was 12 when the plan was made"):
        step(X)
    assert "not compared" in str(recomputing(loss, X).verify(X))


def test_two_forwards_in_flight_and_one_abandoned() -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Tanh())
    twin = copy.deepcopy(model)
    step = recomputing(lambda x: model(x).square().mean(), X)
    losses = []
    for f in (step, lambda x: twin(x).square().mean()):
        torch.manual_seed(3)
        first, second = f(X), f(X + 1)
        f(X)
        losses.append((second + 2 * first).detach())
        second.backward()
        first.backward()
    assert torch.equal(*losses)
    assert same(grads(model), grads(twin))
    assert torch.equal(model[1].running_mean, twin[1].running_mean)


def test_an_abandoned_forward_leaves_nothing() -> None:
    model = mlp()
    step = recomputing(lambda x: model(x).square().mean(), X)
    loss = step(X)
    run = weakref.ref(loss.grad_fn.run if hasattr(loss.grad_fn, "run") else loss.grad_fn)
    gc.disable()
    try:
        del loss
        assert run() is None
    finally:
        gc.enable()


def test_a_second_backward() -> None:
    model = mlp()
    step = recomputing(lambda x: model(x).square().mean(), X)
    loss = step(X)
    with pytest.warns(UserWarning, match="beyond the budget"):
        loss.backward(retain_graph=True)
    once = [g.clone() for g in grads(model)]
    loss.backward()
    assert same(grads(model), [g + g for g in once])
    loss = step(X)
    loss.backward()
    with pytest.raises(ckpt.BackwardTwiceError):
        loss.backward()


def test_gradients_of_a_subset_and_of_second_order() -> None:
    model = mlp()
    step = recomputing(lambda x: model(x).square().mean(), X)
    some = [model[4].weight, model[0].bias]
    found = torch.autograd.grad(step(X), some)
    assert same(list(found), list(torch.autograd.grad(model(X).square().mean(), some)))
    with pytest.raises(ckpt.UnsupportedError, match="second-order"):
        torch.autograd.grad(step(X), some, create_graph=True)


def test_hooks_on_parameters_see_gradients_in_time() -> None:
    model = mlp()
    seen: list[str] = []
    for name, p in model.named_parameters():
        p.register_hook(lambda g, name=name: seen.append(name) or g * 2)
        p.register_post_accumulate_grad_hook(lambda p, name=name: seen.append(name.upper()))
    step = recomputing(lambda x: model(x).square().mean(), X, accumulate=True)
    step(X).backward()
    doubled = [g.clone() for g in grads(model)]
    assert seen.index("6.WEIGHT") < seen.index("0.weight")
    model.zero_grad()
    model(X).square().mean().backward()
    assert same(doubled, grads(model))


def test_the_gradient_of_an_input_goes_on() -> None:
    head, model = nn.Linear(16, 16), mlp()
    step = recomputing(lambda h: model(h).square().mean(), head(X).detach().requires_grad_())
    step(head(X)).backward()
    found = grads(head)
    head.zero_grad()
    model(head(X)).square().mean().backward()
    assert same(found, grads(head))


def test_deepcopy() -> None:
    step = recomputing(nn.Sequential(mlp(), nn.Linear(16, 1), nn.Flatten(0), nn.Softmax(0)), X[:1])
    twin = copy.deepcopy(step)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in step.parameters()}
    assert torch.equal(step(X[:1]), twin(X[:1]))
    model = mlp()
    with pytest.raises(ckpt.UsageError, match="by name"):
        copy.deepcopy(recomputing(lambda x: model(x).mean(), X))


def test_ddp(tmp_path: Path) -> None:
    from torch import multiprocessing

    multiprocessing.spawn(_rank, (str(tmp_path / "store"),), nprocs=2)


def _rank(rank: int, store: str) -> None:
    from torch import distributed

    os.environ["OMP_NUM_THREADS"] = "1"
    distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    found = []
    for planned in (False, True):
        torch.manual_seed(0)
        model = mlp()
        x = X[:6]
        function = nn.Sequential(model, nn.Flatten(0))
        step = ckpt.torch.plan(function, x) if planned else function
        wrapped = nn.parallel.DistributedDataParallel(step)
        torch.manual_seed(rank)
        y = wrapped(torch.randn(6, 16))
        y.backward(torch.ones_like(y))
        found.append(grads(model))
    assert same(*found)
    distributed.barrier()  # neither leaves while the other still talks to it
    del wrapped  # it holds the group, whose threads must end before the process does
    gc.collect()
    distributed.destroy_process_group()


def test_measured_seconds_are_a_cost() -> None:
    model = mlp()
    step = ckpt.torch.plan(
        lambda x: model(x).mean(), X, budget="90%", planner="chain", cost="seconds"
    )
    assert step.certificate.unit == "nanoseconds"
    assert ckpt.torch.plan(lambda x: model(x).mean(), X, whole=True, planner="chain", budget="95%")


def test_no_plan_helps_where_gradients_set_the_peak() -> None:
    wide = nn.Linear(256, 256)
    step = ckpt.torch.plan(lambda x: wide(x).mean(), torch.randn(1, 256))
    assert "gradients set the peak" in str(step)
    with pytest.raises(ckpt.BudgetError, match=r"gradients set the peak: 257 KiB of"):
        ckpt.torch.plan(lambda x: wide(x).mean(), torch.randn(1, 256), budget="50%")


def test_profile_frontier_and_peaks() -> None:
    function, args = gpt()
    found = ckpt.torch.profile(function, *args)
    text = str(found)
    assert re.search(r"2 x gelu +blocks\.0,1\.mlp\.1 +programs\.py:\d+ ", text)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert found.plain_measured == found.plain_peak
    assert found.smallest.peak <= found.blocks.peak < found.store_all.peak <= found.plain_peak
    assert {row["module"] for row in found.rows()} >= {"blocks.0.mlp.1", "blocks.1.mlp.1"}
    assert sum(row["saved_nbytes"] for row in found.rows()) < found.store_all.peak
    curve = ckpt.torch.frontier(function, *args, planners=["chain"], points=3)
    for row in curve.rows:
        if row["measured_peak_nbytes"] is not None:
            assert abs(row["measured_peak_nbytes"] - row["predicted_peak_nbytes"]) <= 16
    assert any(row["measured_peak_nbytes"] for row in curve.rows)
    step = recomputing(function, *args)
    seen = ckpt.torch.measure_peak(step, *args)
    assert abs(seen.allocated - step.timeline.peak) <= 16
    assert "RSS hides" in str(seen)
    assert not grads(function)


def test_checkpoints_around_blocks_peak_as_predicted() -> None:
    """And the modules are left as they were."""
    function, args = gpt()
    predicted = ckpt.torch.profile(function, *args, measure=False).blocks_peak
    assert all("forward" not in vars(block) for block in function.blocks)
    for block in function.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    assert abs(ckpt.torch.measure_peak(function, *args).allocated - predicted) <= 16


@pytest.mark.parametrize(
    ("numbers", "told"),
    [([3], "3"), ([0, 1, 2, 3], "0..3"), ([1, 3, 5], "1,3..5"), ([0, 4, 5], "0,4,5"),
     ([0, 1, 2, 3, 7, 8], "0,1..8"), ([-1], "")],
)  # fmt: skip
def test_layers_alike(numbers: list[int], told: str) -> None:
    figures = {"line": "m.py:4", "op": "gelu", "values": 1, "saved_nbytes": 8, "recompute_flops": 2}
    rows = [{"module": f"a.{n}.act" if n >= 0 else "a", **figures} for n in numbers]
    many = f"{len(numbers)} x " if len(numbers) > 1 else ""
    assert alike(rows) == [
        {"what": f"{many}gelu", "module": f"a.{told}.act" if told else "a", "source": "m.py:4",
         "kept_nbytes": 8 * len(numbers), "recompute_flops": 2 * len(numbers)}
    ]  # fmt: skip


def test_a_loose_parameter_is_not_put_into_the_users_module() -> None:
    model, loose = mlp(16, 1), nn.Parameter(torch.ones(16))
    step = recomputing(lambda x: (model(x) * loose).mean(), X)
    assert any(p is loose for p in step.parameters())
    assert not any(p is loose for p in model.parameters())


def test_the_numpy_plan_says_where_to_go() -> None:
    with pytest.raises(ckpt.UsageError, match=r"ckpt\.torch\.plan"):
        ckpt.plan(lambda x: x.sum(), X)
