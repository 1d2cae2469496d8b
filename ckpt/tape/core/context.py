"""What the current thread is inside of: a checkpointed region, a trace, a check."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from ckpt.tape.core.changes import DEFAULT, Check, whole


@dataclass(frozen=True, slots=True)
class Context:
    """None of it costs a plain eager step anything: there, the context is None."""

    region: Any = None
    """The checkpointed region that runs (see `ckpt.tape.eager.region`), or None."""
    recorder: Any = None
    """The trace under way (see `ckpt.tape.traced.trace`), or None."""
    finite: bool = False
    """Raise at the first node that holds a NaN or an infinity."""
    scope: str = ""
    whole: int = DEFAULT
    """Up to how many bytes a given array is watched whole (see `ckpt.tape.core.changes`)."""


CURRENT: ContextVar[Context | None] = ContextVar("ckpt", default=None)


def watching(check: Check) -> dict[str, int]:
    """What an option ``check`` changes of the context; by default nothing."""
    limit = whole(check)
    return {} if check == "default" else {"whole": limit}


@contextmanager
def inside(**changes: Any) -> Iterator[None]:
    """Run a block in the current context with some of it changed."""
    before = CURRENT.get()
    try:
        CURRENT.set(replace(before or Context(), **changes))
        yield
    finally:
        CURRENT.set(before)


def run_inside(function: Callable[[], Any], **changes: Any) -> Any:
    """``function()`` in the current context with some of it changed; also put back by Ctrl-C, which
    a ``with`` block's own machinery may be struck by."""
    before = CURRENT.get()
    try:
        CURRENT.set(replace(before or Context(), **changes))
        result = function()
    finally:
        CURRENT.set(before)
    return result


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
