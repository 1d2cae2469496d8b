"""`ckpt.testing`: what a user's own tests say when memory has regressed."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt.testing import assert_peak, assert_recompute

W = [np.eye(64) * 0.1 for _ in range(8)]
X = np.ones((256, 64))
KEPT_NBYTES = X.nbytes


def loss(ws: Any, x: Any) -> Any:
    for w in ws:
        x = np.tanh(x @ w)
    return np.sum(x)


@ckpt.checkpoint
def block(w: Any, x: Any) -> Any:
    return np.tanh(np.tanh(x @ w))


def checkpointed(ws: Any, x: Any) -> Any:
    for w in ws:
        x = block(w, x)
    return np.sum(x)


def test_a_peak_within_the_bound_passes_and_is_returned() -> None:
    found = assert_peak(loss, W, X, at_most="2MiB")
    assert found.measured is None
    assert_peak(loss, W, X, at_most=found.simulated.peak)
    seen = assert_peak(loss, W, X, at_most=found.simulated.peak, measured=True)
    assert seen.measured is not None


def test_one_byte_too_many_fails_with_lines_and_a_plan_that_fits() -> None:
    peak = ckpt.profile(loss, W, X, measure=False).simulated.peak
    with pytest.raises(AssertionError) as failed:
        assert_peak(loss, W, X, at_most=peak - 1)
    said = str(failed.value)
    assert said.startswith("the predicted peak of loss is ")
    assert "test_testing.py:" in said
    assert f"a plan fits: ckpt.plan(..., budget={peak - 1}) holds " in said
    budget = int(said.rpartition("budget=")[2].partition(")")[0])
    assert ckpt.plan(loss, W, X, budget=budget).timeline.peak <= budget


def test_a_measured_peak_that_another_thread_may_have_raised_says_so() -> None:
    stop = threading.Event()
    held: list[Any] = []

    def allocate() -> None:
        while not stop.is_set():
            held.append(np.ones(1 << 16))
            held[:-8] = []

    other = threading.Thread(target=allocate, name="greedy")
    other.start()
    try:
        limit = ckpt.profile(loss, W, X, measure=False).simulated.peak
        with pytest.raises(AssertionError, match=r"untrusted: another thread ran .*greedy"):
            again_and_again(limit)
    finally:
        stop.set()
        other.join()


def again_and_again(limit: int) -> None:
    """Once the other thread runs long enough beside."""
    for _ in range(100):
        assert_peak(loss, W, X, at_most=limit, measured=True)


def test_the_whole_peak_has_parameters_and_gradients() -> None:
    step = ckpt.profile(loss, W, X, measure=False).simulated
    assert_peak(loss, W, X, at_most=step.whole_peak, whole=True)
    with pytest.raises(AssertionError, match="the predicted whole peak"):
        assert_peak(loss, W, X, at_most=step.whole_peak - 1, whole=True)
    with pytest.raises(AssertionError, match="gradients alone are above it"):
        assert_peak(loss, W, X, at_most=1000, whole=True)


def test_no_plan_fits_in_a_kilobyte() -> None:
    with pytest.raises(AssertionError, match="no plan that was found fits"):
        assert_peak(loss, W, X, at_most="1KiB")


def test_recompute() -> None:
    assert_recompute(loss, W, X, at_most=0)
    with pytest.raises(AssertionError, match=r"recomputes [0-9.]+% of a forward, above 0.0%"):
        assert_recompute(checkpointed, W, X, at_most=0)
    assert_recompute(checkpointed, W, X, at_most=1)
    with pytest.raises(ckpt.UsageError, match="a share of a forward"):
        assert_recompute(loss, W, X, at_most=-1)
    with pytest.raises(ckpt.UsageError, match="and not '30%'"):
        assert_recompute(loss, W, X, at_most="30%")  # type: ignore[arg-type]


def test_a_bound_that_is_none() -> None:
    with pytest.raises(ckpt.UnitError):
        assert_peak(loss, W, X, at_most="a lot")
