"""What a command that takes long shows on stderr, where that is a terminal; and Ctrl-C."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ckpt.planners.base.clock import Progress


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[str], None]]:
    """Call what is yielded once for each thing done, with its name."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda text: bar.update(task, advance=1, description=text)


@contextmanager
def search() -> Iterator[None]:
    """What searches in this block shows how far it is, in one line, and ends at Ctrl-C with the
    best that it has; a second Ctrl-C is an interrupt as ever."""
    from ckpt.planners.base.clock import Deadline

    def stop(*_: Any) -> None:
        deadline.stop("Ctrl-C")
        signal.signal(signal.SIGINT, before)

    live = sys.stderr.isatty()
    began = time.monotonic()

    def show(progress: Progress) -> None:
        text = f"{time.monotonic() - began:3.0f} s: {said(progress)}"
        sys.stderr.write(f"\r\033[K{text[:79]}")
        sys.stderr.flush()

    deadline = Deadline(tell=show if live else None)
    before = signal.signal(signal.SIGINT, stop)
    try:
        with deadline.running():
            yield
    finally:
        signal.signal(signal.SIGINT, before)
        if live:
            sys.stderr.write("\r\033[K")


def said(progress: Progress) -> str:
    """How far a search is: ``recompute 47.5 %, bound 46.9 %, gap 0.6; improving chain's``."""
    bound = f"bound {100 * progress.bound:.2f} %"
    if progress.recompute is None:
        return f"no plan yet; {progress.doing}"
    gap = 100 * (progress.recompute - progress.bound)
    best = f"recompute {100 * progress.recompute:.2f} %"
    return f"{best}, {bound}, gap {max(gap, 0):.2f}; {progress.doing}"
