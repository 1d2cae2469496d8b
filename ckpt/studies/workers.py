"""Where the points of a study run: in this process, in spawned ones, or in a cluster's."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import Any

from ckpt.errors import StepMemoryError
from ckpt.units import at_least

_THREADS = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

_KEPT = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""Above these glibc gives pages back at each free, and takes them anew, zeroed: strategies that
free more would seem slower than they are."""

_SETTINGS = {**dict.fromkeys(_THREADS, "1"), **dict.fromkeys(_KEPT, str(2**34))}


@contextmanager
def one_thread() -> Iterator[None]:
    """Processes spawned in this block get one BLAS thread each, and keep the pages they have."""
    before = {name: os.environ.get(name) for name in _SETTINGS}
    os.environ.update(_SETTINGS)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def each(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    jobs: int | None = None,
    executor: Executor | None = None,
) -> Generator[Any, None, None]:
    """Yield ``function(item)`` for each item, as the results are made.

    In this process, one after the other; with ``jobs``, in that many spawned processes of one BLAS
    thread each, one item at a time in a process; or in ``executor``, whoever made it. Stopping
    early (an exception, Ctrl-C, closing the iterator) cancels what hasn't begun.
    """
    if executor is not None:
        yield from _results(executor, function, items)
    elif jobs is None:
        yield from map(function, items)
    else:
        yield from _spawned(function, items, jobs)


def _spawned(function: Callable[[Any], Any], items: Sequence[Any], jobs: int) -> Iterator[Any]:
    jobs = at_least(1, "jobs", jobs)
    others = set(active_children())
    with one_thread():
        pool = ProcessPoolExecutor(
            min(jobs, max(len(items), 1)), get_context("spawn"), initializer=_ignore_interrupts
        )
        try:
            yield from _results(pool, function, items)
        except BrokenProcessPool:
            raise StepMemoryError(
                "a worker process died, most likely for want of memory: use --jobs 1, or a "
                "smaller --batch, --width or --depth"
            ) from None
        except BaseException:
            # What a worker is at can take minutes; nobody waits for its result any more.
            for process in set(active_children()) - others:
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _results(
    executor: Executor, function: Callable[[Any], Any], items: Sequence[Any]
) -> Iterator[Any]:
    with _deaf():
        futures = [executor.submit(function, item) for item in items]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


@contextmanager
def _deaf() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal; only the first one decides what to do.

    Processes spawned in this block never hear it, from their very start on; this one hears it when
    the block ends.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore_interrupts() -> None:
    """The same, on systems without masks of signals."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
