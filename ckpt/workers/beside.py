"""Work for a worker of somebody else's: in a process beside it, where its own threads don't run.

Dask's workers have an event loop and a profiler at work all the time, whose allocations a witness
would count, and BLAS threads and thresholds of malloc that can't be changed any more.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from queue import SimpleQueue
from typing import Any, BinaryIO

from ckpt.workers.spawned import WATCH, settings

LISTEN = 0.25
"""Seconds between two looks at whether work is still wanted."""

SIZE = 8
"""Bytes in front of a task that say how many it has."""

_mine = threading.local()
"""The process beside each thread that is given work."""


def beside(wanted: Callable[[], bool], work: Callable[..., Any], *args: Any) -> Any:
    """``work(*args)`` there, as long as it is ``wanted``; BrokenExecutor if that process dies."""
    child: subprocess.Popen[bytes] | None = getattr(_mine, "child", None)
    if child is None or child.poll() is not None:
        child = _mine.child = _start()
    assert child.stdin is not None and child.stdout is not None
    over, turn = threading.Event(), threading.Lock()
    watched = child, wanted, over, turn
    threading.Thread(target=_watch, args=watched, name=WATCH, daemon=True).start()
    try:
        task = pickle.dumps((work, args))
        child.stdin.write(len(task).to_bytes(SIZE) + task)
        child.stdin.flush()
        return pickle.load(child.stdout)
    except (EOFError, BrokenPipeError):
        raise BrokenExecutor(f"the process beside a worker ended with {child.wait()}") from None
    finally:
        with turn:
            over.set()


def _watch(
    child: subprocess.Popen[bytes],
    wanted: Callable[[], bool],
    over: threading.Event,
    turn: threading.Lock,
) -> None:
    while not over.wait(LISTEN):
        if not wanted():
            with turn:
                if not over.is_set():  # what is done is wanted no more either
                    child.kill()
                    child.wait()
            return


def _start() -> subprocess.Popen[bytes]:
    code = f"import sys; sys.path[:] = {sys.path!r}; from ckpt.workers.beside import serve; serve()"
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **settings()},
    )
    weakref.finalize(threading.current_thread(), _end, child)
    return child


def _end(child: subprocess.Popen[bytes]) -> None:
    """The thread that gave it work has ended."""
    with child:
        child.kill()


def serve() -> None:
    """Do what comes in at stdin; end when that is closed, as it is when the worker ends."""
    asked: SimpleQueue[bytes] = SimpleQueue()
    with os.fdopen(os.dup(1), "wb") as out, os.fdopen(os.dup(0), "rb") as coming:
        os.dup2(2, 1)  # what a program prints is no result
        threading.Thread(target=_receive, args=(coming, asked), name=WATCH, daemon=True).start()
        while True:
            work, args = pickle.loads(asked.get())
            out.write(pickle.dumps(work(*args)))
            out.flush()


def _receive(coming: BinaryIO, asked: SimpleQueue[bytes]) -> None:
    """It only waits while there is work."""
    while size := coming.read(SIZE):
        asked.put(coming.read(int.from_bytes(size)))
    os._exit(0)
