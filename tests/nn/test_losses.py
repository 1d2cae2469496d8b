"""Losses and embedding."""

from __future__ import annotations

import numpy as np
import pytest

import ckpt
from ckpt import nn
from tests.graphs import step_of
from tests.tape.ops.checking import check_agreement, check_op, layouts

rng = np.random.default_rng(0)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_of_classes(reduction: str) -> None:
    targets = rng.integers(0, 5, (3, 2))

    def f(x):
        return nn.cross_entropy(x, targets, reduction=reduction)

    check_op(f, rng.normal(size=(3, 2, 5)))


def test_cross_entropy_along_another_axis() -> None:
    targets = rng.integers(0, 5, (3, 4, 4))

    def f(x):
        return nn.cross_entropy(x, targets, axis=1)

    check_op(f, rng.normal(size=(3, 5, 4, 4)), double=False)


def test_cross_entropy_of_probabilities() -> None:
    def f(x, p):
        return nn.cross_entropy(x, p)

    check_op(f, rng.normal(size=(3, 5)), rng.dirichlet(np.ones(5), 3))
    targets = rng.integers(0, 5, 3)
    x = rng.normal(size=(3, 5))
    np.testing.assert_allclose(f(x, np.eye(5)[targets]), nn.cross_entropy(x, targets))


@pytest.mark.parametrize("layout", ["F", "columns", "reversed"])
def test_layouts(layout: str) -> None:
    (x,) = layouts(rng.normal(size=(4, 5)), [layout])
    check_op(lambda x: nn.cross_entropy(x, np.arange(4)), x)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("shape", [(900, 300), (7, 60_000)])
def test_large_arrays_hold_what_is_declared(shape, dtype: str) -> None:
    targets = rng.integers(0, shape[1], shape[0])
    x = rng.normal(size=shape).astype(dtype)
    check_agreement(lambda x: nn.cross_entropy(x, targets), x)


def test_the_logits_are_all_that_cross_entropy_keeps() -> None:
    targets = np.arange(4)
    graph = ckpt.trace(lambda x: nn.cross_entropy(np.exp(x), targets), np.ones((4, 9))).graph
    node = next(n for n in graph if n.op == "class_losses")
    assert [graph[r].op for r in step_of(graph, "class_losses").reads] == ["exp", "captured"]
    assert node.nbytes == 4 * 8


def test_cross_entropy_of_huge_logits() -> None:
    x = ckpt.Value(np.array([[1e4, -1e4, 0.0]], "f4"))
    loss = nn.cross_entropy(x, np.array([1]))
    loss.backward()
    assert loss.data == 2e4
    assert x.grad.tolist() == [[1.0, -1.0, 0.0]]


@pytest.mark.parametrize("axis", [-1, 1])
def test_values_of_torch(axis: int) -> None:
    torch = pytest.importorskip("torch")
    shape = (6, 5) if axis == -1 else (6, 5, 3)
    x, targets = rng.normal(size=shape).astype("f4"), rng.integers(0, 5, (6, *shape[2:]))
    value, tensor = ckpt.Value(x), torch.tensor(x, requires_grad=True)
    ours = nn.cross_entropy(value, targets, axis=axis)
    theirs = torch.nn.functional.cross_entropy(tensor, torch.tensor(targets))
    ours.backward()
    theirs.backward()
    np.testing.assert_allclose(ours.data, theirs.detach(), rtol=1e-6)
    np.testing.assert_allclose(value.grad, tensor.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse(reduction: str) -> None:
    def f(x, y):
        return nn.mse(x, y, reduction=reduction)

    check_op(f, rng.normal(size=(3, 4)), rng.normal(size=(3, 4)))


def test_bad_targets_and_options() -> None:
    x = np.ones((2, 3))
    with pytest.raises(ckpt.CkptError, match="classes 0 to 2"):
        nn.cross_entropy(x, np.array([0, 3]))
    with pytest.raises(ckpt.CkptError, match="from -1"):
        nn.cross_entropy(x, np.array([-1, 2]))
    with pytest.raises(ckpt.CkptError, match="targets of shape"):
        nn.cross_entropy(x, np.array([0, 1, 2]))
    with pytest.raises(ckpt.CkptError, match="reduction"):
        nn.mse(x, x, reduction="max")


# -- embedding -------------------------------------------------------------------------------------


def test_embedding() -> None:
    indices = np.array([[1, 0, 1], [4, 4, 4]])
    check_op(lambda table: nn.embedding(table, indices), rng.normal(size=(6, 3)))


def test_embedding_adds_in_place_into_one_gradient() -> None:
    """Three look-ups in one table: three parts, and no array of its size beside the gradient."""
    indices = [rng.integers(0, 4000, 16) for _ in range(3)]

    def loss(table):
        return np.sum(np.stack([np.sum(nn.embedding(table, i) ** 2) for i in indices]))

    table = rng.normal(size=(4000, 64))
    check_agreement(lambda t: loss(t), table)
    graph = ckpt.trace(loss, table).graph
    parts = [step for step in graph.steps if step.label == "embedding"]
    assert len(parts) == 3
    assert max(step.during for step in parts) < table.nbytes // 10
    expected = np.zeros_like(table)
    for i in indices:
        np.add.at(expected, i, 2 * table[i])
    np.testing.assert_allclose(ckpt.grad(loss)(table), expected)


def test_the_gradient_of_many_rows_takes_the_numbers_of_a_block_of_them() -> None:
    """Of a U-Net's pixels four numbers each would be as much as its logits."""
    logits = rng.normal(size=(200_000, 2))
    targets = rng.integers(0, 2, 200_000)
    found = ckpt.profile(lambda x: nn.cross_entropy(x * 2, targets), logits, planner="store_all")
    assert found.measured is not None
    assert found.measured.peak == pytest.approx(found.simulated.peak, rel=0.01, abs=64 * 1024)
