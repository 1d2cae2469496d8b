"""Witnesses: each counts what it should, in a process of its own, and says what is in doubt."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt import witness
from ckpt.studies.points import Point, run_point
from ckpt.units import KIB
from ckpt.witness.base import TRIES

HERE = ["tracemalloc"]
if sys.platform == "linux":
    HERE.append("process")
if importlib.util.find_spec("memray"):
    HERE.append("memray")

AGREES = """
import ckpt
from ckpt.models import build
work = build({model!r}, **{options!r})
found = ckpt.profile(work.loss, *work.arrays(0), witness={name!r}, planner={planner!r})
assert list(found.peaks) == [{name!r}], found.peaks
print(found.measured.peak, found.simulated.peak_with_scratch, found.measured.measured["untrusted"])
"""


def fresh(code: str, *args: str) -> str:
    """What the code prints in a process of its own."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # of two, BLAS allocates by itself
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize(
    ("model", "options", "planner"),
    [
        ("mlp", {"depth": 8, "width": 128, "batch": 2048}, "store_all"),
        ("mlp", {"depth": 8, "width": 128, "batch": 2048}, "sqrt"),
        ("resnet", {"depth": 2, "batch": 64}, "store_all"),
    ],
)
def test_each_sees_the_predicted_peak(
    model: str, options: dict[str, Any], planner: str, name: str
) -> None:
    code = AGREES.format(model=model, options=options, planner=planner, name=name)
    peak, predicted, untrusted = fresh(code).split()
    assert int(peak) == pytest.approx(int(predicted), rel=0.02)
    assert untrusted == "None"


COUNTS = """
import sys
from ckpt import witness
from ckpt.tape.execution.program import filled
for nbytes in (8 << 20, 20 << 20):
    seen = witness.named(sys.argv[1], filled)
    _, peak = seen.of(filled, nbytes)
    assert seen.peak() == peak
    print(abs(peak - nbytes) <= seen.resolution)
"""


@pytest.mark.parametrize("name", HERE)
def test_each_counts_a_filled_array(name: str) -> None:
    assert fresh(COUNTS, name).split() == ["True", "True"]  # threads of earlier tests' blur pages


HOLE = """
import numpy as np
from ckpt import witness
witness.pages.malloc.keep_pages()  # so that arrays lie side by side
first, second = np.ones(1 << 20), np.ones(1 << 18)
del first
with witness.named("process") as seen:
    held = np.ones(1 << 20)
    del held
    seen.reset()
    print(seen.peak() <= seen.resolution)
"""


@pytest.mark.skipif("process" not in HERE, reason="Linux alone")
def test_what_is_freed_between_what_stays_counts_no_longer() -> None:
    assert fresh(HOLE).split() == ["True"]


def test_the_process_does_not_count_what_nobody_touches_so_it_is_refused() -> None:
    if "process" not in HERE:
        pytest.skip("Linux alone")
    with pytest.raises(ckpt.VerificationError, match="process can't be trusted here"):
        witness.Process(lambda nbytes: np.empty(nbytes, np.uint8)).check()


def test_a_broken_witness_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A NumPy that counts each array twice."""
    true = tracemalloc.get_traced_memory
    monkeypatch.setattr(tracemalloc, "get_traced_memory", lambda: tuple(2 * n for n in true()))
    x = np.ones((64, 64))
    with pytest.raises(ckpt.VerificationError, match="counts 2 MiB for an array of 1 MiB"):
        ckpt.profile(lambda x: np.sum(np.tanh(x)), x)
    with pytest.raises(ckpt.VerificationError, match="tracemalloc can't be trusted"):
        ckpt.plan(lambda x: np.sum(np.tanh(x)), x).verify(x)


def test_a_cgroup_is_asked_where_the_process_itself_can_not_be(tmp_path: Path) -> None:
    current, peak = tmp_path / "memory.current", tmp_path / "memory.peak"
    current.write_text("1000\n")
    peak.write_text("900000000\n")
    pages = witness.pages.CgroupPages(tmp_path)
    assert peak.read_text().startswith("reset\n")
    with witness.Process(pages=pages) as seen:
        current.write_text("4000\n")
        peak.write_text("7000\n")
        assert seen.held() == 3000
        assert seen.peak() == 6000
    assert seen.peak() == 6000


def test_names() -> None:
    with pytest.raises(ckpt.UsageError, match="did you mean memray"):
        witness.named("memory-ray")
    assert [each.name for each in witness.available("all")] == HERE
    with pytest.raises(ckpt.UsageError, match="unknown witness 'nobody'"):
        ckpt.sweep("mlp", depths=[2], witness="nobody")


ALL = """
import sys
import numpy as np
import ckpt
here = sys.argv[2:]
x = np.ones((512, 512))
found = ckpt.profile(lambda x: np.sum(np.tanh(np.tanh(x))), x, witness="all")
assert list(found.peaks) == here, found.peaks
assert len(here) == 1 or all(f"measured by {name}" in str(found) for name in here)
found.save(sys.argv[1])
assert ckpt.load_profile(sys.argv[1]).peaks == found.peaks
verified = ckpt.plan(lambda x: np.sum(np.tanh(np.tanh(x))), x).verify(x, witness="all")
print(*verified.peaks)
"""


def test_all_side_by_side(tmp_path: Path) -> None:
    assert fresh(ALL, str(tmp_path / "all.profile.json"), *HERE).split() == HERE


@pytest.mark.parametrize("case", ["once", "always", "in company"])
def test_a_wrong_count_is_the_witness_s_own_where_it_stays_wrong(case: str) -> None:
    """Somebody allocates while an array is filled, as a test runner's thread does that reads."""
    counts = 0

    def fill(nbytes: int) -> Any:
        nonlocal counts
        counts += 1
        beside = list(range(1 << 15)) if case != "once" or counts == 1 else []
        if case == "in company":
            other = threading.Thread(target=lambda: beside.extend(range(1 << 14)))
            other.start()
            other.join()
        return np.full(nbytes, 1, np.uint8), beside

    check = witness.Tracemalloc(fill).check
    if case == "always":
        with pytest.raises(ckpt.VerificationError, match="tracemalloc can't be trusted here"):
            check()
    else:
        check()
        assert counts == (2 if case == "once" else TRIES)


# -- threads ---------------------------------------------------------------------------------------


def test_a_sweep_in_threads_is_that_of_one() -> None:
    options: dict[str, Any] = {
        "depths": [4, 6, 8, 12], "strategies": ["store_all", "per_layer", "sqrt"], "width": 128,
        "batch": 256,
    }  # fmt: skip
    one = ckpt.sweep("mlp", **options)
    with ThreadPoolExecutor(4) as pool:
        many = ckpt.sweep("mlp", executor=pool, **options)
    measured = [pair for pair in zip(one, many, strict=True) if "@" not in pair[0]["strategy"]]
    assert len(measured) >= 12  # the others are predicted
    for alone, among in measured:
        assert among["agrees"]
        assert among["untrusted"] is None
        assert among["gradients_digest"] == alone["gradients_digest"]
        assert among["measured_peak_nbytes"] == pytest.approx(
            alone["measured_peak_nbytes"], abs=16 * KIB
        )


def test_another_thread_that_allocates_puts_a_run_in_doubt() -> None:
    stop = threading.Event()

    def allocate() -> None:
        while not stop.is_set():
            np.ones(1 << 16)

    other = threading.Thread(target=allocate, name="greedy")
    other.start()
    try:
        # longer than the five milliseconds that a thread may keep others waiting
        row = run_point(Point("mlp", 16, "store_all", {"width": 256, "batch": 512}))
        assert "another thread ran meanwhile (greedy)" in str(row["untrusted"])
    finally:
        stop.set()
        other.join()


def test_a_thread_with_the_number_of_one_that_lent_a_hand_is_seen() -> None:
    helper = threading.Thread(target=witness.lending_a_hand)
    helper.start()
    helper.join()
    stop = threading.Event()
    others: list[threading.Thread] = []
    try:
        while helper.ident not in {other.ident for other in others}:  # pthreads gives it again
            others.append(threading.Thread(target=stop.wait, name="fresh"))
            others[-1].start()
            assert len(others) < 1000
        others[-1].name = "again"
        with witness.alone() as company:
            stop.set()
            for other in others:
                other.join()
        assert "(again" in str(company.untrusted)
    finally:
        stop.set()


def test_a_thread_that_sleeps_puts_nothing_in_doubt() -> None:
    wake = threading.Event()
    other = threading.Thread(target=wake.wait, name="asleep")
    other.start()
    try:
        assert other.ident is not None
        clock, last = time.pthread_getcpuclockid(other.ident), -1.0
        while last != (last := time.clock_gettime(clock)):  # until it has come to its wait
            time.sleep(0.02)
        with witness.alone() as company:
            np.ones(1000)
        assert company.untrusted is None
    finally:
        wake.set()
        other.join()


def test_measured_runs_take_turns() -> None:
    inside: list[int] = []

    def run(_: int) -> int:
        with witness.alone():
            inside.append(1)
            time.sleep(0.01)
            most = len(inside)
            inside.pop()
            return most

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(run, range(8))) == {1}


def test_an_eager_gradient_waits_for_nobody() -> None:
    done = threading.Event()
    with witness.alone():
        other = threading.Thread(
            target=lambda: (ckpt.grad(lambda x: np.sum(x * x))(np.ones(3)), done.set())
        )
        other.start()
        assert done.wait(20)
    other.join()
