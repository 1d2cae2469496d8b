"""Pooling, padding, upsampling."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from ckpt import nn
from tests.graphs import step_of
from tests.tape.ops.checking import check_agreement, check_op, layouts

rng = np.random.default_rng(0)
POOLS = [
    {"kernel": 2},
    {"kernel": 3, "stride": 2, "padding": 1},
    {"kernel": (2, 3), "stride": (1, 2), "padding": (1, 0)},
]


@pytest.mark.parametrize("options", [*POOLS, {"kernel": 2, "dilation": 2, "stride": 1}])
def test_max_pool(options) -> None:
    x = rng.permutation(2 * 5 * 6).reshape(1, 2, 5, 6) / 10
    check_op(lambda x: nn.max_pool2d(x, **options), x)


@pytest.mark.parametrize("options", POOLS)
def test_avg_pool(options) -> None:
    check_op(lambda x: nn.avg_pool2d(x, **options), rng.normal(size=(1, 2, 5, 6)))


@pytest.mark.parametrize("pool", [nn.max_pool2d, nn.avg_pool2d])
@pytest.mark.parametrize("layout", ["F", "columns", "reversed"])
def test_layouts(pool, layout: str) -> None:
    (x,) = layouts(rng.normal(size=(2, 3, 4, 4)), [layout])
    check_op(lambda x: pool(x, 2), x)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("pool", [nn.max_pool2d, nn.avg_pool2d])
@pytest.mark.parametrize("shape", [(3, 4, 100, 100), (2, 8, 200, 100)])
def test_large_arrays_hold_what_is_declared(pool, shape, dtype: str) -> None:
    check_agreement(lambda x: pool(x, 3, stride=2, padding=1), rng.normal(size=shape).astype(dtype))


@pytest.mark.parametrize("options", [*POOLS, {"kernel": 2, "dilation": 2, "stride": 1}])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_values_of_torch(options, kind: str) -> None:
    torch = pytest.importorskip("torch")
    if kind == "avg" and "dilation" in options:
        pytest.skip("an average pool has no dilation")
    x = np.round(rng.normal(size=(2, 3, 9, 8)))  # many ties
    value, tensor = ckpt.Value(x), torch.tensor(x, requires_grad=True)
    ours = getattr(nn, f"{kind}_pool2d")(value, **options)
    options = dict(options)
    theirs = getattr(torch.nn.functional, f"{kind}_pool2d")(
        tensor, options.pop("kernel"), **options
    )
    weights = rng.normal(size=ours.shape)
    ours.backward(weights)
    theirs.backward(torch.tensor(weights))
    np.testing.assert_allclose(ours.data, theirs.detach(), rtol=1e-12)
    np.testing.assert_allclose(value.grad, tensor.grad, rtol=1e-12, atol=1e-12)


def test_max_pool_of_infinities_and_nans() -> None:
    x = np.full((1, 1, 2, 4), -np.inf)
    x[0, 0, 1, 2] = np.nan
    x[0, 0, 1, 3] = 5.0
    out = nn.max_pool2d(x, 2, padding=1)
    assert np.isneginf(out[0, 0, 0, 0])
    assert np.isnan(out[0, 0, 1, 1])


def test_a_max_pool_keeps_one_byte_an_output_element() -> None:
    graph = ckpt.trace(
        lambda x: np.sum(nn.max_pool2d(np.exp(x), 2)), np.ones((2, 3, 8, 8), "f4")
    ).graph
    reads = step_of(graph, "take_tap").reads
    assert [(graph[r].op, graph[r].nbytes) for r in reads] == [("largest_tap", 2 * 3 * 16)]


def test_pad_and_upsample() -> None:
    x = rng.normal(size=(2, 2, 3, 2))
    check_op(lambda x: nn.pad2d(x, (1, 2)), x)
    check_op(nn.upsample, x)
    check_op(lambda x: nn.upsample(x, (3, 1)), x)
    assert np.array_equal(nn.pad2d(x, (1, 2)), np.pad(x, ((0, 0), (0, 0), (1, 1), (2, 2))))
    assert np.array_equal(nn.upsample(x, 2), x.repeat(2, 2).repeat(2, 3))
    large = rng.normal(size=(4, 8, 60, 60)).astype("f4")
    check_agreement(nn.upsample, large)
    check_agreement(lambda x: nn.pad2d(x, 1), large)


def test_global_pools() -> None:
    x = rng.normal(size=(2, 2, 3, 2))
    check_op(nn.global_avg_pool, x)
    check_op(nn.global_max_pool, x)
    np.testing.assert_allclose(nn.global_avg_pool(x), x.mean((2, 3)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.max_pool2d(np.ones((3, 4)), 2), "images"),
        (lambda: nn.max_pool2d(np.ones((1, 1, 4, 4)), 5), "doesn't fit"),
        (lambda: nn.max_pool2d(np.ones((1, 1, 4, 4)), 2, padding=2), "half"),
        (lambda: nn.avg_pool2d(np.ones((1, 1, 4, 4)), 0), "kernel"),
        (lambda: nn.upsample(np.ones((1, 1, 4, 4)), 0), "scale"),
        (lambda: nn.pad2d(np.ones((1, 1, 4, 4)), -1), "padding"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(ckpt.CkptError, match=message):
        call()
