"""What sees how many bytes a process holds: the other side of every prediction."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol


class Witness(Protocol):
    """Sees the bytes that a run allocates, while it is entered."""

    @property
    def name(self) -> str: ...
    def __enter__(self) -> Witness: ...
    def __exit__(self, *error: Any) -> None: ...
    def held(self) -> int:
        """Bytes held now, beyond those at entry."""

    def peak(self) -> int:
        """The most since entry or the last `reset`, likewise."""

    def reset(self) -> None:
        """Begin a new peak."""


class Tracemalloc:
    """Python's own: every byte that goes through NumPy's or Python's allocator.

    Scratch of LAPACK and FFT libraries is out of its sight. Whoever was tracing already goes on
    doing so, and finds the peak that there would be without this one's resets.
    """

    name = "tracemalloc"

    def __enter__(self) -> Tracemalloc:
        gc.collect()
        self._outer = tracemalloc.is_tracing()
        self._highest = 0
        tracemalloc.start()
        self.base = tracemalloc.get_traced_memory()[0]
        self.reset()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._outer:
            tracemalloc.stop()
            return
        now, peak = tracemalloc.get_traced_memory()
        if self._highest > peak:  # a peak can't be set, only reached: these bytes are never touched
            with suppress(MemoryError):
                bytes(self._highest - now)

    def held(self) -> int:
        return tracemalloc.get_traced_memory()[0] - self.base

    def peak(self) -> int:
        return tracemalloc.get_traced_memory()[1] - self.base

    def reset(self) -> None:
        if self._outer:
            self._highest = max(self._highest, tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()

    def of(self, step: Callable[..., Any], *args: Any) -> tuple[Any, int]:
        """What ``step(*args)`` returns, and the most bytes held meanwhile beyond those before."""
        with self:
            result = step(*args)
            return result, self.peak()
