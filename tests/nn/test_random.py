"""Dropout: the mask is a node that every replay draws again, bit for bit; and attention."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from ckpt import nn
from ckpt.machine import simulate
from ckpt.nn.random import masked
from ckpt.schedule import Backward, Compute, Free, Schedule
from ckpt.tape.eager.gradcheck import gradcheck
from tests.tape.ops.checking import check_agreement, check_op, store_all

data = np.random.default_rng(1)
ws = [data.normal(size=(8, 8)).astype("f4") for _ in range(4)]
x = data.normal(size=(16, 8)).astype("f4")


def network(ws, x, rng, layer=lambda f: f):
    for w in ws:

        @layer
        def block(x, w=w):
            return nn.dropout(np.tanh(x @ w), 0.4, rng)

        x = block(x)
    return np.sum(x * x)


def step(**options):
    rng = np.random.default_rng(7)
    value, grads = ckpt.value_and_grad(network)(ws, x, rng, **options)
    return value, grads, rng.random()


def equal(a, b) -> bool:
    return (
        a[0] == b[0]
        and a[2] == b[2]
        and all(np.array_equal(p, q) for p, q in zip(a[1], b[1], strict=True))
    )


def test_checkpointed_dropout_is_the_same_bit_for_bit() -> None:
    assert equal(step(), step(layer=ckpt.checkpoint))


def test_nested_checkpoints() -> None:
    rng = np.random.default_rng(7)
    nested = ckpt.checkpoint(lambda ws: network(ws, x, rng, ckpt.checkpoint))
    value, grads = ckpt.value_and_grad(nested)(ws)
    assert equal((value, grads, rng.random()), step())


def executed(program, schedule, rng):
    value, grads = ckpt.execute(program, schedule, ws, x, rng, trace_memory=True).result
    return value, grads, rng.random()


def test_tracing_draws_nothing_and_executing_draws_what_eager_does() -> None:
    rng = np.random.default_rng(7)
    program = ckpt.trace(network, ws, x, rng)
    masks = [n for n in program.graph if n.op == "dropout_mask"]
    assert [(n.shape, n.nbytes, n.deps, n.requires_grad) for n in masks] == [
        ((16, 8), 128, (), False)
    ] * 4
    schedule = store_all(program.graph)
    assert equal(executed(program, schedule, rng), step())
    assert equal(executed(program, schedule, np.random.default_rng(7)), step())


def recompute_everything(graph) -> Schedule:
    """Keep nothing: recompute, for each Backward, all that it needs."""
    leaves = {i for i, n in enumerate(graph) if n.resident or n.captured}
    steps: list = [Compute(i) for i, n in enumerate(graph) if n.captured]

    def closure(targets) -> list[int]:
        found, stack = set(), [t for t in targets if t not in leaves]
        while stack:
            i = stack.pop()
            if i not in found:
                found.add(i)
                stack += [d for d in graph[i].deps if d not in leaves]
        return sorted(found)

    losses = set(graph.outputs)
    once = [i for i in range(len(graph)) if i not in leaves]
    steps += [Compute(i) for i in once] + [Free(i) for i in once if i not in losses]
    for k, step in enumerate(graph.steps):
        needed = [j for j in closure(step.reads) if j not in losses]
        steps += [Compute(j) for j in needed] + [Backward(k)] + [Free(j) for j in needed]
    return Schedule(tuple(steps))


def test_any_schedule_draws_the_same_masks_again() -> None:
    program = ckpt.trace(network, ws, x, np.random.default_rng(0))
    schedule = recompute_everything(program.graph)
    timeline = simulate(program.graph, schedule)
    masks = [i for i, n in enumerate(program.graph) if n.op == "dropout_mask"]
    assert min(timeline.counts[i] for i in masks) > 1
    rng = np.random.default_rng(7)
    assert equal(executed(program, schedule, rng), step())


def test_a_schedule_that_draws_in_another_order() -> None:
    program = ckpt.trace(network, ws, x, np.random.default_rng(0))
    masks = [i for i, n in enumerate(program.graph) if n.op == "dropout_mask"]
    rest = [s for s in store_all(program.graph).instructions if s not in map(Compute, masks)]
    schedule = Schedule((*(Compute(i) for i in reversed(masks)), *rest))
    simulate(program.graph, schedule)
    assert equal(executed(program, schedule, np.random.default_rng(7)), step())


def test_gradient() -> None:
    gradcheck(
        lambda x: nn.dropout(x, 0.3, np.random.default_rng(3)), data.normal(size=(3, 5)), order=2
    )


@pytest.mark.parametrize("shape", [(3, 5), (300, 500), (1000, 500)])
def test_bytes(shape: tuple[int, ...]) -> None:
    x, mask = data.normal(size=shape).astype("f4"), data.random(shape) < 0.5
    check_agreement(lambda x: masked(x, mask, scale=2.0), x)
    program = ckpt.trace(
        lambda x, rng: np.sum(nn.dropout(x, 0.3, rng)), x, np.random.default_rng(0)
    )
    schedule = store_all(program.graph)
    ckpt.execute(program, schedule, x, np.random.default_rng(0))
    run = ckpt.execute(program, schedule, x, np.random.default_rng(0), trace_memory=True)
    simulated = simulate(program.graph, schedule)
    assert simulated.same_live_bytes(run.timeline) is None
    slack = simulated.peak // 100 + (1 << 16) + 768 * len(program.graph)
    assert abs(simulated.peak - run.timeline.peak) <= slack
    drawn = next(p for p, s in enumerate(schedule.instructions) if s == Compute(1))
    assert program.graph[1].op == "dropout_mask"
    assert run.timeline.columns["high"][drawn] <= simulated.columns["high"][drawn] + slack


def test_how_many_are_dropped() -> None:
    out = nn.dropout(np.ones((1000, 100), "f4"), 0.25, np.random.default_rng(0))
    assert out.dtype == np.float32
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs(np.mean(out == 0) - 0.25) < 0.005
    drawn = np.random.default_rng(0).random((1000, 100), dtype=np.float32)
    assert np.array_equal(out == 0, drawn >= 0.75)


def test_rate_zero_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    value = ckpt.Value(x)
    assert nn.dropout(value, 0, rng) is value
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_bad_rates(rate: float) -> None:
    with pytest.raises(ckpt.CkptError, match="at least 0 and below 1"):
        nn.dropout(x, rate, np.random.default_rng(0))


def test_bad_generators() -> None:
    with pytest.raises(ckpt.CkptError, match="default_rng"):
        nn.dropout(x, 0.5, np.random.RandomState(0))
    with pytest.raises(ckpt.CkptError, match="NoneType"):
        nn.attention(x, x, x, rate=0.1)


# -- attention -------------------------------------------------------------------------------------


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("keys", [4, 6])
def test_attention(causal: bool, keys: int) -> None:
    q, k, v = (data.normal(size=(2, n, 3)) for n in (4, keys, keys))
    check_op(lambda q, k, v: nn.attention(q, k, v, causal=causal), q, k, v, double=keys == 4)


def test_attention_keeps_the_weights_and_no_scores() -> None:
    def loss(q, k, v):
        return np.sum(nn.attention(np.exp(q), np.exp(k), np.exp(v), causal=True))

    q = np.ones((2, 4, 3), "f4")
    graph = ckpt.trace(loss, q, q, q, argnums=(0, 1, 2)).graph
    kept = {graph.owners[r] for step in graph.steps for r in step.reads}
    kept = [graph[r].op for r in sorted(kept) if not graph[r].resident]
    assert kept == ["exp", "exp", "exp", "softmax"]


@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_torch(causal: bool) -> None:
    torch = pytest.importorskip("torch")
    given = [data.normal(size=(2, 3, 4, 5)) for _ in range(3)]
    values = [ckpt.Value(a) for a in given]
    tensors = [torch.tensor(a, requires_grad=True) for a in given]
    ours = nn.attention(*values, causal=causal)
    theirs = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=causal)
    ours.backward(np.ones(ours.shape))
    theirs.backward(torch.ones_like(theirs))
    np.testing.assert_allclose(ours.data, theirs.detach(), rtol=1e-10)
    for value, tensor in zip(values, tensors, strict=True):
        np.testing.assert_allclose(value.grad, tensor.grad, rtol=1e-9, atol=1e-12)


def test_attention_with_dropout_is_replayed() -> None:
    def loss(q, rng):
        return np.sum(nn.attention(q, q, q, causal=True, rate=0.5, rng=rng) ** 2)

    q = data.normal(size=(2, 5, 4))
    plain = ckpt.value_and_grad(loss)(q, np.random.default_rng(0))
    again = ckpt.value_and_grad(ckpt.checkpoint(loss))(q, np.random.default_rng(0))
    assert plain[0] == again[0]
    assert np.array_equal(plain[1], again[1])


def test_bad_shapes() -> None:
    with pytest.raises(ckpt.CkptError, match="equal last axes"):
        nn.attention(np.ones((4, 3)), np.ones((4, 2)), np.ones((4, 3)))
    with pytest.raises(ckpt.CkptError, match="as many keys"):
        nn.attention(np.ones((4, 3)), np.ones((2, 3)), np.ones((2, 3)), causal=True)
