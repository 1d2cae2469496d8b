"""When a search has to end - after some seconds or some work, or when someone asks - and how far it
is.

A search runs under a `Deadline`. Whoever may take long looks at it: a loop that has something to
show ends where `stopped` says so, and any other calls `check`, which raises. Without a deadline
neither does anything. No result depends on how often they are called, but where the clock cut it.
Work is counted by those who do it (`spend`), so that a search of so much work comes to the same on
every machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from ckpt.errors import CkptError

T = TypeVar("T")

EVERY = 0.25
"""Seconds between two reports of the same."""


WORK_LIMIT = "work limit"
"""The reason of a search whose work is spent."""

LISTEN = 0.1
"""Seconds between two looks at the clock while a solver works."""


class StoppedError(CkptError):
    """The clock stopped a planner before it had a schedule."""


@dataclass(frozen=True)
class Progress:
    """How far a search is. Costs are shares of a forward."""

    doing: str
    """What it turns to now."""
    recompute: float | None
    """Of the best schedule so far; None: there is none yet."""
    bound: float
    """No schedule within the budget recomputes less."""


class Deadline:
    """The end of a search, by time (``seconds`` from now; None: never), by ``work`` (in units that
    take about a microsecond; None: as much as it takes), or because someone asks.

    ``apart``: what is done under it isn't counted around it, as where it may be known already.
    ``tell`` hears how far the search is. ``clock``: `time.thread_time` counts only what this thread
    works, so that a busy machine doesn't end a search that is short.
    """

    def __init__(
        self,
        seconds: float | None = None,
        tell: Callable[[Progress], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        work: int | None = None,
        apart: bool = False,
    ) -> None:
        self.seconds = seconds
        self.work = work
        self.spent = 0
        self.apart = apart
        self.clock = clock
        self.began = clock()
        self.tell = tell
        self.outer: Deadline | None = None
        self._asked = ""
        self._told = -EVERY
        self._progress: Progress | None = None

    @property
    def reason(self) -> str:
        """Why it is over, in words: ``time limit of 60 s``; empty while it isn't."""
        if self.work is not None and self.spent >= self.work:
            self.stop(WORK_LIMIT)
        over = self.seconds is not None and self.clock() - self.began >= self.seconds
        if over and not self._asked:
            self._asked = f"time limit of {self.seconds:g} s"
        return self._asked or ("" if self.outer is None else self.outer.reason)

    @property
    def left(self) -> float | None:
        """Seconds until it is over; None: never."""
        own = None if self.seconds is None else self.seconds - (self.clock() - self.began)
        around = None if self.outer is None else self.outer.left
        return min((s for s in (own, around) if s is not None), default=None)

    def stop(self, reason: str) -> None:
        """Whatever runs under this clock is to end now."""
        self._asked = self._asked or reason

    def shorten(self, seconds: float) -> None:
        """End so many seconds from the beginning, if not before."""
        self.seconds = seconds if self.seconds is None else min(seconds, self.seconds)

    def report(self, progress: Progress) -> None:
        """Tell whoever listens, here or around."""
        self._progress, self._told = progress, time.monotonic()
        if self.tell is not None:
            self.tell(progress)
        if self.outer is not None:
            self.outer.report(progress)

    def look(self) -> str:
        """`reason`; and, now and then, the last report once more."""
        if self._progress is not None and time.monotonic() - self._told >= EVERY:
            self.report(self._progress)
        return self.reason

    @contextmanager
    def running(self) -> Iterator[Deadline]:
        """What is called in this block runs under this clock, and under any around it."""
        self.outer = _current.get()
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)


def heeded(work: Callable[[], T]) -> T | None:
    """What ``work`` returns; None if the time is up before.

    It runs in a thread of its own, so that one that is deep in C doesn't keep a clock or Ctrl-C
    waiting. What is left then ends unheard.
    """
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive() and not stopped():
        thread.join(LISTEN)
    if failed:
        raise failed[0]
    return found[0] if found else None


_current: ContextVar[Deadline | None] = ContextVar("clock", default=None)


def stopped() -> bool:
    """Is the time up?"""
    deadline = _current.get()
    return deadline is not None and bool(deadline.look())


def left() -> float | None:
    """Seconds until the time is up; None: there is no end."""
    deadline = _current.get()
    return None if deadline is None else deadline.left


def spend(work: int) -> None:
    """So much was done; see `Deadline`."""
    deadline = _current.get()
    while deadline is not None:
        deadline.spent += work
        deadline = None if deadline.apart else deadline.outer


def check() -> None:
    """Raise StoppedError if the time is up."""
    if stopped():
        deadline = _current.get()
        assert deadline is not None
        raise StoppedError(f"stopped early: {deadline.reason}")
