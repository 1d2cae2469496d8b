"""What `simulate` says is what happens: live bytes at every instruction, and the peak; and every
schedule of a program gives the plain gradients, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckpt
from ckpt.errors import BudgetError, UsageError
from ckpt.planners import make_schedule, resolve_budget
from ckpt.tape.core import tree
from tests.programs import choices, make

PLANNERS = (
    "store_all",
    "recompute_all",
    "as_written",
    "sqrt",
    "every:2",
    "revolve",
    "chain",
    "dtr",
)


def equal(found, expected):
    assert found[0] == expected[0]
    for a, b in zip(tree.leaves(found[1]), tree.leaves(expected[1]), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def room(timeline, arrays, nodes):
    """How far the measured peak may lie from the predicted one."""
    return timeline.peak / 100 + 64 * 1024 + 256 * arrays + 512 * nodes


def check(program, schedule, args, expected):
    predicted = ckpt.simulate(program.graph, schedule)
    run = ckpt.execute(program, schedule, *args, trace_memory=True)
    at = predicted.same_live_bytes(run.timeline)
    assert at is None, (schedule.planner, at, predicted[at], run.timeline[at])
    assert list(predicted.counts) == list(run.timeline.counts)
    assert predicted.flops_by_phase == run.timeline.flops_by_phase
    nodes = len(program.graph)
    assert abs(run.timeline.peak - predicted.peak) <= room(predicted, nodes, nodes)
    equal(run.result, expected)
    step = program.compile(schedule)
    assert step.nbytes + step.beside_nbytes <= predicted.peak * 1.01 + 64 * 1024
    equal(step(*args), expected)
    equal(step(*args), expected)


@given(choices, st.integers(0, 1000), st.integers(0, 2))
def test_random_programs(steps, seed, checkpoints):
    loss, args = make(steps, seed, checkpoints)
    expected = ckpt.value_and_grad(make(steps, seed, 0)[0])(*args)
    equal(ckpt.value_and_grad(loss)(*args), expected)
    program = ckpt.trace(loss, *args)
    for planner in PLANNERS:
        try:
            schedule = make_schedule(program.graph, planner)
        except UsageError:
            continue  # too short to be cut
        check(program, schedule, args, expected)


@given(choices, st.integers(0, 1000), st.sampled_from([30, 50, 80]))
def test_random_programs_within_a_budget(steps, seed, percent):
    loss, args = make(steps, seed, 0)
    expected = ckpt.value_and_grad(loss)(*args)
    program = ckpt.trace(loss, *args)
    for planner in ("greedy", "revolve", "chain", "dtr"):
        budget = f"{percent}%"
        try:
            schedule = make_schedule(program.graph, planner, budget)
        except BudgetError as error:
            budget = error.smallest or 0
            schedule = make_schedule(program.graph, planner, budget)
        except UsageError:
            continue
        limit = resolve_budget(program.graph, budget)[0]
        assert ckpt.simulate(program.graph, schedule).peak <= limit
        check(program, schedule, args, expected)


@pytest.mark.parametrize("batch", [32, 64, 128, 300])
@pytest.mark.parametrize("planner", PLANNERS)
def test_peaks_on_both_sides_of_256_kib(batch, planner):
    """NumPy reuses temporaries above that size, so a peak could be right on one side only."""

    def loss(ws, x):
        for w in ws:
            x = np.tanh(x @ w) * 2 + np.sin(x) * x
        return np.mean(np.square(x))

    rng = np.random.default_rng(0)
    args = [rng.standard_normal((128, 128)) for _ in range(5)], rng.standard_normal((batch, 128))
    program = ckpt.trace(loss, *args)
    expected = ckpt.value_and_grad(loss)(*args)
    check(program, make_schedule(program.graph, planner), args, expected)


def test_the_whole_path_on_a_step_that_is_used_again():
    """Other arrays, other values: a compiled step holds nothing of the call before."""
    loss, args = make([0, 5, 8, 3, 12, 13], 3, 0)
    program = ckpt.trace(loss, *args)
    step = program.compile(make_schedule(program.graph, "sqrt"))
    step(*args)
    others = [w + 1 for w in args[0]], args[1] * 2
    equal(step(*others), ckpt.value_and_grad(loss)(*others))
    kept = step(*others)
    copies = [g.copy() for g in kept[1]]
    step(*args)
    for g, c in zip(kept[1], copies, strict=True):
        np.testing.assert_array_equal(g, c)
