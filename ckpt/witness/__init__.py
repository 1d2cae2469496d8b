"""What sees how many bytes a process holds: the other side of every prediction.

Three of them, each blind to something: Python's tracemalloc, the kernel's count of the process's
pages, and memray. All take turns under one lock, since each sees the whole process; and each says
whether another thread ran meanwhile, in which case its figure is nobody's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ckpt.errors import MissingExtraError, UsageError
from ckpt.text import unknown
from ckpt.witness.base import Turned, Witness
from ckpt.witness.pages import Process
from ckpt.witness.traced import Memray, Tracemalloc
from ckpt.witness.turns import alone, keeping_books, lending_a_hand

__all__ = [
    "ALL", "WITNESSES", "Memray", "Process", "Tracemalloc", "Turned", "Witness", "alone",
    "available", "keeping_books", "lending_a_hand", "named",
]  # fmt: skip

WITNESSES: dict[str, Callable[..., Turned]] = {
    kind.name: kind for kind in (Tracemalloc, Process, Memray)
}
ALL = "all"


def named(name: str, sample: Callable[[int], Any] = bytearray) -> Turned:
    """The witness of that name. UsageError where there is none such, or not on this system;
    MissingExtraError where its package isn't installed."""
    if name not in WITNESSES:
        raise UsageError(unknown("witness", name, [*WITNESSES, ALL]))
    return WITNESSES[name](sample)


def available(name: str, sample: Callable[[int], Any] = bytearray) -> list[Turned]:
    """The witness of that name, or with ``"all"`` each that there is here."""
    if name != ALL:
        return [named(name, sample)]
    found = []
    for each in WITNESSES:
        with suppress(UsageError, MissingExtraError):
            found.append(named(each, sample))
    return found
