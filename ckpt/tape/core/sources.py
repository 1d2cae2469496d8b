"""Which line of the user's program is running."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from types import CodeType, FrameType
from typing import Any

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_OURS = tuple(os.path.join(_PACKAGE, room) + os.sep for room in ("tape", "nn"))

_STDLIB = os.path.dirname(os.__file__) + os.sep


def caller() -> str:
    """``file.py:7`` of the nearest frame that is the user's: not ours, NumPy's or Python's own."""
    return said(*place())


def place(depth: int = 1) -> tuple[CodeType | str, int]:
    """The same, to be put in words when they are wanted; so many frames are known to be ours."""
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        if is_users(code.co_filename):
            return code, frame.f_lasti
        frame = frame.f_back
    return "", 0


def called() -> str:
    """``scipy.special.softmax``: the function of NumPy or SciPy that the user called, if one did
    that is written in Python."""
    frame: FrameType | None = sys._getframe(1)
    name = ""
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        library = module.partition(".")[0]
        if library in ("numpy", "scipy"):
            public = ".".join(part for part in module.split(".") if part[0] != "_")
            if hasattr(sys.modules.get(public), frame.f_code.co_name):
                name = f"{public.replace('numpy', 'np')}.{frame.f_code.co_name}"
        elif library != "ckpt":
            break
        frame = frame.f_back
    return name


def said(code: CodeType | str, at: int) -> str:
    """A `place` in words; what is in words as it is."""
    if isinstance(code, str):
        return code
    lines = (line for first, last, line in code.co_lines() if first <= at < last)
    return f"{is_users(code.co_filename)}:{next(lines, code.co_firstlineno)}"


class LineOf:
    """``with LineOf(happened) as found``: the user's line in which ``happened()`` comes true.

    Follows the program line by line, in place of a debugger or a coverage tool, and is slow.
    """

    def __init__(self, happened: Callable[[], Any]) -> None:
        self.happened = happened
        self.line = ""
        self._last = ""

    def __enter__(self) -> LineOf:
        self._before = sys.gettrace()
        sys.settrace(self._follow)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _follow(self, frame: FrameType, event: str, arg: Any) -> Any:
        name = is_users(frame.f_code.co_filename)
        if self.line or not name:
            return None
        if self._last and self.happened():
            self.line = self._last
            return None
        self._last = f"{name}:{frame.f_lineno}"
        return self._follow


@cache
def is_users(path: str) -> str:
    """The file's name if it is the user's, else nothing."""
    if path.startswith(_OURS) or f"{os.sep}numpy{os.sep}" in path or path[:1] == "<":
        return ""
    if path.startswith(_STDLIB) and "-packages" not in path:
        return ""
    return os.path.basename(path)
