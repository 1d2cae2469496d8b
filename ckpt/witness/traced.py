"""Python's tracemalloc, and memray: who is told of each allocation."""

from __future__ import annotations

import os
import tempfile
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

from ckpt.errors import MissingExtraError, UsageError
from ckpt.units import KIB
from ckpt.witness.base import Turned


class Tracemalloc(Turned):
    """Python's own: every byte that goes through NumPy's or Python's allocator.

    Whoever was tracing already goes on doing so, and finds the peak that there would be without
    this one's resets.
    """

    name = "tracemalloc"
    blind = "scratch of LAPACK and FFT libraries"
    resolution = 16 * KIB
    sees_scratch = False

    def _begin(self) -> None:
        self._outer = tracemalloc.is_tracing()
        self._highest = 0
        tracemalloc.start()
        self.base = tracemalloc.get_traced_memory()[0]
        self.reset()

    def _end(self) -> int:
        now, peak = tracemalloc.get_traced_memory()
        if not self._outer:
            tracemalloc.stop()
        elif self._highest > peak:  # a peak can't be set, only reached: these are never touched
            with suppress(MemoryError):
                bytes(self._highest - now)
        return peak - self.base

    def held(self) -> int:
        return tracemalloc.get_traced_memory()[0] - self.base

    def _peak(self) -> int:
        return tracemalloc.get_traced_memory()[1] - self.base

    def reset(self) -> None:
        if self._outer:
            self._highest = max(self._highest, tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()


class Memray(Turned):
    """memray's Tracker in this process: every call of malloc and mmap, whoever makes it."""

    name = "memray"
    whole = True
    blind = "when the peak was; Python's small objects, but for the arenas they lie in"
    resolution = 64 * KIB

    def __init__(self, sample: Callable[[int], Any] = bytearray) -> None:
        super().__init__(sample)
        try:
            self._memray: Any = import_module("memray")
        except ModuleNotFoundError:
            raise MissingExtraError("memray", "memray", "the witness memray") from None

    def _begin(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ckpt-")
        self._file = os.path.join(self._folder.name, "run.bin")
        try:
            self._tracker = self._memray.Tracker(self._file)
            self._tracker.__enter__()
        except RuntimeError as error:
            self._folder.cleanup()
            raise UsageError(f"memray can't be a witness here: {error}") from None

    def _end(self) -> int:
        with self._folder:
            self._tracker.__exit__(None, None, None)
            with self._memray.FileReader(self._file) as reader:
                return int(reader.metadata.peak_memory)

    def _peak(self) -> int:
        raise RuntimeError("memray knows a peak when the run has ended")
