"""Numbers that papers and peers print, and that our planners must reach."""

from __future__ import annotations

from functools import lru_cache
from math import comb

import pytest

from ckpt.machine import simulate
from ckpt.planners.base.stages import cut_at
from ckpt.planners.revolve.mixed import mixed_ops, mixed_tables
from ckpt.planners.revolve.revolve import eta, revolve_ops, split, sweeps, total_forwards
from ckpt.planners.revolve.stage_ops import BACK, TAPE, StageOp, emit
from tests.graphs import uneven_chain

STEPS, SLOTS = 300, 20


@lru_cache(maxsize=1)
def binomial_table() -> list[list[int]]:
    """Griewank & Walther's recurrence itself: T[n][s] = min over k of k + T[k][s] + T[n-k][s-1].

    The minimum is taken over every k up to 40 steps, and over k = 1.. while it still falls above:
    T is convex in n, so the first rise ends the search.
    """
    table = [[0] * (SLOTS + 1) for _ in range(STEPS + 1)]
    for s in range(1, SLOTS + 1):
        k = 1
        for n in range(2, STEPS + 1):
            if s == 1:
                table[n][1] = n * (n - 1) // 2
                continue

            def cost(k: int, n: int = n, s: int = s) -> int:
                return k + table[k][s] + table[n - k][s - 1]

            if n <= 40:
                table[n][s] = min(cost(k) for k in range(1, n))
                continue
            k = min(range(1, n), key=cost) if n == 41 else k
            while k + 1 < n and cost(k + 1) <= cost(k):
                k += 1
            table[n][s] = cost(k)
    return table


def forwards(ops: list[StageOp]) -> int:
    return sum(op.kind != BACK for op in ops)


def test_revolve_closed_form_equals_the_recurrence() -> None:
    table = binomial_table()
    for n in range(1, STEPS + 1):
        for s in range(1, SLOTS + 1):
            assert eta(n, s) == table[n][s], (n, s)


def test_revolve_emits_exactly_its_closed_form() -> None:
    for n in [*range(1, 60), 117, 200, STEPS]:
        for s in range(1, SLOTS + 1):
            ops = revolve_ops(n, s)
            assert forwards(ops) == eta(n, s), (n, s)
            assert len(ops) == total_forwards(n, s)


def test_revolve_split_is_within_the_optimal_range() -> None:
    for s in range(2, 12):
        for n in range(2, 200):
            r, k = sweeps(n, s), split(n, s)
            assert k <= comb(s + r - 1, s)
            assert comb(s - 1 + r - 1, s - 1) <= n - k or k == 1
            assert n - k <= comb(s - 1 + r, s - 1)


@pytest.mark.parametrize("s", [1, 2, 3, 5])
def test_revolve_on_a_chain_costs_what_the_paper_says_and_holds_s_snapshots(s: int) -> None:
    n = 14
    graph = uneven_chain([1] * n, [1] * n)
    stages = cut_at(graph, range(2, n + 1))
    assert len(stages) == n
    timeline = simulate(graph, emit(stages, revolve_ops(n, s)))
    # each forward of a stage, untaped or taped, is one Compute of one FLOP
    assert timeline.forward_flops + timeline.recompute_flops == total_forwards(n, s)
    # s - 1 snapshots (the initial state is an input), the output; and at work at most a value and
    # its successor beside a waiting cotangent, or a value, two cotangents and workspace
    assert timeline.peak <= s - 1 + 1 + 4


def test_mixed_emits_exactly_its_table() -> None:
    costs, choices = mixed_tables(60, 12)
    for n in range(2, 61):
        for s in range(1, min(n - 1, 12) + 1):
            ops = mixed_ops(n, s, choices)
            taped_later = n - sum(op.kind == TAPE for op in ops)  # by the stage's BACK itself
            assert forwards(ops) + taped_later == costs[n, s], (n, s)


def test_mixed_boundary_values_of_the_recurrence() -> None:
    costs, _ = mixed_tables(40, 39)
    for n in range(2, 41):
        assert costs[n, 1] == (n if n <= 2 else n * (n + 1) // 2 - 1)
        assert all(costs[n, s] == n for s in range(n - 1, 40))


def test_mixed_never_needs_more_forwards_than_revolve() -> None:
    """One slot of Revolve's holds the initial state; Mixed has that in hand as it starts."""
    costs, _ = mixed_tables(80, 12)
    for n in range(2, 81):
        for s in range(1, 13):
            assert costs[n, s] <= total_forwards(n, s)


def test_checkpoint_schedules_agrees() -> None:
    multistage = pytest.importorskip("checkpoint_schedules.multistage")
    peer = pytest.importorskip("checkpoint_schedules.mixed")
    costs, _ = mixed_tables(40, 39)
    for n in range(2, 41):
        for s in range(1, n):
            assert total_forwards(n, s) == multistage.optimal_steps_binomial(n, s), (n, s)
            assert costs[n, s] == peer.optimal_steps_mixed(n, s), (n, s)
