"""The same sweep on loky's processes and on a Dask cluster of two; and what goes wrong there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ckpt
from ckpt import workers
from ckpt.errors import BudgetError, WorkersError
from ckpt.studies.sweep import plan, run
from ckpt.witness import malloc
from ckpt.workers import cluster as dask_cluster
from ckpt.workers.spawned import WATCH
from tests.cli.running import spawn
from tests.cli.test_process import family
from tests.graphs import lstm, unet
from tests.test_workers import (
    STRATEGIES,
    assert_same,
    double,
    refuse,
    sleep,
    thresholds,
    wait_for,
)

distributed: Any = pytest.importorskip("distributed")
dask: Any = pytest.importorskip("dask")
loky: Any = pytest.importorskip("loky")
pytestmark = pytest.mark.filterwarnings("default")  # those of others

POINTS = plan(depths=[3, 6], strategies=STRATEGIES, width=32, batch=2048)


@pytest.fixture(scope="module")
def here() -> list[dict[str, Any]]:
    """The rows of a process in which nothing else runs."""
    return run(POINTS, jobs=1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as made:
        yield made


def test_rows_are_the_same_on_a_cluster(here: list[dict[str, Any]], cluster: Any) -> None:
    told: list[Any] = []
    there = run(POINTS, cluster=cluster.scheduler_address, on_row=told.append)
    assert_same(here, there)
    assert len(told) == len(POINTS)


def test_rows_are_the_same_on_loky(here: list[dict[str, Any]]) -> None:
    with loky.ProcessPoolExecutor(2) as there:
        assert_same(here, run(POINTS, executor=there))


def test_a_plan_is_the_same_on_a_cluster_and_on_loky(cluster: Any) -> None:
    graph = unet(2)
    here = ckpt.plan(graph, budget="80%", time_limit=None).as_json()["digest"]
    with loky.ProcessPoolExecutor(2) as processes:
        for there in ({"cluster": cluster.scheduler_address}, {"executor": processes}):
            found = ckpt.plan(graph, budget="80%", time_limit=None, **there)
            assert found.as_json()["digest"] == here


FRONTIER: dict[str, Any] = {"planners": ["sqrt", "chain"], "points": 3}


def untimed(found: ckpt.Frontier) -> list[dict[str, Any]]:
    return [{**row, "planning_seconds": None} for row in found.rows]


def test_a_frontier_is_the_same_on_a_cluster_and_on_loky(cluster: Any) -> None:
    graph = lstm(4)
    here = ckpt.frontier(graph, **FRONTIER)
    with loky.ProcessPoolExecutor(2) as processes:
        for there in ({"cluster": cluster.scheduler_address}, {"executor": processes}):
            found = ckpt.frontier(graph, **FRONTIER, **there)
            assert untimed(found) == untimed(here)
            assert (found.bounds, found.schedules) == (here.bounds, here.schedules)


def test_a_frontier_on_loky_whose_worker_dies_keeps_its_rows_and_goes_on() -> None:
    graph = lstm(4)
    kept: list[dict[str, Any]] = []
    with loky.ProcessPoolExecutor(1) as there:

        def kill(row: dict[str, Any]) -> None:
            kept.append(row)
            for pid in [] if len(kept) > 1 else list(there._processes):
                os.kill(pid, signal.SIGKILL)

        with pytest.raises(WorkersError, match="a worker process died") as caught:
            ckpt.frontier(graph, **FRONTIER, executor=there, on_row=kill)
    assert "\n" not in str(caught.value)
    known = [{**row, "planning_seconds": 99.0} for row in kept]
    with loky.ProcessPoolExecutor(1) as there:
        found = ckpt.frontier(graph, **FRONTIER, known=known, executor=there)
    assert sum(row["planning_seconds"] == 99.0 for row in found.rows) == len(known) > 0
    assert [row["recompute_flops"] for row in found.rows] == [
        row["recompute_flops"] for row in ckpt.frontier(graph, **FRONTIER).rows
    ]


def test_work_on_a_cluster_is_done_beside_its_workers(cluster: Any) -> None:
    """Their own threads are at work all the time, and a nanny sets one of malloc's variables."""
    [there] = workers.each(facts, [0], cluster=cluster.scheduler_address)
    assert there == (["MainThread", WATCH], "1", malloc.keeping())


def facts(item: int) -> tuple[list[str], str | None, dict[str, str | None]]:
    names = [thread.name for thread in threading.enumerate()]
    return names, os.environ.get("OMP_NUM_THREADS"), thresholds(item)


def test_a_worker_with_two_threads_does_two_things_at_a_time() -> None:
    with distributed.LocalCluster(1, threads_per_worker=2, dashboard_address=None) as wide:
        list(workers.each(sleep, [0.0, 0.0], cluster=wide.scheduler_address))  # they have begun
        began = time.monotonic()
        list(workers.each(sleep, [2.0, 2.0], cluster=wide.scheduler_address))
        assert time.monotonic() - began < 3.9


def test_what_a_function_raises_is_raised_here(cluster: Any) -> None:
    with pytest.raises(BudgetError, match="no plan for 3") as caught:
        list(workers.each(refuse, [3], cluster=cluster.scheduler_address))
    assert caught.value.smallest == 7


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_there_twice(
    cluster: Any, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    pids = list(cluster.scheduler_info["workers"])
    told: list[tuple[int, str]] = []

    def kill(row: dict[str, Any]) -> None:
        told.append((row["depth"], row["strategy"]))
        if len(told) == 1:
            with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
                os.kill(client.run(os.getpid, workers=pids[:1])[pids[0]], signal.SIGKILL)

    rows = run(POINTS, path=path, cluster=cluster.scheduler_address, on_row=kill)
    assert sorted(told) == sorted(point.key for point in POINTS)
    assert path.read_text().count("\n") == len(POINTS)
    assert all(row["gradients_equal"] for row in rows)


def end(item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_work_that_kills_its_workers_is_told_of_in_a_line() -> None:
    with loky.ProcessPoolExecutor(1) as there, pytest.raises(WorkersError, match="process died"):
        list(workers.each(end, [3], executor=there))
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(1, threads_per_worker=1, dashboard_address=None) as short,
        pytest.raises(WorkersError, match="a worker process died") as caught,
    ):
        list(workers.each(end, [3], cluster=short.scheduler_address))
    assert "\n" not in str(caught.value)


def test_a_scheduler_that_goes_away_is_told_of_in_a_line() -> None:
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None
    ) as short:
        made = workers.each(sleep, [0.0, 60.0], cluster=short.scheduler_address)
        assert next(made) == 0.0
        short.close()
        with pytest.raises(WorkersError) as caught:
            next(made)
    assert "\n" not in str(caught.value)


def test_a_command_on_a_cluster(cluster: Any, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "ckpt", "sweep", "--depth", "4", "--points", "1", "--width", "16",
        "--batch", "64", "--cluster", cluster.scheduler_address, "-o", "s.csv",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ points were run: \d+ with store_all's gradients", done.stdout)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)],
)
def test_who_stops_keeps_the_rows_and_the_cluster_stops_too(
    cluster: Any, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    command = ["sweep", "--depth", "120", "--points", "4", "--width", "16", "-o", "s.csv"]
    process = spawn(*command, "--cluster", cluster.scheduler_address, folder=tmp_path)
    journal = tmp_path / "s.partial.jsonl"
    wait_for(lambda: journal.read_text().splitlines() if journal.exists() else [], 1)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert err.splitlines()[-1] == ("interrupted" if number == signal.SIGINT else "stopped")
    assert len(err.splitlines()) <= 2
    assert all(json.loads(row) for row in journal.read_text().splitlines())
    wait_for(lambda: [True] if not busy(cluster) else [], 1)


def spin(seconds: float) -> float:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return seconds


def test_what_nobody_waits_for_any_more_ends_on_a_cluster(cluster: Any) -> None:
    made = workers.each(spin, [0.0, 300.0, 300.0], cluster=cluster.scheduler_address)
    assert next(made) == 0.0
    wait_for(lambda: busy(cluster), 2)
    made.close()
    wait_for(lambda: [True] if not busy(cluster) else [], 1)
    assert sorted(workers.each(double, [1, 2], cluster=cluster.scheduler_address)) == [2, 4]


def busy(cluster: Any) -> list[int]:
    """The processes beside the cluster's workers that are at work."""
    with distributed.Client(cluster.scheduler_address, set_as_default=False) as client:
        workers = client.run(os.getpid).values()
    beside = [pid for worker in workers for pid in family(worker)]
    before = {pid: seconds_of(pid) for pid in beside}
    time.sleep(0.5)
    return [pid for pid in beside if seconds_of(pid) > before[pid]]


def seconds_of(pid: int) -> float:
    try:
        found = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0
    return float(found[11]) + float(found[12])


def test_no_scheduler_and_no_workers_are_told_of_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "CONNECT_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(WorkersError, match="no Dask scheduler answers at tcp") as bad:
        list(workers.each(double, [1], cluster="tcp://127.0.0.1:9"))
    assert "\n" not in str(bad.value)
    assert time.monotonic() - began < 30
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=None) as empty,
        pytest.raises(WorkersError, match="has no workers; start some with: dask worker"),
    ):
        list(workers.each(double, [1], cluster=empty.scheduler_address))
    with pytest.raises(WorkersError, match="no Dask scheduler answers at nonsense"):
        list(workers.each(double, [1], cluster="nonsense://x"))
