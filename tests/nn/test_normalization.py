"""Norms: gradients of both orders through the statistics, bytes, FLOPs, and PyTorch's values."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from ckpt import nn
from tests.graphs import step_of
from tests.tape.ops.checking import check_agreement, check_op, layouts

rng = np.random.default_rng(0)


def batch(x, w, b):
    return nn.batch_norm(x, w, b)


def group(x, w, b):
    return nn.group_norm(x, 2, w, b)


CASES = {
    "layer": (nn.layer_norm, (3, 2, 6), (6,), (6,)),
    "layer_vector": (nn.layer_norm, (6,), (6,), (6,)),
    "layer_two_axes": (
        lambda x, w, b: nn.layer_norm(x, w, b, axis=(-2, -1)), (3, 2, 4), (2, 4), (2, 4),
    ),
    "rms": (nn.rms_norm, (3, 2, 6), (6,)),
    "batch": (batch, (3, 2, 2, 3), (2,), (2,)),
    "batch_flat": (batch, (5, 3), (3,), (3,)),
    "batch_1d": (batch, (3, 2, 4), (2,), (2,)),
    "group": (group, (2, 4, 2, 3), (4,), (4,)),
    "layer_plain": (nn.layer_norm, (3, 6)),
    "rms_plain": (nn.rms_norm, (3, 6)),
    "batch_plain": (nn.batch_norm, (3, 2, 4)),
    "group_plain": (lambda x: nn.group_norm(x, 3), (2, 6, 3)),
}  # fmt: skip


def arrays(name: str, scale: int = 1) -> list[np.ndarray]:
    return [rng.normal(size=shape) + 0.5 for shape in CASES[name][1:]]


@pytest.mark.parametrize("name", CASES)
def test_gradients_and_bytes(name: str) -> None:
    check_op(CASES[name][0], *arrays(name), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["layer", "rms", "batch", "group"])
@pytest.mark.parametrize("layout", ["F", "columns", "reversed"])
def test_layouts(name: str, layout: str) -> None:
    x, *rest = arrays(name)
    (x,) = layouts(x, [layout])
    check_op(CASES[name][0], x, *rest, double=False, atol=1e-5)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (nn.layer_norm, [(600, 500), (500,), (500,)]),
        (nn.rms_norm, [(600, 500), (500,)]),
        (batch, [(9, 20, 40, 40), (20,), (20,)]),
        (group, [(9, 8, 40, 40), (8,), (8,)]),
    ],
)
def test_large_arrays_hold_what_is_declared(function, shapes, dtype: str) -> None:
    given = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    check_agreement(function, *given)


def test_third_derivatives() -> None:
    """The rules of the rules go through the statistics too."""
    from ckpt.tape.eager.gradcheck import gradcheck

    def second(x, w):
        return ckpt.grad(lambda x: np.sum(nn.layer_norm(x, w) ** 3))(x)

    gradcheck(second, rng.normal(size=(2, 4)), rng.normal(size=4), order=2, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["layer", "layer_two_axes", "rms", "batch", "batch_1d", "group"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_values_of_torch(name: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    theirs = {
        "layer": lambda x, w, b: f.layer_norm(x, (6,), w, b),
        "layer_two_axes": lambda x, w, b: f.layer_norm(x, (2, 4), w, b),
        "rms": lambda x, w: f.rms_norm(x, (6,), w, 1e-5),
        "batch": lambda x, w, b: f.batch_norm(x, None, None, w, b, training=True),
        "batch_1d": lambda x, w, b: f.batch_norm(x, None, None, w, b, training=True),
        "group": lambda x, w, b: f.group_norm(x, 2, w, b),
    }[name]
    given = [a.astype(dtype) for a in arrays(name)]
    values = [ckpt.Value(a) for a in given]
    tensors = [torch.tensor(a, requires_grad=True) for a in given]
    ours, expected = CASES[name][0](*values), theirs(*tensors)
    weights = rng.normal(size=ours.shape).astype(dtype)
    ours.backward(weights)
    expected.backward(torch.tensor(weights))
    tolerance = 1e-10 if dtype == "f8" else 2e-5
    np.testing.assert_allclose(ours.data, expected.detach().numpy(), rtol=tolerance, atol=tolerance)
    for value, tensor in zip(values, tensors, strict=True):
        assert value.grad.dtype == dtype
        np.testing.assert_allclose(value.grad, tensor.grad, rtol=tolerance, atol=tolerance)


def test_only_the_input_and_row_statistics_are_kept() -> None:
    def loss(w, b, x):
        return np.sum(nn.layer_norm(np.exp(x * w), w, b))

    graph = ckpt.trace(loss, np.ones(8), np.ones(8), np.ones((4, 8))).graph
    reads = step_of(graph, "normalized").reads
    assert [graph[r].op for r in reads] == ["exp", "row_mean", "row_rstd", "parameter"]
    assert [n.nbytes for n in graph if n.op.startswith("row_")] == [4 * 8, 4 * 8]
    assert sum(n.op not in ("input", "parameter") for n in graph) == 6


def test_batch_norm_with_given_statistics() -> None:
    x, w, b = arrays("batch")
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    np.testing.assert_allclose(
        nn.batch_norm(x, w, b, mean=mean, variance=variance), nn.batch_norm(x, w, b), atol=1e-12
    )


def test_bad_options() -> None:
    x = np.ones((2, 6, 3))
    with pytest.raises(ckpt.CkptError, match="the last ones"):
        nn.layer_norm(x, axis=0)
    with pytest.raises(ckpt.CkptError, match="4 groups"):
        nn.group_norm(x, 4)
    with pytest.raises(ckpt.CkptError, match="together"):
        nn.batch_norm(x, mean=np.ones(6))
    with pytest.raises(ckpt.CkptError, match="batch_norm needs"):
        nn.batch_norm(np.ones(3))


@pytest.mark.parametrize("weight", [2.0, 2, np.float64(2), np.float32(2), np.array(2.0)])
def test_a_number_for_a_weight_is_one(weight):
    x = np.random.default_rng(0).standard_normal((3, 4))
    plain = np.sum((2 * nn.layer_norm(x) + 2) ** 2)
    assert np.isclose(np.sum(nn.layer_norm(x, weight, weight) ** 2), plain)
    assert np.isclose(
        ckpt.plan(lambda x: np.sum(nn.layer_norm(x, weight, weight) ** 2), x)(x)[0], plain
    )
    found = ckpt.grad(lambda w: np.sum(nn.layer_norm(x, w) ** 2))(np.float64(2))
    assert np.isclose(found, 4 * np.sum(nn.layer_norm(x) ** 2))


def test_a_complex_weight_of_a_real_array_is_refused():
    with pytest.raises(ckpt.UsageError, match="can't be complex128"):
        nn.layer_norm(np.ones((3, 4)), np.ones(4, complex))
