"""What the current thread is inside of: a checkpointed region, a trace, a check."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckpt.tape.eager.region import Region


@dataclass(frozen=True, slots=True)
class Context:
    """None of it costs a plain eager step anything: there, the context is None."""

    region: Region | None = None
    recorder: Any = None
    """The trace under way (see `ckpt.tape.traced.trace`), or None."""
    finite: bool = False
    """Raise at the first node that holds a NaN or an infinity."""
    scope: str = ""


CURRENT: ContextVar[Context | None] = ContextVar("ckpt", default=None)


@contextmanager
def inside(**changes: Any) -> Iterator[Context]:
    """Run a block in the current context with some of it changed."""
    context = replace(CURRENT.get() or Context(), **changes)
    token = CURRENT.set(context)
    try:
        yield context
    finally:
        CURRENT.reset(token)


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Name a part of the program; profiles group by it: ``with ckpt.scope("layer 3"): …``."""
    context = CURRENT.get() or Context()
    with inside(scope=f"{context.scope}/{name}" if context.scope else name):
        yield


@contextmanager
def check_finite() -> Iterator[None]:
    """Raise NonFiniteError at the first value that holds a NaN or an infinity."""
    with inside(finite=True):
        yield


_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_OURS = tuple(os.path.join(_PACKAGE, room) + os.sep for room in ("tape", "nn"))


def caller() -> str:
    """``file.py:7`` of the nearest frame that is the user's: not the tape's, nor NumPy's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = _users(frame.f_code.co_filename)
        if name:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


@cache
def _users(path: str) -> str:
    """The file's name if it is the user's, else nothing."""
    if path.startswith(_OURS) or f"{os.sep}numpy{os.sep}" in path or path[:1] == "<":
        return ""
    return os.path.basename(path)
