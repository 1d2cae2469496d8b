"""Products of stacks of small matrices are shared among threads in planned steps: the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt.planners import make_schedule
from ckpt.tape.core.abstract import abstract
from ckpt.tape.ops.linear import stacks
from ckpt.tape.ops.linear.stacks import lanes_of_stack, product_of_stacks
from tests.test_agreement import check


@pytest.fixture(autouse=True)
def few_flops(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A thread for each 256 FLOPs, and as many threads as are asked for."""
    monkeypatch.setattr(stacks, "LANE_FLOPS", 256)
    before = ckpt.threads()
    yield
    ckpt.threads(before)


SHAPES = [
    ((9, 6, 5), (9, 5, 7)),
    ((64, 3, 4), (4, 5)),
    ((4, 5), (64, 5, 3)),
    ((1, 6, 5), (9, 5, 7)),
    ((5, 2, 6, 5), (2, 5, 7)),
    ((5, 1, 6, 5), (1, 3, 5, 7)),
    ((200, 1, 5), (200, 5, 1)),
    ((200, 3, 1), (200, 1, 5)),
    ((2, 40, 5, 5), (2, 1, 5, 5)),
]


def laid_out(x: Any, how: str) -> Any:
    match how:
        case "swapped":
            return np.swapaxes(np.ascontiguousarray(np.swapaxes(x, -1, -2)), -1, -2)
        case "F":
            return np.asfortranarray(x)
        case "backwards":
            return x[::-1, ..., ::-1]
        case "spread":
            return np.broadcast_to(x[:1], x.shape)
    return x


@pytest.mark.parametrize("how", ["C", "swapped", "F", "backwards", "spread"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16"])
def test_bits_are_those_of_matmul(dtype: str, how: str) -> None:
    rng = np.random.default_rng(0)
    for x_shape, w_shape in SHAPES:
        x = laid_out(rng.standard_normal(x_shape).astype(dtype), how)
        w = laid_out(rng.standard_normal(w_shape).astype(dtype), how)
        if dtype[0] == "c":
            x, w = x * (1 + 0.3j), w * (0.2 - 1j)
        square = [(x, np.swapaxes(x, -1, -2))] if len(x_shape) > 2 < len(x) else []
        for n in (1, 2, 3, 8):
            ckpt.threads(n)
            for a, b in ((x, w), *square):
                expected = np.matmul(a, b)
                assert lanes_of_stack(a, b, expected) > 1
                out = np.full_like(expected, np.nan)
                assert product_of_stacks(a, b, out=out) is out
                assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("x", "w", "dtypes"),
    [
        ((90, 80), (80, 70), "ff"),
        ((9, 65, 64), (9, 64, 64), "ff"),  # BLAS may use its own threads
        ((9, 6, 5), (5,), "ff"),
        ((1, 9, 9), (1, 9, 9), "ff"),
        ((2, 3, 4), (2, 4, 5), "ff"),
        ((90, 6, 5), (90, 5, 7), "fd"),
        ((90, 6, 5), (90, 5, 7), "ee"),
        ((90, 6, 5), (90, 5, 7), "ii"),
    ],
)
def test_what_is_not_shared(x: Any, w: Any, dtypes: str) -> None:
    a, b = np.ones(x, dtypes[0]), np.ones(w, dtypes[1])
    assert lanes_of_stack(*map(abstract, (a, b, a @ b))) == 1


@pytest.mark.parametrize("n", [1, 3])
def test_a_planned_step_shares_them(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention: three products forward, and five back."""
    asked: list[tuple[int, int]] = []

    def share(work: Any, count: int, lanes: int) -> None:
        asked.append((count, lanes))
        work(0, iter(range(count)))

    monkeypatch.setattr(stacks, "share", share)

    def loss(x: Any, w: Any) -> Any:
        q, k, v = np.tanh(x @ w), np.sin(x), x * 2
        return np.sum(np.exp(q @ np.swapaxes(k, -1, -2)) @ v)

    rng = np.random.default_rng(0)
    args = 0.1 * rng.standard_normal((8, 6, 5)), rng.standard_normal((5, 5))
    program = ckpt.trace(loss, *args)
    ckpt.threads(n)
    expected = ckpt.value_and_grad(loss)(*args)
    assert not asked
    check(program, make_schedule(program.graph, "store_all"), args, expected)
    assert len(asked) == (2 * 8 if n > 1 else 0)  # in each of two calls
    assert all(lanes == n for _, lanes in asked)
