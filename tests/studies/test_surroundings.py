"""Sessions, settings, states: what is the user's is as it was before, whatever is asked of us."""

from __future__ import annotations

import os
import random
import signal
import sys
import tracemalloc
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

import ckpt
from ckpt.reports.exports import write

with suppress(ImportError):  # it has filters of its own, which it sets when it is imported
    import scipy.optimize
    import scipy.special  # noqa: F401

W = 0.05 * np.random.default_rng(0).normal(size=(24, 24))


def loss(w: Any, rng: Any = None) -> Any:
    x = np.ones((24, 24)) + random.random() * 0 + np.random.normal() * 0
    for _ in range(3):
        x = np.tanh(x @ w)
    if rng is not None:
        x = ckpt.nn.dropout(x, 0.5, rng)
    return np.mean(x * x)


def plain(w: Any) -> Any:
    return np.mean(np.tanh(np.tanh(np.ones((24, 24)) @ w) @ w) ** 2)


def drawn(folder: Path) -> None:
    found = ckpt.profile(plain, W, measure=False)
    found.plot(folder / "a.svg")
    found._repr_html_()


def refused(_: Path) -> None:
    with pytest.raises(ckpt.BudgetError):
        ckpt.plan(plain, W, budget="1B")


ACTIONS: dict[str, Callable[[Path], Any]] = {
    "trace": lambda folder: ckpt.trace(loss, W),
    "profile": lambda folder: ckpt.profile(plain, W),
    "profile of draws": lambda folder: ckpt.profile(
        loss, W, np.random.default_rng(0), measure=False
    ),
    "plan": lambda folder: ckpt.plan(plain, W, budget="100%"),
    "seconds": lambda folder: ckpt.plan(plain, W, cost="seconds", planner="sqrt"),
    "verify": lambda folder: ckpt.plan(plain, W, budget="100%").verify(W),
    "save": lambda folder: ckpt.plan(plain, W).save(folder / "p.json"),
    "frontier": lambda folder: ckpt.frontier(plain, W, planners=["sqrt", "chain"], points=2),
    "sweep": lambda folder: ckpt.sweep("mlp", depths=[3], width=8, batch=4),
    "workers": lambda folder: ckpt.sweep("mlp", depths=[2], width=8, batch=4, jobs=1),
    "gradcheck": lambda folder: ckpt.gradcheck(plain, W),
    "rows": lambda folder: write(folder / "a.html", [{"depth": 1}]),
    "draw": drawn,
    "refused": refused,
}


def surroundings() -> dict[str, Any]:
    numpys: Any = np.random.get_state()
    return {
        "tracing": (tracemalloc.is_tracing(), tracemalloc.get_traceback_limit()),
        "filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "errors": (np.geterr(), np.geterrcall()),
        "printing": np.get_printoptions(),
        "matplotlib": {k: v for k, v in mpl.rcParams.items() if k != "backend"},
        "backend": mpl.rcParams._get("backend"),  # type: ignore[attr-defined]
        "numpy": (numpys[1].tolist(), numpys[2:]),
        "python": random.getstate(),
        "streams": (sys.stdout, sys.stderr),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
    }


@pytest.mark.parametrize("action", ACTIONS)
def test_the_surroundings_are_as_before(
    action: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mpl.rcParams, "axes.facecolor", "black")
    monkeypatch.setitem(mpl.rcParams, "savefig.dpi", 11)
    with np.errstate(divide="raise", over="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="mine")
        before = surroundings()
        ACTIONS[action](tmp_path)
        after = surroundings()
    for name, found in before.items():
        assert after[name] == found, name


def test_generators_of_the_users_are_put_back() -> None:
    rng = np.random.default_rng(7)

    def dropped(w: Any, rng: Any) -> Any:
        x = np.ones((24, 24))
        for _ in range(3):
            x = np.tanh(x @ w)
        return np.mean(ckpt.nn.dropout(x, 0.5, rng))

    ckpt.profile(dropped, W, rng)
    ckpt.trace(loss, W, rng)
    ckpt.frontier(dropped, W, rng, planners=["sqrt"], points=2)
    assert rng.bit_generator.state == np.random.default_rng(7).bit_generator.state


def test_generators_that_the_function_reaches_are_put_back_too() -> None:
    """Through a closure; and so a planned step's draws are the plain step's."""
    rng = np.random.default_rng(7)

    def dropped(w: Any) -> Any:
        return np.mean(np.tanh(ckpt.nn.dropout(w, 0.5, rng) @ w))

    ckpt.profile(dropped, W, measure=True)
    ckpt.frontier(dropped, W, planners=["sqrt"], points=2)
    assert ckpt.plan(dropped, W).verify(W)
    assert ckpt.gradcheck(dropped, W) < 1
    assert rng.bit_generator.state == np.random.default_rng(7).bit_generator.state


@pytest.mark.parametrize("action", ["profile", "verify", "frontier"])
def test_a_session_of_tracemalloc_goes_on_with_its_frames_and_its_peak(
    action: str, tmp_path: Path
) -> None:
    ACTIONS[action](tmp_path)  # imports
    tracemalloc.start(7)
    try:
        kept = bytearray(1_000_000)
        del (high := [bytearray(30_000_000)])[0]
        ACTIONS[action](tmp_path)
        assert tracemalloc.is_tracing()
        assert tracemalloc.get_traceback_limit() == 7
        now, peak = tracemalloc.get_traced_memory()
        assert len(kept) <= now < 30_000_000
        assert 31_000_000 <= peak < 32_000_000
        assert not high
    finally:
        tracemalloc.stop()


def test_under_a_session_the_same_is_measured() -> None:
    alone = ckpt.profile(plain, W).measured
    tracemalloc.start()
    try:
        del (high := [bytearray(30_000_000)])[0]
        within = ckpt.profile(plain, W).measured
        ckpt.plan(plain, W, budget="100%").verify(W)
    finally:
        tracemalloc.stop()
    assert alone
    assert within
    assert abs(within.peak - alone.peak) < 4096
    assert not high
