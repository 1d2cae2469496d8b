"""The portfolio on workers: the plan of one process, and none of them outlives it."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest

import ckpt
from ckpt.errors import BudgetError, WorkersError
from ckpt.graph import Graph
from ckpt.planners import planner, resolve_budget
from ckpt.planners.base import registry
from ckpt.planners.base.clock import Deadline
from ckpt.planners.search import ahead
from tests.graphs import lstm, zoo


class Backwards(Executor):
    """Does what it is given last to first, and only once someone waits."""

    def __init__(self) -> None:
        self.given: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.names: list[str] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = _Lazy(self)
        self.given.append((future, lambda: fn(*args, **kwargs)))
        self.names.append(args[2][1].__name__)
        return future

    def work(self) -> None:
        while self.given:
            future, do = self.given.pop()
            if future.set_running_or_notify_cancel():
                future.set_result(do())


class _Lazy(Future[Any]):
    def __init__(self, executor: Backwards) -> None:
        super().__init__()
        self.executor = executor

    def done(self) -> bool:
        if not self.cancelled() and not super().done():
            self.executor.work()
        return super().done()


def document(graph: Graph, budget: int | str, **options: Any) -> Any:
    """All that a plan says, or why there is none."""
    try:
        found = ckpt.plan(graph, budget=budget, time_limit=None, **options).as_json()
    except BudgetError as error:
        return str(error), error.smallest
    del found["environment"]
    return found


QUICK = ("unet", "views")
GRAPHS = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in zoo()]


@pytest.mark.parametrize("budget", ["80%", "45%", "10%"])
@pytest.mark.parametrize("name", GRAPHS)
def test_whatever_ends_first_the_plan_is_that_of_one_process(name: str, budget: str) -> None:
    graph = zoo()[name]
    options = {"iterations": 40}
    here = document(graph, budget, **options)
    there = Backwards()
    assert document(graph, budget, executor=there, **options) == here
    if budget == "45%":
        assert "_plan" in there.names


def test_processes_and_threads_give_the_same_plan() -> None:
    graph = lstm(8)
    here = document(graph, "70%")
    assert "digest" in here
    assert document(graph, "70%", jobs=2) == here
    assert multiprocessing.active_children() == []
    with ThreadPoolExecutor(3) as threads:
        assert document(graph, "70%", executor=threads) == here


@pytest.fixture
def own() -> Iterator[list[Callable[[], object]]]:
    """A planner of one's own, which stays here, and what it does."""
    acts: list[Callable[[], object]] = []

    @planner("own")
    def own(graph: Graph, budget: int | None = None) -> ckpt.Schedule:
        for act in acts:
            act()
        raise BudgetError("none")

    yield acts
    del registry._REGISTRY["own"]


def kill_all() -> None:
    for child in multiprocessing.active_children():
        child.kill()


def test_a_worker_that_dies_is_told_of_in_a_line(own: list[Callable[[], object]]) -> None:
    own.append(kill_all)
    with pytest.raises(WorkersError, match="a worker process died") as caught:
        ckpt.plan(lstm(12), budget="45%", jobs=1)
    assert "\n" not in str(caught.value)
    assert multiprocessing.active_children() == []


def never(*_: Any) -> Any:
    time.sleep(60)


@pytest.mark.parametrize("how", ["time", "asked", "ctrl-c"])
def test_who_is_stopped_has_the_best_so_far_and_leaves_nobody_at_work(
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    own: list[Callable[[], object]],
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr(ahead, "_improve", never)
    graph = lstm(12)
    began = time.monotonic()
    deadline = Deadline()
    own.append(lambda: deadline.stop("asked") if how == "asked" else None)
    if how == "ctrl-c":  # started in a shell's background, Python takes no notice of it
        was = signal.signal(signal.SIGINT, signal.default_int_handler)
        request.addfinalizer(lambda: signal.signal(signal.SIGINT, was))
        own.append(lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            ckpt.plan(graph, budget="45%", jobs=1)
    else:
        limit = 3.0 if how == "time" else 60.0
        with deadline.running():
            found = ckpt.plan(graph, budget="45%", jobs=1, time_limit=limit)
        assert found.schedule.notes["stopped_early"] == (
            "asked" if how == "asked" else "time limit of 3 s"
        )
        assert found.timeline.peak <= (resolve_budget(graph, "45%")[0] or 0)
    assert time.monotonic() - began < 20
    assert multiprocessing.active_children() == []
