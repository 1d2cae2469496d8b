"""The one place where exceptions become a line on stderr and an exit code."""

from __future__ import annotations

import errno
import functools
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import typer

from ckpt.errors import CkptError, TapeError

INTERRUPTED, BROKEN_PIPE = 130, 141
"""128 + the signal's number, as shells have it."""

TARGET_MARK = "__ckpt_target__"
"""A global of every module loaded as a target; its value is the path as the user wrote it."""


def prepare() -> None:
    """Set up the streams: warnings as one line, and no crash where a terminal lacks a letter."""
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def note(text: str) -> None:
    """A line on stderr: what was written, what to try next."""
    print(text, file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any) -> None:
    note(f"warning: {message}")


def reported(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, leaving with a line on stderr and an exit code whatever goes wrong."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()  # here, where a reader that went away can still be dealt with
        except typer.Exit:
            raise
        except BaseException as error:
            raise typer.Exit(_report(error, kwargs.get("target", ""))) from None

    return wrapped


def usage(error: Any, arguments: Sequence[str]) -> int:
    """Report one of typer's own errors of usage: a wrong option, a missing argument."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "ckpt"
    note(f"error: {shlex.join(['ckpt', *arguments])}: {error.format_message()} (see {path} --help)")
    return int(error.exit_code)


def _report(error: BaseException, target: str = "") -> int:
    if isinstance(error, BrokenPipeError):
        # The reader has seen enough. What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    if os.environ.get("CKPT_TRACEBACK"):
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        note("interrupted")
        return INTERRUPTED
    where = _in_target(error) or (target if isinstance(error, TapeError) else "")
    prefix = f"{where}: " if where and os.path.basename(where) not in str(error) else ""
    if isinstance(error, CkptError):
        note(f"error: {prefix}{error}")
        return error.exit_code
    if isinstance(error, MemoryError):
        note(f"error: {prefix}not enough memory ({error or 'no size given'}); "
             "--no-measure predicts without allocating")  # fmt: skip
        return 1
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        note(f"error: no space left for {error.filename or 'standard output'}")
        return 1
    if where or isinstance(error, SystemExit):
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        note(f"error: {prefix}{what}")
        return 2
    traceback.print_exception(error)
    note("error: this is a bug in ckpt; please report it with the lines above")
    return 1


def _in_target(error: BaseException) -> str:
    """``file.py:7`` of the innermost frame that is the target's own; "" if there is none."""
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        path = _target(frame)
        if path:
            found = f"{path}:{line}"
    return found


def _target(frame: FrameType) -> str:
    return str(frame.f_globals.get(TARGET_MARK, ""))
