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
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from typing import Any

from ckpt.workers.spawned import settings

_mine = threading.local()
"""The process beside each thread that is given work."""


def beside(work: Callable[..., Any], *args: Any) -> Any:
    """``work(*args)`` there; BrokenExecutor if that process dies."""
    child: subprocess.Popen[bytes] | None = getattr(_mine, "child", None)
    if child is None or child.poll() is not None:
        child = _mine.child = _start()
    assert child.stdin is not None and child.stdout is not None
    try:
        pickle.dump((work, args), child.stdin)
        child.stdin.flush()
        return pickle.load(child.stdout)
    except (EOFError, BrokenPipeError):
        raise BrokenExecutor(f"the process beside a worker ended with {child.wait()}") from None


def _start() -> subprocess.Popen[bytes]:
    code = f"import sys; sys.path[:] = {sys.path!r}; from ckpt.workers.beside import serve; serve()"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **settings()},
    )


def serve() -> None:
    """Do what comes in at stdin until that is closed, as it is when the worker ends."""
    with os.fdopen(os.dup(1), "wb") as out, os.fdopen(os.dup(0), "rb") as asked:
        os.dup2(2, 1)  # what a program prints is no result
        while True:
            try:
                work, args = pickle.load(asked)
            except EOFError:
                return
            out.write(pickle.dumps(work(*args)))
            out.flush()
