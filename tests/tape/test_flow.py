"""The backward of a trace as rows: how cotangents are shared, summed and let go of, and where they
lie - as many bytes as a run holds, and in the layout that eager backward gives them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt.graph import Graph
from ckpt.machine import simulate
from tests.tape.ops.checking import check_agreement, same, store_all

RNG = np.random.default_rng(0)
N = 8
W, K, C = (RNG.standard_normal((N, N)) for _ in range(3))

READERS: dict[str, Callable[[Any, Any], Any]] = {
    "fresh": lambda h, other: h * K,
    "handed": lambda h, other: (h + C) * K,
    "handed to another as well": lambda h, other: (h + other) * K,
    "handed twice": lambda h, other: (h + h) * K,
    "view": lambda h, other: h.T * K,
    "spread": lambda h, other: np.sum(h, axis=0) * K,
    "part": lambda h, other: h[1:-1] * K[1:-1],
}
"""What a value's readers contribute to its cotangent, by kind: see `ckpt.tape.traced.flow`."""


def read_by(kinds: tuple[str, ...], more: Any = None) -> Callable[[Any], Any]:
    """tanh(w), and sin(w) beside it, read by readers of these kinds; the last one comes first in
    the backward."""

    def loss(w: Any) -> Any:
        h, other = np.tanh(w), np.sin(w)
        total = np.sum(READERS[kinds[0]](h, other))
        for kind in kinds[1:]:
            total = total + np.sum(READERS[kind](h, other))
        return total + np.sum(other)

    return loss


@pytest.mark.parametrize("last", READERS)
def test_live_bytes_of_a_value_that_three_readers_contribute_to(last: str) -> None:
    for kinds in product(READERS, READERS, [last]):
        loss = read_by(kinds)
        program = ckpt.trace(loss, W)
        schedule = store_all(program.graph)
        predicted = simulate(program.graph, schedule)
        run = ckpt.execute(program, schedule, W)
        at = predicted.same_live_bytes(run.timeline)
        assert at is None, (kinds, at, predicted[at], run.timeline[at])
        same(ckpt.value_and_grad(loss)(W), run.result, str(kinds))


LARGE, OTHER, WEIGHTS = (RNG.standard_normal((90, 90)) for _ in range(3))


PAIRS = [*product(READERS, READERS)]
# Their sums go through buffers of NumPy's, of up to 64 KiB an operand.
PAIRS.remove(("spread", "spread"))
PAIRS.remove(("view", "part"))


@pytest.mark.parametrize("pair", PAIRS, ids=" then ".join)
def test_no_more_is_held_within_a_step_than_it_says(pair: tuple[str, str]) -> None:
    """Large enough for `check_agreement` to hold the peak of each instruction against tracemalloc:
    both ways, so that a sum's old buffer isn't counted on when it has gone."""

    def readers(h: Any, other: Any) -> dict[str, Any]:
        return {
            "fresh": lambda: h * WEIGHTS,
            "handed": lambda: (h + OTHER) * WEIGHTS,
            "handed to another as well": lambda: (h + other) * WEIGHTS,
            "handed twice": lambda: (h + h) * WEIGHTS,
            "view": lambda: h.T * WEIGHTS,
            "spread": lambda: np.sum(h, axis=0) * WEIGHTS,
            "part": lambda: h[1:-1] * WEIGHTS[1:-1],
        }

    def function(w: Any) -> Any:
        made = readers(np.tanh(w), np.sin(w))
        return np.sum(made[pair[1]]()) + np.sum(made[pair[0]]())

    check_agreement(function, LARGE, cotangents=("spread",))


def rows_of(graph: Graph, op: str) -> list[tuple[int, int, int]]:
    """(first, last, bytes) of the rows that are cotangents of the op's only node."""
    (node,) = (i for i, n in enumerate(graph) if n.op == op)
    return [(r.first, r.last, r.nbytes) for r in graph.rows if r.whose == node]


def test_two_handed_on_are_summed_in_a_third_and_both_go() -> None:
    """h + K and h + C hand their cotangents to h, in steps 3 and 6 of 0 add, 1 sum, 2 multiply,
    3 add, 4 sum, 5 multiply, 6 add, 7 exp. The first one lies in the buffer of step 2, the second
    in that of step 5, their sum in one that step 6 makes; it alone is there in step 7."""

    def loss(w: Any) -> Any:
        h = np.exp(w)
        return np.sum((h + C) * K) + np.sum((h + K) * C)

    graph = ckpt.trace(loss, W).graph
    assert [step.label for step in graph.steps[3::3]] == ["add", "add"]
    assert rows_of(graph, "exp") == [(6, 7, W.nbytes)]
    crossing = [r for r in graph.rows if r.kind == "cotangent" and r.first <= 6 < r.last]
    assert len(crossing) == 1
    assert simulate(graph, store_all(graph)).columns["cotangents"][-1] == 0


# -- layouts ---------------------------------------------------------------------------------------

TALL = RNG.standard_normal((400, 300)).astype("f4")
A, B = (RNG.standard_normal((300, 400)).astype("f4") for _ in range(2))


def two_transposed_readers(b: Any) -> Any:
    """h = TALL + b. Its cotangent is the sum of two views, A.T and B.T, so in F order, and the
    gradient of b the sums over its columns."""
    h = np.exp(TALL * 0.01) + b
    return np.sum(h.T * A) + np.sum(h.T * B)


def test_the_layout_of_a_sum_decides_the_bits_of_what_is_summed_over_it() -> None:
    cotangent = A.T + B.T
    assert cotangent.flags.f_contiguous
    as_c = np.ascontiguousarray(cotangent)
    assert np.sum(cotangent, axis=0).tobytes() != np.sum(as_c, axis=0).tobytes()
    np.testing.assert_array_equal(
        ckpt.grad(two_transposed_readers)(np.zeros(300, "f4")), np.sum(cotangent, axis=0)
    )


def everywhere(loss: Any, *args: Any) -> Any:
    """The gradients as eager gives them, once they were the same bits - and strides - anyhow."""
    expected = ckpt.value_and_grad(loss)(*args)
    program = ckpt.trace(loss, *args)
    schedule = store_all(program.graph)
    ways = {
        "checkpointed": ckpt.value_and_grad(ckpt.checkpoint(loss)),
        "executed": lambda *given: program.execute(schedule, *given),
        "compiled": program.compile(schedule),
    }
    for way, run in ways.items():
        found = run(*args)
        same(expected, found, way)
        assert found[1].strides == expected[1].strides, way
    return expected[1]


def test_a_sum_of_two_views_lies_as_eager_gives_it() -> None:
    everywhere(two_transposed_readers, np.zeros(300, "f4"))


ORDERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "two in F order": (lambda h: np.sum(h.T * A) + np.sum(h.T * B), "F"),
    "two in C order": (lambda h: np.sum(h * TALL) + np.sum((h + TALL) * TALL), "C"),
    "F, then C into it": (lambda h: np.sum((h + TALL) * TALL) + np.sum(h.T * A), "C"),
    "a spread one and F": (lambda h: np.sum(h.T * A) + np.sum(h), "F"),
    "three in F order": (
        lambda h: np.sum(h.T * A) + np.sum(h.T * B) + np.sum(h.T * (A + B)),
        "F",
    ),
}


@pytest.mark.parametrize("order", ORDERS)
def test_gradients_have_the_strides_of_eager_ones(order: str) -> None:
    """h = w + 0 hands its cotangent on, so w's gradient is a copy of it in the same order."""
    readers, expected = ORDERS[order]
    gradient = everywhere(lambda w: readers(w + np.float32(0)), TALL)
    assert gradient.flags[f"{expected}_CONTIGUOUS"]


def test_a_view_without_axes_is_a_number() -> None:
    everywhere(lambda w: w[0] * w[1] + np.tanh(w[0]) + w[2:][0], np.arange(1.0, 4.0))
