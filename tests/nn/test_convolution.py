"""Convolutions: gradients of both orders, bytes, PyTorch's values and its count of FLOPs."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import ckpt
from ckpt import nn
from ckpt.nn.convolution_plan import plan
from tests.graphs import step_of
from tests.tape.ops.checking import check_agreement, check_op, layouts

rng = np.random.default_rng(0)
CASES = {
    "3x3": ((2, 3, 5, 6), (4, 3, 3, 3), {"padding": 1}),
    "valid": ((2, 3, 5, 6), (4, 3, 3, 2), {}),
    "1x1": ((2, 3, 4, 4), (5, 3, 1, 1), {}),
    "strided": ((2, 3, 7, 6), (4, 3, 3, 3), {"padding": 1, "stride": 2}),
    "strided_1x1": ((2, 3, 5, 5), (4, 3, 1, 1), {"stride": 2}),
    "uneven": ((1, 2, 9, 11), (2, 2, 3, 2), {"padding": (2, 1), "stride": (2, 3)}),
    "dilated": ((1, 2, 9, 8), (3, 2, 3, 3), {"padding": 2, "dilation": 2}),
    "dilated_strided": (
        (1, 2, 12, 13), (2, 2, 3, 3), {"padding": (1, 4), "dilation": (2, 3), "stride": (3, 2)},
    ),
    "grouped": ((2, 4, 5, 5), (6, 2, 3, 3), {"padding": 1, "groups": 2}),
    "depthwise": ((2, 3, 5, 5), (3, 1, 3, 3), {"padding": 1, "groups": 3, "stride": 2}),
    "wide_border": ((1, 1, 2, 2), (1, 1, 2, 2), {"padding": 4, "stride": 3}),
}  # fmt: skip
LARGE = {
    "many_images": ((40, 8, 12, 12), (8, 8, 3, 3), {"padding": 1}),
    "large_image": ((2, 3, 90, 100), (8, 3, 7, 7), {"padding": 3, "stride": 2}),
    "wide_image": ((1, 2, 3, 5000), (4, 2, 3, 3), {"padding": 1}),
}


def case(name: str, dtype: str = "f8"):
    shape, kernel, options = {**CASES, **LARGE}[name]
    arrays = [rng.normal(size=s).astype(dtype) for s in (shape, kernel, kernel[:1])]
    return (lambda x, w, b: nn.conv2d(x, w, b, **options)), arrays


@pytest.mark.parametrize("name", CASES)
def test_gradients_and_bytes(name: str) -> None:
    function, arrays = case(name)
    check_op(function, *arrays, atol=1e-5)


@pytest.mark.parametrize("layout", ["F", "columns", "reversed"])
def test_layouts(layout: str) -> None:
    function, arrays = case("strided")
    check_op(function, *(next(iter(layouts(a, [layout]))) for a in arrays), double=False)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", LARGE)
def test_large_arrays_hold_what_is_declared(name: str, dtype: str) -> None:
    function, arrays = case(name, dtype)
    check_agreement(function, *arrays)


@pytest.mark.parametrize("name", [*CASES, *LARGE])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_values_of_torch(name: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    function, arrays = case(name, dtype)
    values = [ckpt.Value(a) for a in arrays]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    ours = function(*values)
    theirs = torch.nn.functional.conv2d(*tensors, **{**CASES, **LARGE}[name][2])
    assert ours.shape == tuple(theirs.shape)
    weights = rng.normal(size=ours.shape).astype(dtype)
    ours.backward(weights)
    theirs.backward(torch.tensor(weights))
    tolerance = 1e-9 if dtype == "f8" else 2e-3
    np.testing.assert_allclose(ours.data, theirs.detach(), rtol=tolerance, atol=tolerance)
    for value, tensor in zip(values, tensors, strict=True):
        np.testing.assert_allclose(value.grad, tensor.grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("grouped", "depthwise")])
def test_flops_of_torch(name: str) -> None:
    """Forward and backward, to the integer, where the convolution isn't grouped."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    shape, kernel, options = CASES[name]
    x, w = (torch.ones(s, requires_grad=True) for s in (shape, kernel))
    with FlopCounterMode(display=False) as forward:
        out = torch.nn.functional.conv2d(x, w, **options)
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    program = ckpt.trace(
        lambda x, w: np.sum(nn.conv2d(x, w, **options)),
        np.ones(shape), np.ones(kernel), argnums=(0, 1),
    )  # fmt: skip
    node = next(n for n in program.graph if n.op == "convolution")
    assert node.flops == forward.get_total_flops()
    assert step_of(program.graph, "convolution").flops == backward.get_total_flops()


def test_flops_of_grouped_convolutions() -> None:
    """Each output channel meets the input channels of its own group only.

    FlopCounterMode counts that in the forward; in the backward of grouped convolutions torch 2.13
    counts up to as many times too much as there are groups.
    """
    program = ckpt.trace(
        lambda w, x: np.sum(nn.conv2d(x, w, groups=4, padding=1)),
        np.ones((8, 2, 3, 3)), np.ones((5, 8, 6, 6)),
    )  # fmt: skip
    node = next(n for n in program.graph if n.op == "convolution")
    assert node.flops == 2 * (5 * 8 * 6 * 6) * (2 * 3 * 3)
    assert step_of(program.graph, "convolution").flops == node.flops


def test_workspace_does_not_grow_with_the_batch() -> None:
    def workspaces(n: int) -> tuple[int, ...]:
        program = ckpt.trace(
            lambda x, w: np.sum(nn.conv2d(np.exp(x), w, padding=1)),
            ckpt.spec((n, 32, 32, 32)), ckpt.spec((32, 32, 3, 3)), argnums=(0, 1),
        )  # fmt: skip
        graph = program.graph
        node = next(v for v in graph if v.op == "convolution")
        step = step_of(graph, "convolution")
        around = graph.cotangents[(k := graph.steps.index(step)) : k + 2]
        return node.workspace, step.during - sum(around)

    assert workspaces(8) == workspaces(800)
    assert max(workspaces(800)) < 4 << 20  # im2col's matrix for 8 images: 9 MiB; for 800: 0.9 GiB


def test_workspace_does_not_grow_with_the_groups_a_block_holds() -> None:
    """All groups of a block are copied at once: many low ones are as high as one that isn't."""
    x, w = ckpt.spec((16, 256, 28, 28)), ckpt.spec((256, 1, 3, 3))
    graph = ckpt.trace(lambda x, w: np.sum(nn.conv2d(x, w, padding=1, groups=256)), x, w).graph
    node = next(v for v in graph if v.op == "convolution")
    assert node.workspace < 8 << 20


def test_the_blocks_are_really_that_small() -> None:
    x, w = np.ones((64, 8, 32, 32), "f4"), np.ones((8, 8, 3, 3), "f4")
    out = nn.conv2d(x, w, padding=1)
    tracemalloc.start()
    nn.conv2d(x, w, padding=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < out.nbytes + (1 << 20)
    p = plan(x.shape, w.shape, (1, 1), (1, 1), (1, 1), 1)
    assert len(list(p.blocks())) >= 16


def test_conv1d() -> None:
    torch = pytest.importorskip("torch")
    options = {"stride": 2, "padding": 1, "dilation": 2}
    arrays = [rng.normal(size=s) for s in ((2, 3, 11), (4, 3, 3), (4,))]
    check_op(lambda x, w, b: nn.conv1d(x, w, b, **options), *arrays, atol=1e-5)
    theirs = torch.nn.functional.conv1d(*map(torch.tensor, arrays), **options)
    np.testing.assert_allclose(nn.conv1d(*arrays, **options), theirs, rtol=1e-10)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1, "output_padding": 1},
        {"stride": (2, 3), "dilation": 2, "output_padding": (0, 2)},
        {"stride": 2, "groups": 2},
    ],
)
def test_conv_transpose2d(options) -> None:
    torch = pytest.importorskip("torch")
    arrays = [rng.normal(size=s) for s in ((2, 4, 3, 4), (4, 3, 3, 2))]
    arrays.append(rng.normal(size=3 * options.get("groups", 1)))
    check_op(lambda x, w, b: nn.conv_transpose2d(x, w, b, **options), *arrays, atol=1e-5)
    theirs = torch.nn.functional.conv_transpose2d(*map(torch.tensor, arrays), **options)
    np.testing.assert_allclose(nn.conv_transpose2d(*arrays, **options), theirs, rtol=1e-10)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        (((2, 3, 5), (4, 3, 3, 3)), {}, "images"),
        (((2, 3, 5, 5), (4, 2, 3, 3)), {}, "input channels"),
        (((2, 4, 5, 5), (3, 2, 3, 3)), {"groups": 2}, "divides"),
        (((2, 3, 2, 5), (4, 3, 3, 3)), {}, "doesn't fit"),
        (((2, 3, 5, 5), (4, 3, 3, 3)), {"stride": 0}, "stride"),
        (((2, 3, 5, 5), (4, 3, 3, 3)), {"padding": (1, -1)}, "padding"),
        (((2, 3, 5, 5), (4, 3, 3, 3)), {"groups": 0}, "groups"),
    ],
)
def test_bad_input(shapes, options, message) -> None:
    with pytest.raises(ckpt.CkptError, match=message):
        nn.conv2d(*map(np.ones, shapes), **options)
