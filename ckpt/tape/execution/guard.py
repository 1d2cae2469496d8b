"""Between the first line of a step and its last, what it was given must not change.

A planned step runs NumPy's functions and nothing of the user's but ops that he declared. So
`execute` always looks; a compiled step does where such an op is among its lines, or is told to by
``check="all"``. Between two calls an array may change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ckpt.tape.core.changes import Watch, arrays_among, verify, watch
from ckpt.tape.traced.trace import Traced


class Guard:
    """The arguments, captured arrays and arrays of indices of one run, as they were first read."""

    def __init__(self, traced: Traced, whole: int) -> None:
        self.traced = traced
        self.whole = whole
        self.options = [
            (entry.source, array)
            for entry in traced.entries
            for array in arrays_among(entry.node.params)
        ]
        self.watches: list[Watch] = []

    def begin(self, arrays: Sequence[Any]) -> None:
        """Take the fingerprints of what is there beforehand."""
        self.watches.clear()
        for (_, position), array in zip(self.traced.leaves, arrays, strict=True):
            self._watch(f"argument {self.traced.graph[position].name}", array)
        for source, array in self.options:
            self._watch(source, array)

    def captured(self, i: int) -> Callable[[], Any]:
        """The line that reads captured array i."""
        entry = self.traced.entries[i]

        def read() -> Any:
            assert entry.captured is not None
            self._watch(entry.source, entry.captured)
            return entry.captured[...]

        return read

    def end(self) -> None:
        """MutationError if one of them has changed."""
        for watched in self.watches:
            verify(watched, "the step")
        self.watches.clear()

    def _watch(self, where: str, array: Any) -> None:
        if self.whole >= 0 and isinstance(array, np.ndarray):
            self.watches.append(watch(array, self.whole, where))


def runs_code_of_the_users(traced: Traced) -> bool:
    """Is an op among its nodes that isn't ours?"""
    return any(entry.node.op is not None and not entry.node.op.ours for entry in traced.entries)
