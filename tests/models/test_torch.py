"""Our nets and the same nets in PyTorch: values, gradients, and FLOPs of products."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt.models import build
from ckpt.program import Program
from ckpt.tape.core import tree
from ckpt.tape.execution.program import trace
from tests.models.small import SMALL

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from tests.models.twins import TWINS  # noqa: E402

CASES = [name for name, (model, _) in SMALL.items() if model in TWINS]
WITH_PRODUCTS = [name for name in CASES if name not in ("wave", "heat")]
PRODUCTS = ("matmul", "convolution", "convolution_x", "convolution_w")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Nets this small spend their time waiting for each other's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensors(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    def convert(leaf: Any) -> Any:
        return torch.tensor(leaf) if isinstance(leaf, np.ndarray) else leaf

    params, *rest = (tree.rebuild(a, convert) for a in arguments)
    for leaf in tree.leaves(params):
        leaf.requires_grad_()
    return params, *rest


@cache
def twin(name: str) -> tuple[Any, tuple[Any, ...], tuple[Any, ...]]:
    """Workload, its arrays, and the twin's loss and tensors."""
    model, options = SMALL[name]
    workload = build(model, **options, dtype="float64")
    arrays = workload.arrays(seed=3)
    return workload, arrays, (TWINS[model](workload.options), *tensors(arrays))


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_pytorchs(name: str) -> None:
    workload, arrays, (loss, *args) = twin(name)
    value, grads = ckpt.value_and_grad(workload.loss)(*arrays)
    expected = loss(*args)
    leaves = list(tree.leaves(args[0]))
    expected_grads = torch.autograd.grad(expected, leaves)
    assert value == pytest.approx(expected.item(), rel=1e-12)
    found = list(tree.leaves(grads))
    assert len(found) == len(leaves)
    for ours, theirs in zip(found, expected_grads, strict=True):
        scale = float(theirs.abs().max())
        assert scale > 0
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-8, atol=1e-10 * scale)


def product_flops(program: Program) -> tuple[int, int]:
    """FLOPs of matmuls and convolutions alone, forward and backward."""
    forward = backward = 0
    for node in program.graph:
        if node.op in PRODUCTS:
            forward += node.flops
        if node.op == "convolution" and len(node.deps) == 3:
            forward -= int(np.prod(node.shape))  # the bias, which PyTorch doesn't count
    for edges in program.traced.flow.edges:
        for edge in edges:
            if edge is not None and edge.kernel is not None:
                calls = edge.kernel.calls
                backward += sum(call.flops for call in calls if call.op.name in PRODUCTS)
    return forward, backward


@pytest.mark.parametrize("name", WITH_PRODUCTS)
def test_flops_of_products_are_those_of_flop_counter_mode(name: str) -> None:
    workload, _, (loss, *args) = twin(name)
    forward, backward = product_flops(trace(workload.loss, *workload.specs()))
    with FlopCounterMode(display=False) as counter:
        value = loss(*args)
    assert forward == counter.get_total_flops() > 0
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(value, list(tree.leaves(args[0])))
    if name == "mobilenet":
        # For the weight's gradient of a grouped convolution PyTorch counts a full one. Ours is what
        # the mathematics needs: each gradient costs as much as the forward (but none flows to the
        # images).
        images = trace(workload.loss, *workload.specs()).graph
        first = next(node for node in images if node.op == "convolution")
        assert backward == 2 * forward - first.flops
        assert backward < counter.get_total_flops()
    else:
        assert backward == counter.get_total_flops() > forward
