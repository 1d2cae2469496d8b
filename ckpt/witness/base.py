"""What a witness is, and what ours share."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

from ckpt.errors import VerificationError
from ckpt.units import MIB, format_bytes
from ckpt.witness.turns import Company, alone

TRIES = 20
"""How often a witness may count wrongly, before it is disbelieved."""


class Witness(Protocol):
    """Sees the bytes that a run allocates, while it is entered."""

    @property
    def name(self) -> str: ...
    @property
    def whole(self) -> bool:
        """It sees the peak of a whole run, when that has ended, and nothing of when it was."""

    @property
    def untrusted(self) -> str | None:
        """Why the last run's figures may not be its own; None where they are."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *error: Any) -> None: ...
    def held(self) -> int:
        """Bytes held now, beyond those at entry."""

    def peak(self) -> int:
        """The most since entry or the last `reset`, likewise."""

    def reset(self) -> None:
        """Begin a new peak."""


class Turned:
    """What the witnesses share: their turn, the check of what they count, and a peak that is still
    known once the run has ended."""

    name: str
    whole = False
    blind: str
    """What it can't see."""
    resolution: int
    """Bytes that it may be off by, of arrays."""
    sees_scratch = True

    def __init__(self, sample: Callable[[int], Any] = bytearray) -> None:
        self.sample = sample
        """Makes a filled array of so many bytes, as a program's arrays are made."""
        self._turns: list[tuple[ExitStack, Company]] = []
        self._final: int | None = None
        self.untrusted: str | None = None
        """Of the last run: why its figures may not be its own."""

    def __enter__(self) -> Any:
        turn = ExitStack()
        self._turns.append((turn, turn.enter_context(alone())))
        self._final = None
        try:
            gc.collect()
            self._begin()
        except BaseException:
            self._turns.pop()
            turn.close()
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        turn, company = self._turns.pop()
        try:
            self._final = self._end()
        finally:
            turn.close()
            self.untrusted = company.untrusted

    def peak(self) -> int:
        return self._peak() if self._final is None else self._final

    def held(self) -> int:
        raise NotImplementedError

    def reset(self) -> None:
        raise NotImplementedError

    def _begin(self) -> None:
        raise NotImplementedError

    def _end(self) -> int:
        raise NotImplementedError

    def _peak(self) -> int:
        raise NotImplementedError

    def of(self, step: Callable[..., Any], *args: Any) -> tuple[Any, int]:
        """What ``step(*args)`` returns, and the most bytes held meanwhile beyond those before."""
        with self:
            result = step(*args)
        return result, self.peak()

    def check(self) -> None:
        """VerificationError unless a filled array of n bytes counts n.

        A wrong count is the witness's own where it stays wrong, and nobody else ran in one of them.
        Filling an array lets others run (a test runner's thread that reads its orders, say), and
        what they allocate is counted too; where they never rest nobody can tell, and the run that
        follows says that it can't be trusted.
        """
        nbytes = max(MIB, 32 * self.resolution)
        wrong = None
        for _ in range(TRIES):
            _, seen = self.of(self.sample, nbytes)
            if abs(seen - nbytes) <= self.resolution:
                return
            if self.untrusted is None:
                wrong = seen
            time.sleep(0.001)
        if wrong is not None:
            raise VerificationError(
                f"{self.name} can't be trusted here: it counts {format_bytes(wrong)} for an array "
                f"of {format_bytes(nbytes)}, so nothing is measured with it"
            )
