"""The same rows and plans on loky's processes, on a Dask cluster of two, and in Dask's threads."""

from __future__ import annotations

import logging
import os
import re
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
from tests.graphs import lstm, unet
from tests.workers.test_workers import (
    STRATEGIES,
    assert_same,
    double,
    refuse,
    sleep,
    thresholds,
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


def test_rows_are_the_same_on_a_cluster(here: list[dict[str, Any]], cluster: Any) -> None:
    told: list[Any] = []
    there = run(POINTS, cluster=cluster.scheduler_address, on_row=told.append)
    assert_same(here, there)
    assert len(told) == len(POINTS)


@pytest.mark.parametrize("name", ["distributed.batched", "tornado.application"])
def test_dask_logs_nothing_of_a_connection_that_ends(cluster: Any, name: str) -> None:
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append  # type: ignore[method-assign]
    log = logging.getLogger(name)
    log.addHandler(handler)
    try:
        with dask_cluster.connected(cluster.scheduler_address):
            log.error("of ours")
        assert said == []
        log.error("of somebody else's")
        assert len(said) == 1
    finally:
        log.removeHandler(handler)


def test_rows_are_the_same_on_loky(here: list[dict[str, Any]]) -> None:
    with loky.ProcessPoolExecutor(2) as there:
        assert_same(here, run(POINTS, executor=there))


@pytest.fixture(scope="module")
def threads() -> Iterator[Any]:
    """A cluster in this process."""
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=4, processes=False, dashboard_address=None
    ) as made:
        yield made


def test_of_twelve_points_on_a_cluster_of_threads_none_is_wrong(threads: Any) -> None:
    points = plan(depths=[3, 4, 5, 6], strategies=STRATEGIES, width=32, batch=2048)
    here = run(points, jobs=1)
    with distributed.Client(threads.scheduler_address, set_as_default=False) as client:
        for there in (
            {"cluster": threads.scheduler_address},
            {"executor": client.get_executor(pure=False)},
        ):
            found = run(points, **there)
            assert_same(here, found)
            assert all(row["agrees"] and row["untrusted"] is None for row in found)
    assert len(here) == 12


def test_a_frontier_and_a_plan_are_the_same_on_a_cluster_of_threads(threads: Any) -> None:
    there = {"cluster": threads.scheduler_address}
    assert untimed(ckpt.frontier(lstm(4), **FRONTIER, **there)) == untimed(
        ckpt.frontier(lstm(4), **FRONTIER)
    )
    how: dict[str, Any] = {"budget": "80%", "time_limit": None}
    assert (
        ckpt.plan(unet(2), **how, **there).as_json()["digest"]
        == ckpt.plan(unet(2), **how).as_json()["digest"]
    )


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


def test_a_command_on_a_cluster(cluster: Any, tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "ckpt", "sweep", "--depth", "4", "--points", "1", "--width", "16",
        "--batch", "64", "--cluster", cluster.scheduler_address, "-o", "s.csv",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ points were run: \d+ with store_all's gradients", done.stdout)
    assert "Traceback" not in done.stderr


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
