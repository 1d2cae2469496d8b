"""Large arrays are gone over in tiles that stay in the cache, and by several threads.

NumPy lets go of its lock while a ufunc runs, and uses one core. Which thread does which tile is
left open, since no tile reads another: the bits are those of one thread. What a graph assumes, and
so its bytes, are lanes: sets of a tile's temporaries, as many as threads may be at work, by the
size of the array alone. Fewer threads use fewer of them, and all are there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context

from ckpt.errors import UsageError
from ckpt.witness import lending_a_hand

TILE = 1 << 15
"""Elements a tile: 128 KiB of float32. Smaller ones pay NumPy's overhead a call, larger ones miss
the second-level cache."""

LANES = 4
"""The most threads that share an array's work: beyond, memory is the limit, and not arithmetic."""

LANE_NBYTES = 1 << 21
"""An array has a lane for each so many bytes. Of less, waking a thread takes too much of the
time."""

Work = Callable[[int, Iterator[int]], None]
"""``work(lane, numbers)``: do the tiles of those numbers, with the temporaries of that lane."""


def lanes_of(nbytes: int) -> int:
    """How many threads may share the work on an array of so many bytes."""
    return max(1, min(LANES, nbytes // LANE_NBYTES))


def share(work: Work, count: int, lanes: int) -> None:
    """Do ``count`` tiles, by as many threads as there are lanes, and no more than `threads`."""
    workers = min(threads(), lanes, count)
    numbers = iter(range(count))
    if workers < 2:
        work(0, numbers)
        return
    given = [work]  # of which nothing is left with a thread that comes too late
    others = [  # in this one's context, which NumPy's errstate is a part of
        _POOL.executor.submit(copy_context().run, _help, given, lane, numbers)
        for lane in range(1, workers)
    ]
    try:
        work(0, numbers)
    finally:
        for _ in numbers:  # nothing is left to do if this thread was interrupted
            pass
        begun = [other for other in others if not other.cancel()]  # no core was free for the rest
        wait(begun)
        given.clear()
    for other in begun:
        other.result()


def _help(given: list[Work], lane: int, numbers: Iterator[int]) -> None:
    for work in given:
        work(lane, numbers)


class _Pool:
    """The threads that help, started as they are needed, and anew in a forked process."""

    def __init__(self) -> None:
        self.number = 0
        self.renew()

    def renew(self) -> None:
        self.executor = ThreadPoolExecutor(LANES - 1, "ckpt", lending_a_hand)


_POOL = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.renew)


def threads(n: int | None = None) -> int:
    """How many threads work on large arrays may use, this one among them; n sets it.

    To begin with as many as ``OMP_NUM_THREADS`` says, or as there are cores for this process.
    Results have the same bits with any number, and plans are the same: see `ckpt.plan`. Products
    of matrices are BLAS's, whose threads it counts itself, but for stacks of small ones in planned
    steps: BLAS would take one thread for each. OpenBLAS's own threads keep their cores for some 30
    ms after a product, waiting for the next one; with ``OPENBLAS_THREAD_TIMEOUT=4`` in the
    environment before NumPy is imported, they sleep.
    """
    if n is not None:
        if type(n) is not int or n < 1:
            raise UsageError(f"threads takes a number of threads from 1, not {n!r}")
        _POOL.number = n
    if not _POOL.number:
        _POOL.number = _of_environment() or _cores()
    return _POOL.number


def _of_environment() -> int:
    """What ``OMP_NUM_THREADS`` says, of a list for nested loops the first; 0: nothing."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(said) if said.isdecimal() else 0


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
