"""Processes of our own."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

from ckpt.witness import malloc

_THREADS = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

WATCH = "ckpt-parent"
"""The thread of ours in each, which only waits."""


def settings() -> dict[str, str]:
    """The environment of a worker: one BLAS thread, and pages are kept."""
    return {**dict.fromkeys(_THREADS, "1"), **malloc.keeping()}


@contextmanager
def one_thread() -> Iterator[None]:
    """Processes spawned in this block have those `settings`."""
    chosen = settings()
    before = {name: os.environ.get(name) for name in chosen}
    os.environ.update(chosen)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Spawning(SpawnContext):
    """Starts processes, and knows them."""

    def __init__(self) -> None:
        self.started: list[SpawnProcess] = []

    def Process(self, *args: Any, **kwargs: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: N802
        self.started.append(SpawnProcess(*args, **kwargs))
        return self.started[-1]


class Spawned(ProcessPoolExecutor):
    """Lets go of its own futures. Nobody else may cancel them: the thread that keeps its books
    ends with a traceback where a worker dies and a future of it was cancelled (CPython's
    ``terminate_broken`` sets an exception there)."""

    def __init__(self, jobs: int) -> None:
        self.context = _Spawning()
        super().__init__(jobs, self.context, initializer=_begin)

    def end(self) -> None:
        """What a worker is at can take minutes, and nobody waits for its result any more."""
        for process in self.context.started:
            with suppress(AttributeError, ValueError):  # not begun, or ended and closed
                process.terminate()


@contextmanager
def spawned(jobs: int) -> Iterator[Executor]:
    """So many of them; after an exception they are ended, whatever they are at."""
    with one_thread():
        with deaf():  # so is the process that Python starts for its semaphores
            there = Spawned(jobs)
        try:
            yield there
        except BaseException:
            there.end()
            raise
        finally:
            there.shutdown(cancel_futures=True)


@contextmanager
def deaf() -> Iterator[None]:
    """Ctrl-C and a closed terminal reach every process; only the first one decides what to do.

    Processes spawned in this block never hear of it, from their very start on; this one hears when
    the block ends.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """A worker doesn't outlive the process that asked for it; and as `deaf`, on systems without
    masks of signals."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name=WATCH, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)
