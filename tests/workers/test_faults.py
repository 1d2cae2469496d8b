"""On loky and on a Dask cluster: a worker dies at work, or whoever asked leaves meanwhile."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import ckpt
from ckpt import workers
from ckpt.errors import WorkersError
from ckpt.studies.sweep import plan, run
from tests.cli.running import spawn
from tests.cli.test_process import family
from tests.graphs import lstm, unet
from tests.workers.test_workers import STRATEGIES, double, sleep, wait_for

distributed: Any = pytest.importorskip("distributed")
dask: Any = pytest.importorskip("dask")
loky: Any = pytest.importorskip("loky")
pytestmark = pytest.mark.filterwarnings("default")  # those of others

FRONTIER: dict[str, Any] = {"planners": ["sqrt", "chain"], "points": 3}


class Deadly(Executor):
    """One whose worker dies at the task after so many others, in the middle of it."""

    def __init__(self, there: Executor, folder: Path, others: int) -> None:
        self.there = there
        self.fate = folder, others

    def submit(self, function: Any, /, *args: Any, **_: Any) -> Future[Any]:
        return self.there.submit(die_at, self.fate, function, *args)


def die_at(fate: tuple[Path, int], function: Callable[..., Any], *args: Any) -> Any:
    folder, others = fate
    if next(k for k in count() if made(folder / f"task{k}")) == others:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*args)


def made(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a cluster the fourth task kills its worker, and is tried again on another one."""
    connected = workers.connected

    @contextmanager
    def also(address: str) -> Iterator[Executor]:
        with connected(address) as there:
            yield Deadly(there, tmp_path, others=3)

    monkeypatch.setattr(workers, "connected", also)


def died_of(folder: Path) -> bool:
    """Did a worker die, and its task come to another?"""
    return (folder / "task4").exists()


def untimed(found: ckpt.Frontier) -> list[dict[str, Any]]:
    return [{**row, "planning_seconds": None} for row in found.rows]


@pytest.mark.usefixtures("deadly")
def test_a_sweep_on_a_cluster_that_loses_a_worker_has_each_point_once(
    cluster: Any, tmp_path: Path
) -> None:
    points = plan(depths=[3, 6], strategies=STRATEGIES, width=32, batch=2048)
    path = tmp_path / "rows.jsonl"
    told: list[tuple[int, str]] = []
    rows = run(
        points, path=path, cluster=cluster.scheduler_address,
        on_row=lambda row: told.append((row["depth"], row["strategy"])),
    )  # fmt: skip
    assert died_of(tmp_path)
    assert sorted(told) == sorted(point.key for point in points)
    assert path.read_text().count("\n") == len(points)
    assert all(row["gradients_equal"] for row in rows)


@pytest.mark.usefixtures("deadly")
def test_a_frontier_on_a_cluster_that_loses_a_worker_is_the_same(
    cluster: Any, tmp_path: Path
) -> None:
    told: list[tuple[str, int]] = []
    found = ckpt.frontier(
        lstm(4), **FRONTIER, cluster=cluster.scheduler_address,
        on_row=lambda row: told.append((row["planner"], row["budget_nbytes"])),
    )  # fmt: skip
    assert died_of(tmp_path)
    assert untimed(found) == untimed(ckpt.frontier(lstm(4), **FRONTIER))
    assert len(set(told)) == len(told) == len(found.rows)


@pytest.mark.usefixtures("deadly")
def test_a_plan_on_a_cluster_that_loses_a_worker_is_the_same(cluster: Any, tmp_path: Path) -> None:
    how: dict[str, Any] = {"budget": "80%", "time_limit": None}
    found = ckpt.plan(unet(2), **how, cluster=cluster.scheduler_address)
    assert died_of(tmp_path)
    assert found.as_json()["digest"] == ckpt.plan(unet(2), **how).as_json()["digest"]


def test_a_plan_on_loky_whose_worker_dies_says_so_in_a_line(tmp_path: Path) -> None:
    with (
        loky.ProcessPoolExecutor(2) as there,
        pytest.raises(WorkersError, match="a worker process died") as caught,
    ):
        ckpt.plan(unet(2), budget="80%", executor=Deadly(there, tmp_path, others=1))
    assert "\n" not in str(caught.value)


def test_a_frontier_on_loky_whose_worker_dies_keeps_its_rows_and_goes_on(tmp_path: Path) -> None:
    kept: list[dict[str, Any]] = []
    with loky.ProcessPoolExecutor(1) as there:
        dying = Deadly(there, tmp_path, others=5)
        with pytest.raises(WorkersError, match="a worker process died") as caught:
            ckpt.frontier(lstm(4), **FRONTIER, executor=dying, on_row=kept.append)
    assert "\n" not in str(caught.value)
    known = [{**row, "planning_seconds": 99.0} for row in kept]
    with loky.ProcessPoolExecutor(1) as there:
        found = ckpt.frontier(lstm(4), **FRONTIER, known=known, executor=there)
    assert sum(row["planning_seconds"] == 99.0 for row in found.rows) == len(known) > 0
    assert untimed(found) == untimed(ckpt.frontier(lstm(4), **FRONTIER))


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


# -- whoever asked leaves --------------------------------------------------------------------------

SWEEP = "sweep --depth 120 --points 4 --width 16 -o s.csv"
FRONTIERS = "frontier gpt2 --no-measure --planners sqrt,auto --iterations 10000 -o s.csv"


@pytest.mark.parametrize("command", [SWEEP, FRONTIERS], ids=["sweep", "frontier"])
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)],
)
def test_who_stops_keeps_the_rows_and_the_cluster_stops_too(
    cluster: Any, tmp_path: Path, command: str, number: signal.Signals, code: int
) -> None:
    process = spawn(*command.split(), "--cluster", cluster.scheduler_address, folder=tmp_path)
    journal = tmp_path / "s.partial.jsonl"
    wait_for(lambda: journal.read_text().splitlines() if journal.exists() else [], 1)
    wait_for(lambda: busy(cluster), 1)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert err.splitlines()[-1] == ("interrupted" if number == signal.SIGINT else "stopped")
    assert len(err.splitlines()) <= 2
    assert all(json.loads(row) for row in journal.read_text().splitlines())
    wait_for(lambda: [True] if not busy(cluster) else [], 1)


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [(signal.SIGTERM, 143, ""), (signal.SIGINT, 0, "holds ")],
)
def test_who_stops_a_plan_has_the_best_there_is_and_the_cluster_stops_too(
    cluster: Any, tmp_path: Path, number: signal.Signals, code: int, says: str
) -> None:
    """Ctrl-C asks for what there is by then, and somebody who ends the command for nothing."""
    process = spawn(
        "plan", "gpt2", "--budget", "30%", "--cluster", cluster.scheduler_address, folder=tmp_path
    )
    wait_for(lambda: busy(cluster), 2)  # of one there may be a plan yet or not
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert out.startswith(says) and bool(out) == bool(says)
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
