"""The kernel: who counts the pages that a process holds."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from ckpt.errors import UsageError
from ckpt.units import KIB
from ckpt.witness import malloc
from ckpt.witness.base import Turned

_SET_THP_DISABLE, _GET_THP_DISABLE = 41, 42
"""Of Linux's prctl(2): transparent huge pages."""


class Process(Turned):
    """The kernel's: the pages that the process holds, and their high-water mark (Linux).

    ``/proc/self/clear_refs`` begins a new mark, and VmHWM of ``/proc/self/status`` is it; where
    that isn't to be written to, ``memory.peak`` of a cgroup v2. Meanwhile malloc gives what is
    freed back at once, and there are no huge pages: one that is touched anywhere counts 2 MiB.
    """

    name = "process"
    blind = "allocations that nobody touches, and what fits into pages held before"
    resolution = 256 * KIB

    def __init__(
        self, sample: Callable[[int], Any] = bytearray, pages: _Pages | None = None
    ) -> None:
        super().__init__(sample)
        self._pages = pages or _pages()

    def _begin(self) -> None:
        self._huge = _huge_pages(False)
        malloc.give_back_at_once()
        self.base = self._pages.now()
        self.reset()

    def _end(self) -> int:
        peak = self._peak()
        malloc.rest()
        _huge_pages(self._huge)
        return peak

    def held(self) -> int:
        return self._pages.now() - self.base

    def _peak(self) -> int:
        return self._pages.peak() - self.base

    def reset(self) -> None:
        malloc.trim()
        self._pages.reset()


def _huge_pages(allowed: bool) -> bool:
    """Whether the kernel may give this process huge pages from now on; and whether it might."""
    with suppress(OSError, AttributeError):
        prctl = ctypes.CDLL(None).prctl
        before = not prctl(_GET_THP_DISABLE, 0, 0, 0, 0)
        prctl(_SET_THP_DISABLE, int(not allowed), 0, 0, 0)
        return before
    return allowed


class _Pages(Protocol):
    """Bytes of pages, as the kernel counts them."""

    def now(self) -> int: ...
    def peak(self) -> int: ...
    def reset(self) -> None: ...


class OwnPages:
    """Those of this process: see proc(5)."""

    def __init__(self, folder: Path = Path("/proc/self")) -> None:
        self._folder = folder
        self.reset()

    def now(self) -> int:
        return self._field(b"VmRSS:")

    def peak(self) -> int:
        return self._field(b"VmHWM:")

    def reset(self) -> None:
        (self._folder / "clear_refs").write_text("5")

    def _field(self, name: bytes) -> int:
        status = (self._folder / "status").read_bytes()
        return int(status[status.index(name) + len(name) :].split(None, 1)[0]) * KIB


class CgroupPages:
    """Those of a cgroup v2 in which nothing else runs. A write to ``memory.peak`` begins a new one
    for whoever reads through the same open file (Linux 6.12)."""

    def __init__(self, folder: Path = Path("/sys/fs/cgroup")) -> None:
        self._folder = folder
        self._file = os.open(folder / "memory.peak", os.O_RDWR)
        weakref.finalize(self, os.close, self._file)
        self.reset()

    def now(self) -> int:
        return int((self._folder / "memory.current").read_bytes())

    def peak(self) -> int:
        return int(os.pread(self._file, 32, 0))

    def reset(self) -> None:
        os.pwrite(self._file, b"reset\n", 0)


def _pages() -> _Pages:
    for kind in (OwnPages, CgroupPages):
        with suppress(OSError, ValueError):
            return kind()
    raise UsageError(
        "witness 'process' needs Linux, and /proc/self/clear_refs or a cgroup's memory.peak to "
        "write to: use tracemalloc or memray"
    )
