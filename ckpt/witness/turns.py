"""Measured runs of one process take turns, and say whether another thread ran meanwhile."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

_TURN = threading.RLock()
_turned: WeakSet[threading.Thread] = WeakSet()
"""Threads that measure, too: while they don't, they wait for their turn, or for work."""
_keepers: WeakSet[threading.Thread] = WeakSet()
"""Threads that wait for those, or do a part of their work."""
PATIENCE = 50
"""Milliseconds that a run waits for them to come to rest."""
REST = 5
"""So many in which none of them takes CPU: a busy machine may pause one for longer than one."""
BRIEFLY = 0.005
"""Seconds of CPU that such a thread may take between one run of its own and the next."""


@dataclass
class Company:
    """Who else ran during a measured run."""

    untrusted: str | None = None
    """Why the figures may not be the run's own; None: nobody else ran. Known at the end."""


@contextmanager
def alone() -> Iterator[Company]:
    """Wait until no other thread measures; then see whether another thread runs meanwhile."""
    _turned.add(threading.current_thread())
    with _TURN:
        _settle()
        with _beginning() as begun:
            company, before = Company(), _others()
            try:
                yield company
            finally:
                company.untrusted = _untrusted(before | begun, _others())


@contextmanager
def _beginning() -> Iterator[dict[threading.Thread, tuple[str, float]]]:
    """Threads that begin in this block, which may end before anyone looks: as `_others` has them,
    with no CPU taken."""
    found: dict[threading.Thread, tuple[str, float]] = {}
    usual = threading.getprofile()

    def told(*_: Any) -> None:
        sys.setprofile(usual)
        thread = threading.current_thread()
        found[thread] = thread.name, 0.0

    threading.setprofile(told)
    try:
        yield found
    finally:
        threading.setprofile(usual)


def _settle() -> None:
    """Let threads that measure as well finish what they are at, until they wait for their turn."""
    before, rested = _others(), 0
    for _ in range(PATIENCE):
        if rested == REST or not any(thread in _turned for thread in before):
            return
        time.sleep(0.001)
        after = _others()
        quiet = all(after.get(t) == seen for t, seen in before.items() if t in _turned)
        before, rested = after, rested + 1 if quiet else 0


@contextmanager
def keeping_books() -> Iterator[None]:
    """This thread waits for measured runs of other threads, and does little beside."""
    me = threading.current_thread()
    added = me not in _keepers
    _keepers.add(me)
    try:
        yield
    finally:
        if added:
            _keepers.discard(me)


def lending_a_hand() -> None:
    """This thread does parts of others' work and nothing else: what it allocates is theirs."""
    _keepers.add(threading.current_thread())


def _others() -> dict[threading.Thread, tuple[str, float]]:
    """Names of other threads, and the seconds of CPU that each has taken (-1: not known)."""
    found = {}
    for thread in threading.enumerate():
        ident = thread.ident
        if ident is None or ident == threading.get_ident() or thread in _keepers:
            continue
        seconds = -1.0
        if hasattr(time, "pthread_getcpuclockid"):
            with suppress(OSError):
                seconds = time.clock_gettime(time.pthread_getcpuclockid(ident))
        found[thread] = thread.name, seconds
    return found


def _untrusted(
    before: dict[threading.Thread, tuple[str, float]],
    after: dict[threading.Thread, tuple[str, float]],
) -> str | None:
    """Why a run between these two is in doubt; None where only quiet threads were there."""
    ended = [t for t in before.keys() - after.keys() if t not in _keepers and t not in _turned]
    ran = [before[thread][0] for thread in ended]
    for thread, (name, seconds) in after.items():
        since = before[thread][1] if thread in before else 0.0
        quiet = BRIEFLY if thread in _turned else 0.0
        if seconds - since > quiet or (seconds < 0 and thread not in _turned):
            ran.append(name)
    if not ran:
        return None
    more = f" and {len(ran) - 3} more" if len(ran) > 3 else ""
    return (
        f"another thread ran meanwhile ({', '.join(sorted(ran)[:3])}{more}), and what it allocates "
        "is counted too"
    )
