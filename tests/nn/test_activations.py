"""Activations and softmax: gradients of both orders, layouts, dtypes, bytes, PyTorch's values."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from ckpt import nn
from tests.graphs import step_of
from tests.tape.ops.checking import check_agreement, check_op, layouts

rng = np.random.default_rng(0)
SMOOTH = {
    "sigmoid": nn.sigmoid,
    "silu": nn.silu,
    "softplus": nn.softplus,
    "gelu": nn.gelu,
    "gelu_erf": lambda x: nn.gelu(x, approximate="none"),
    "softmax": nn.softmax,
    "softmax_0": lambda x: nn.softmax(x, axis=0),
    "log_softmax": nn.log_softmax,
    "log_softmax_0": lambda x: nn.log_softmax(x, axis=0),
    "logsumexp": lambda x: nn.logsumexp(x, axis=-1),
    "logsumexp_all": nn.logsumexp,
    "logsumexp_kept": lambda x: nn.logsumexp(x, axis=(0, -1), keepdims=True),
}
KINKED = {
    "relu": nn.relu,
    "leaky_relu": nn.leaky_relu,
    "leaky_relu_3": lambda x: nn.leaky_relu(x, slope=3.0),
}
ALL = {**SMOOTH, **KINKED}


def away_from_zero(shape: tuple[int, ...]) -> np.ndarray:
    x = rng.normal(size=shape)
    return x + 0.1 * np.sign(x)


@pytest.mark.parametrize("name", ALL)
def test_gradients_and_bytes(name: str) -> None:
    check_op(ALL[name], away_from_zero((3, 5)))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("layout", ["F", "columns", "reversed"])
def test_layouts(name: str, layout: str) -> None:
    (x,) = layouts(away_from_zero((2, 3, 4)), [layout])
    check_op(ALL[name], x)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", ALL)
def test_large_arrays_hold_what_is_declared(name: str, dtype: str) -> None:
    x = rng.normal(size=(400, 700)).astype(dtype)
    check_agreement(ALL[name], x)


@pytest.mark.parametrize("name", [*KINKED, "sigmoid", "silu", "softplus", "gelu", "gelu_erf"])
def test_numbers_and_empty_arrays(name: str) -> None:
    check_op(ALL[name], np.array(0.7)[()])
    check_op(ALL[name], np.zeros((3, 0)), differences=False)


@pytest.mark.parametrize("name", [*ALL])
def test_extreme_arguments_neither_overflow_nor_warn(name: str) -> None:
    x = np.array([[-1e4, -50.0, 0.5, 50.0, 1e4]], "f4")
    value = ckpt.Value(x)
    out = ALL[name](value)
    out.backward(np.ones(out.shape, out.dtype))
    assert np.isfinite(out.data).all()
    assert np.isfinite(value.grad).all()
    assert out.dtype == np.float32


def test_sigmoid_is_precise_where_it_is_small() -> None:
    x = np.array([-80.0, -30.0, 30.0])
    np.testing.assert_allclose(nn.sigmoid(x), 1 / (1 + np.exp(-x)), rtol=1e-15)


def test_gelu_without_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    from ckpt.nn import activations

    x = rng.normal(size=(40, 70)) * 3
    with_scipy = nn.gelu(x, approximate="none")
    monkeypatch.setattr(activations, "_erf", lambda: activations._plain_erf)
    np.testing.assert_allclose(nn.gelu(x, approximate="none"), with_scipy, rtol=1e-13, atol=1e-16)
    check_op(lambda x: nn.gelu(x, approximate="none"), x[:3, :4])


@pytest.mark.parametrize("name", ALL)
def test_values_of_torch(name: str) -> None:
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    theirs = {
        "relu": f.relu,
        "leaky_relu": f.leaky_relu,
        "leaky_relu_3": lambda x: f.leaky_relu(x, 3.0),
        "sigmoid": torch.sigmoid,
        "silu": f.silu,
        "softplus": f.softplus,
        "gelu": lambda x: f.gelu(x, approximate="tanh"),
        "gelu_erf": f.gelu,
        "softmax": lambda x: f.softmax(x, -1),
        "softmax_0": lambda x: f.softmax(x, 0),
        "log_softmax": lambda x: f.log_softmax(x, -1),
        "log_softmax_0": lambda x: f.log_softmax(x, 0),
        "logsumexp": lambda x: torch.logsumexp(x, -1),
        "logsumexp_all": lambda x: torch.logsumexp(x, (0, 1)),
        "logsumexp_kept": lambda x: torch.logsumexp(x, (0, 1), keepdim=True),
    }[name]
    x = rng.normal(size=(6, 7)) * 3
    value, tensor = ckpt.Value(x), torch.tensor(x, requires_grad=True)
    ours, expected = ALL[name](value), theirs(tensor)
    weights = rng.normal(size=ours.shape)
    ours.backward(weights)
    expected.backward(torch.tensor(weights))
    np.testing.assert_allclose(ours.data, expected.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(value.grad, tensor.grad.numpy(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "reads"),
    [("relu", {"relu"}), ("sigmoid", {"sigmoid"}), ("softmax", {"softmax"}), ("gelu", {"exp"})],
)
def test_what_is_kept(name: str, reads: set[str]) -> None:
    def loss(x):
        return np.sum(ALL[name](np.exp(x)))

    graph = ckpt.trace(loss, np.ones((4, 4))).graph
    assert {graph[r].op for r in step_of(graph, name).reads} == reads


def test_relu_at_zero_has_no_slope() -> None:
    x = ckpt.Value(np.array([-1.0, 0.0, 2.0]))
    nn.relu(x).backward(np.ones(3))
    assert x.grad.tolist() == [0.0, 0.0, 1.0]


def test_bad_options() -> None:
    with pytest.raises(ckpt.CkptError, match="slope above 0"):
        nn.leaky_relu(np.ones(3), slope=0)
    with pytest.raises(ckpt.CkptError, match="'tanh' or 'none'"):
        nn.gelu(np.ones(3), approximate="erf")
