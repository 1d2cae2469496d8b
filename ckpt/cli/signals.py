"""What a command does when a signal asks it to leave: Ctrl-C, a terminal that closes, a kill."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""From 128 on an exit code is a signal's number, as shells have it."""


class Stopped(BaseException):
    """A signal asks the process to leave; what it has made stays."""


def heed() -> None:
    """Leave in good order when the terminal closes or someone else ends this process, and at once
    at Ctrl-C, until `interruptible`."""

    def stop(number: int, _: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_DFL)  # whoever asks again doesn't want to wait
        raise Stopped(128 + number)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, stop)


def _leave(*_: object) -> NoReturn:
    """There is nothing to put in order yet. Libraries that are being imported, and typer, swallow
    exceptions."""
    try:
        os.write(2, b"interrupted\n")
    finally:
        os._exit(INTERRUPTED)


@contextmanager
def interruptible() -> Iterator[None]:
    """In this block Ctrl-C raises KeyboardInterrupt: files may be open, a journal begun.

    An extension module that is being imported makes another error of it: so whatever ends the
    block after a Ctrl-C is an interrupt."""
    pressed = False

    def interrupt(*_: object) -> NoReturn:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    early = signal.getsignal(signal.SIGINT) is _leave
    if early:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except Exception as error:
        if pressed:
            raise KeyboardInterrupt from error
        raise
    finally:
        if early:
            signal.signal(signal.SIGINT, _leave)


def heard() -> None:
    """An interrupt is being told of: another one says nothing new."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def farewell(code: int) -> None:
    """All results are out: what a program still says on its way belongs to none of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN if code == INTERRUPTED else signal.SIG_DFL)
    exec("")  # else Python, where Ctrl-C came within an exec, ends itself by the signal again
    with suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
