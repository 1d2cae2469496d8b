"""The one place where exceptions become a line on stderr and an exit code."""

from __future__ import annotations

import errno
import functools
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from types import FrameType
from typing import Any, TextIO

import typer

from ckpt.cli.signals import INTERRUPTED, Stopped, heard, interruptible
from ckpt.errors import LONGEST, CkptError, MissingExtraError, TapeError
from ckpt.text import filled, paragraph, printable

REFUSED, BROKEN_PIPE = 2, 141

TARGET_MARK = "__ckpt_target__"
"""A global of every module loaded as a target; its value is the path as the user wrote it."""


@contextmanager
def streams() -> Iterator[None]:
    """Warnings as one line, no crash where a terminal lacks a letter; as before afterwards."""
    before = warnings.showwarning, sys.stderr
    with ExitStack() as opened:
        if sys.stderr is None:
            sys.stderr = opened.enter_context(open(os.devnull, "w"))
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        try:
            yield
        finally:
            warnings.showwarning, sys.stderr = before


def note(text: str) -> None:
    """A line on stderr: what was written, what to try next. What nobody pastes is wrapped."""
    text = printable(text, LONGEST)
    if text.startswith(("note:", "wrote ", "warning:")):
        text = filled([text])
    try:
        print(text, file=sys.stderr)
    except OSError:
        _let_go(sys.stderr)


def _show_warning(message: Warning | str, *_: Any) -> None:
    note(f"warning: {message}")


def _let_go(stream: TextIO) -> None:
    """Nobody takes what is written here. What is still buffered must not fail again at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


_stdout: list[TextIO] = []
"""Where the document goes while `_aside`."""


def document(text: str) -> None:
    """Print the one document of ``--json``."""
    print(text, file=_stdout[-1], flush=True)


@contextmanager
def _aside() -> Iterator[None]:
    """What is printed meanwhile, by whatever means, goes to stderr; stdout is the document's."""
    out = sys.stdout
    out.flush()
    stream = out
    with suppress(OSError, ValueError):  # no real file, as under a test
        stream = open(os.dup(out.fileno()), "w", encoding="utf-8")  # noqa: SIM115
        os.dup2(sys.stderr.fileno(), out.fileno())
    _stdout.append(stream)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = out
        _stdout.pop()
        if stream is not out:
            with suppress(OSError, ValueError):  # what a program wrote to sys.__stdout__
                out.flush()
            os.dup2(stream.fileno(), out.fileno())
            with suppress(OSError):
                stream.close()


def reported(command: Callable[..., None]) -> Callable[..., None]:
    """``command``, leaving with a line on stderr and an exit code whatever goes wrong."""

    @functools.wraps(command)
    def wrapped(**kwargs: Any) -> None:
        try:
            if sys.stdout is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF), "standard output")
            with interruptible(), _aside() if kwargs.get("json") else nullcontext():
                command(**kwargs)
            sys.stdout.flush()  # here, where a reader that went away can still be dealt with
        except typer.Exit:
            raise
        except BaseException as error:
            raise typer.Exit(report(error, kwargs.get("target", ""))) from None

    return wrapped


def usage(error: Any, arguments: Sequence[str]) -> int:
    """Report one of typer's own errors of usage: a wrong option, a missing argument."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "ckpt"
    if message := error.format_message():  # without a command the help is all there is to say
        note(f"error: {shlex.join(['ckpt', *arguments])}: {message} (see {path} --help)")
    return int(error.exit_code)


def report(error: BaseException, target: str = "") -> int:
    """Say in a line what went wrong, and return the exit code for it."""
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
        _let_go(sys.stdout)  # the reader has seen enough
        return BROKEN_PIPE
    if os.environ.get("CKPT_TRACEBACK"):
        _traceback(error)
    if isinstance(error, KeyboardInterrupt):
        heard()
        note("interrupted")
        return INTERRUPTED
    if isinstance(error, Stopped):
        note("stopped")
        return int(error.args[0])
    where = _in_target(error) or (target if isinstance(error, TapeError) else "")
    prefix = f"{where}: " if where and os.path.basename(where) not in str(error) else ""
    if isinstance(error, CkptError):
        note(f"error: {prefix}{error}")
        if way_out := getattr(error, "next", None):
            note(f"next: {way_out}")
        return error.exit_code
    unloadable = isinstance(error, ImportError) and "failed to map segment" in str(error)
    if isinstance(error, MemoryError) or unloadable:  # of a library: the dynamic linker's words
        size = f" ({error})" if str(error) and not unloadable else ""
        note(f"error: {prefix}not enough memory{size}; --no-measure predicts without allocating")
        return REFUSED
    if isinstance(error, ImportError) and not where and not (error.name or "").startswith("ckpt"):
        note(f"error: an installed package can't be imported: {error}")
        return MissingExtraError.exit_code
    if where or isinstance(error, SystemExit):
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        note(f"error: {prefix}{what}")
        return REFUSED
    if isinstance(error, OSError):
        note(f"error: {_refused(error)}")
        return REFUSED
    _traceback(error)
    note("error: this is a bug in ckpt; please report it with the lines above")
    return 1


def _refused(error: OSError) -> str:
    """What the machine didn't let us do."""
    if error.errno == errno.ENOENT and error.filename is None:
        return "the working folder is gone; change to one that is there"
    if error.filename is None and error.errno in (errno.ENOSPC, errno.EIO, errno.EBADF):
        _let_go(sys.stdout)
    what = error.filename if error.filename is not None else "standard output"
    return f"{what}: {(error.strerror or str(error)).lower()}"


def _traceback(error: BaseException) -> None:
    lines = "".join(traceback.format_exception(error)).splitlines()
    with suppress(OSError):
        print(paragraph(lines), file=sys.stderr)


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
