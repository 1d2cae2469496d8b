"""Where work is done that falls into parts: here, in spawned processes, in any Executor, on Dask.

Whoever has many things to do of which none waits for another - the points of a sweep, the rows of
a frontier, the planners of a portfolio - gives `each` a function of a module and what it takes,
which must be plain data (graphs, schedules, points): both travel to other processes.
"""

from __future__ import annotations

import os
import platform
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from ckpt.errors import UsageError, WorkersError
from ckpt.text import sentence
from ckpt.units import at_least
from ckpt.witness import malloc
from ckpt.workers.beside import beside
from ckpt.workers.cluster import connected, wanted, worker
from ckpt.workers.spawned import WATCH, Spawned, deaf, one_thread, spawned

__all__ = ["begin", "drop", "each", "one_thread", "pool", "result"]

T = TypeVar("T")
R = TypeVar("R")

LISTEN = 0.1
"""Seconds between two looks at whether to go on."""


def each(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    jobs: int | None = None,
    executor: Executor | None = None,
    cluster: str | None = None,
    look: Callable[[], object] | None = None,
) -> Generator[R, None, None]:
    """Yield ``function(item)`` for each item, as the results are made: in any order.

    Where: see `pool`. ``look`` is called now and then while others work; what it raises ends the
    work. So does closing the iterator, as ``contextlib.closing`` does, or any exception: what
    hasn't begun then never does, and our own processes end at once. What ``function`` raises is
    raised here, as it is; a worker that dies, and whatever else goes wrong on the way, is a
    WorkersError.
    """
    with pool(jobs=jobs, executor=executor, cluster=cluster) as there:
        if there is None:
            yield from map(function, items)
        else:
            yield from _results(there, function, items, look)


@contextmanager
def pool(
    *, jobs: int | None = None, executor: Executor | None = None, cluster: str | None = None
) -> Iterator[Executor | None]:
    """The Executor that is meant, closed again if it was opened here; None: this process.

    ``jobs`` are that many spawned processes of one BLAS thread each, which keep the pages they
    have. ``executor`` is anybody's, ready to use. ``cluster`` is the address of a Dask scheduler
    (``tcp://host:8786``), whose workers can import `ckpt`. In a worker that has threads of its own
    at work, as Dask's have, all is done in a process like our own beside it, also where Dask's
    threads are in this process; others have the BLAS threads that they have, and malloc is told to
    keep its pages.
    """
    if sum(given is not None for given in (jobs, executor, cluster)) > 1:
        raise UsageError("jobs, executor and cluster say the same: give one of them")
    if jobs is not None:
        with spawned(at_least(1, "jobs", jobs)) as there:
            yield there
    elif cluster is not None:
        with connected(cluster) as there:
            yield there
    else:
        yield executor


def _results(
    executor: Executor,
    function: Callable[[T], R],
    items: Sequence[T],
    look: Callable[[], object] | None,
) -> Generator[R, None, None]:
    waiting: set[Future[Any]] = set()
    try:
        for item in items:
            waiting.add(begin(executor, function, item))
        while waiting:
            ready, waiting = wait(
                waiting, None if look is None else LISTEN, return_when=FIRST_COMPLETED
            )
            if look is not None:
                look()
            for future in sorted(ready, key=_failed):  # what is done counts
                yield result(future)
    finally:
        drop(executor, waiting)


def begin(executor: Executor, function: Callable[[T], R], item: T) -> Future[Any]:
    """``function(item)`` there, for `result`."""
    try:
        with deaf():
            return executor.submit(_done, _place(), function, item)
    except Exception as error:
        raise _broken(error) from None


def result(future: Future[Any]) -> Any:
    """What the function gave, or raised; a WorkersError is the executor's."""
    try:
        made, found = future.result()
    except (Exception, CancelledError) as error:
        raise _broken(error) from None
    if not made:
        raise found
    return found


def drop(executor: Executor, begun: Iterable[Future[Any]]) -> None:
    """Nobody waits for these any more."""
    if isinstance(executor, Spawned):
        if not all(future.done() for future in begun):
            executor.end()
        return
    for future in begun:
        future.cancel()


def _failed(future: Any) -> bool:
    return future.cancelled() or future.exception() is not None


def _done(asking: tuple[str, int], function: Callable[[T], R], item: T) -> tuple[bool, Any]:
    """In a worker: whether that went well, and what it gave or raised. So whatever else is raised
    is the executor's."""
    host, away = worker(), asking != _place()
    if host is not None or (away and _others_run()):
        return beside(wanted(host), _tried, function, item)  # type: ignore[no-any-return]
    if away:
        _keep_pages()
    return _tried(function, item)


def _others_run() -> bool:
    mine = threading.current_thread()
    return any(thread is not mine and thread.name != WATCH for thread in threading.enumerate())


def _tried(function: Callable[[T], R], item: T) -> tuple[bool, Any]:
    try:
        return True, function(item)
    except Exception as error:
        error.add_note(f"in a worker:\n{traceback.format_exc()}")
        return False, error


def _place() -> tuple[str, int]:
    return platform.node(), os.getpid()


@cache
def _keep_pages() -> None:
    """Once in a process."""
    malloc.keep_pages()


def _broken(error: BaseException) -> WorkersError:
    """What an executor raised by itself, in a line."""
    if isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker":
        return WorkersError(
            "a worker process died, most likely for want of memory: take fewer jobs at a time, or "
            f"smaller ones (such as --jobs 1, a smaller --batch, --width or --depth) "
            f"({sentence(error)})"
        )
    return WorkersError(f"the workers didn't do it: {sentence(error)}")
