"""Work that is done elsewhere: the same results in any executor, and whoever dies is told of."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from ckpt import errors, workers
from ckpt.errors import BudgetError, CkptError, MissingExtraError, UsageError, WorkersError
from ckpt.studies.points import Point, run_point
from ckpt.studies.sweep import plan, run
from ckpt.witness import malloc
from ckpt.workers.spawned import WATCH

beside: Any = import_module("ckpt.workers.beside")

SMALL: dict[str, Any] = {"width": 16, "batch": 64}
STRATEGIES = ["store_all", "per_layer", "sqrt"]


def double(item: int) -> int:
    return 2 * item


def refuse(item: int) -> int:
    raise BudgetError(f"no plan for {item}", 7, "compute x")


def fail(item: int) -> int:
    raise ZeroDivisionError(f"of {item}")


def die_of_one(answered: Path, item: int) -> int:
    """The process that is asked for 1 ends, once the other has had its answer for a while."""
    if not item:
        answered.touch()
        return item
    while not answered.exists():
        time.sleep(0.05)
    time.sleep(2)
    os._exit(9)


def sleep(item: float) -> float:
    time.sleep(item)
    return item


def thresholds(_: int) -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in malloc.VARIABLES}


def processes(number: int) -> ProcessPoolExecutor:
    """As a user makes one."""
    return ProcessPoolExecutor(number, multiprocessing.get_context("spawn"))


@pytest.mark.parametrize("where", ["here", "jobs", "threads", "processes"])
def test_each_gives_all_and_raises_what_the_function_raised(where: str) -> None:
    with ThreadPoolExecutor(2) as threads, processes(1) as others:
        given: dict[str, Any] = {
            "here": {}, "jobs": {"jobs": 2}, "threads": {"executor": threads},
            "processes": {"executor": others},
        }[where]  # fmt: skip
        assert sorted(workers.each(double, range(5), **given)) == [0, 2, 4, 6, 8]
        with pytest.raises(BudgetError, match="no plan for 3") as caught:
            list(workers.each(refuse, [3], **given))
        assert (caught.value.smallest, caught.value.instruction) == (7, "compute x")
        with pytest.raises(ZeroDivisionError, match="of 3"):
            list(workers.each(fail, [3], **given))


def test_where_is_said_once() -> None:
    with pytest.raises(UsageError, match="give one of them"):
        list(workers.each(double, [1], jobs=1, cluster="tcp://localhost:1"))


def test_rows_are_the_same_in_an_executor_but_for_times() -> None:
    points = plan(depths=[3, 6], strategies=STRATEGIES, **SMALL)
    here = run(points)
    with processes(2) as executor:
        there = run(points, executor=executor)
    assert_same(here, there)


def assert_same(here: list[dict[str, Any]], there: list[dict[str, Any]]) -> None:
    """But for times, and what a witness sees, within a hundredth and 64 KiB."""
    for a, b in zip(here, there, strict=True):
        for name, value in a.items():
            if name.endswith("seconds"):
                continue
            if value and name.endswith("peak_nbytes") and not name.startswith("predicted"):
                assert b[name] == pytest.approx(value, rel=0.01, abs=64 * 1024), name
            else:
                assert b[name] == value, name


def test_a_worker_that_dies_is_told_of_in_a_line_and_what_was_done_before_counts(
    tmp_path: Path,
) -> None:
    found = []
    with (
        pytest.raises(WorkersError, match="a worker process died") as caught,
        closing(workers.each(partial(die_of_one, tmp_path / "answered"), [1, 0], jobs=2)) as made,
    ):
        found.extend(made)
    assert found == [0]
    assert "\n" not in str(caught.value)


def test_a_sweep_whose_worker_is_killed_keeps_its_rows_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    points = plan(depths=[3, 6], strategies=STRATEGIES, **SMALL)
    kept: list[dict[str, Any]] = []

    def kill(row: dict[str, Any]) -> None:
        kept.append(row)
        if len(kept) == 2:
            for child in multiprocessing.active_children():
                child.kill()

    with pytest.raises(WorkersError):
        run(points, path=path, jobs=1, on_row=kill)
    assert 2 <= len(kept) < len(points)
    assert path.read_text().count("\n") == len(kept)
    told: list[tuple[int, str]] = []
    rows = run(points, path=path, jobs=1, on_row=lambda r: told.append((r["depth"], r["strategy"])))
    assert sorted(told) == sorted(point.key for point in points)  # each once
    assert path.read_text().count("\n") == len(points)
    seconds = {(row["depth"], row["strategy"]): row["seconds"] for row in rows}
    assert all(seconds[row["depth"], row["strategy"]] == row["seconds"] for row in kept)
    assert all(row["gradients_equal"] for row in rows)


def test_what_can_not_travel_is_told_of_in_a_line() -> None:
    with pytest.raises(WorkersError, match=r"the workers didn't do it: .*([Pp]ickle|local object)"):
        list(workers.each(lambda item: item, [1], jobs=1))


def test_whoever_waits_can_be_called_away() -> None:
    def look() -> None:
        if time.monotonic() - began > 2:
            raise CkptError("time is up")

    began = time.monotonic()
    with pytest.raises(CkptError, match="time is up"):
        list(workers.each(sleep, [60.0], jobs=1, look=look))
    assert time.monotonic() - began < 20
    assert multiprocessing.active_children() == []


def test_workers_keep_their_pages() -> None:
    [there] = workers.each(thresholds, [0], jobs=1)
    assert there == malloc.keeping()
    assert set(there) == {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}


MAPPED = """
import ctypes, sys
from ckpt.witness import malloc
libc = ctypes.CDLL(None)
libc.mallinfo2.restype = type("Info", (ctypes.Structure,), {
    "_fields_": [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd".split()
                 + ["a", "b", "c", "d", "e"]]})
def mapped():
    held = bytearray(4 << 20)
    return libc.mallinfo2().hblkhd
before = mapped()
malloc.keep_pages()
print(before, mapped())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallinfo2 is glibc's")
def test_a_process_that_runs_already_is_told_to_keep_its_pages() -> None:
    """As Dask's nanny starts it, each array of it is mapped anew, and zeroed."""
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(
        [sys.executable, "-c", MAPPED], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert before >= 4 << 20
    assert after < 4 << 20


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal")
def test_workers_do_not_outlive_whoever_asked(tmp_path: Path) -> None:
    program = (
        "from ckpt import workers\nfrom tests.workers.test_workers import announce\n"
        f"list(workers.each(announce, [{str(tmp_path)!r}] * 2, jobs=2))"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    found = wait_for(lambda: [int(path.name) for path in tmp_path.iterdir()], 2)
    process.kill()
    process.wait()
    wait_for(lambda: [pid for pid in found if not alive(pid)], 2)


def announce(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)


def wait_for(look: Any, number: int) -> list[int]:
    """What ``look`` finds, when that are so many."""
    end = time.monotonic() + 30
    while len(found := look()) < number:
        assert time.monotonic() < end, found
        time.sleep(0.05)
    return list(found)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # of an orphan, whoever adopts it may take its time


def test_who_looks_late_ends_nothing_that_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wants a task any more whose answer came while someone looked whether it is wanted."""
    looking, answered = threading.Event(), threading.Event()

    def late() -> bool:
        looking.set()
        return not answered.wait(20)

    monkeypatch.setattr(beside, "LISTEN", 0.0)
    assert beside.beside(late, double, 2) == 4
    assert looking.is_set()
    child = beside._mine.child
    answered.set()
    for thread in threading.enumerate():
        if thread.name == WATCH and thread.daemon:
            thread.join()
    assert beside.beside(lambda: True, double, 3) == 6
    assert beside._mine.child is child
    with child:
        child.kill()


def test_every_error_travels() -> None:
    kinds = [
        kind for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, CkptError)
    ]  # fmt: skip
    assert len(kinds) > 12
    made = [k("words") for k in kinds if k is not MissingExtraError]
    made += [MissingExtraError("scipy", "ilp", "ilp")]
    made[0].__dict__["smallest"] = 3
    for error in made:
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_points_are_small_data() -> None:
    point = Point("mlp", 3, "sqrt", {"width": 8})
    assert len(pickle.dumps((run_point, point))) < 1000


def test_who_stops_hears_nothing_of_what_was_waiting() -> None:
    """Of eight items one is begun and the others wait when the first look stops them, and the pool
    learns of its worker's death before it is shut down."""
    code = """
import time
from concurrent.futures import ProcessPoolExecutor
from ckpt import workers

def stop():
    raise KeyboardInterrupt

def later(self, **options):
    time.sleep(1)
    shutdown(self, **options)

if __name__ == "__main__":
    shutdown, ProcessPoolExecutor.shutdown = ProcessPoolExecutor.shutdown, later
    try:
        for _ in workers.each(time.sleep, [20.0] * 8, jobs=1, look=stop):
            pass
    except KeyboardInterrupt:
        print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("stopped\n", "")


def test_the_hint_says_what_would_keep_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(malloc, "_glibc", lambda: (2, 36))
    for name in malloc.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert malloc.hint(malloc.LARGE - 1) is None
    for name, value in malloc.keeping().items():
        assert f"{name}={value}" in str(malloc.hint(malloc.LARGE))
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
    assert "half, as MALLOC_TRIM_THRESHOLD_ is set alone" in str(malloc.hint(malloc.LARGE))
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    assert malloc.hint(malloc.LARGE) is None
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_")
    monkeypatch.setattr(malloc, "_glibc", lambda: ())
    assert malloc.hint(malloc.LARGE) is None
