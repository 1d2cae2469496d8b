"""Which line of the user's program is running."""

from __future__ import annotations

import os
import sys
from functools import cache
from types import CodeType, FrameType

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_OURS = tuple(os.path.join(_PACKAGE, room) + os.sep for room in ("tape", "nn"))


def caller() -> str:
    """``file.py:7`` of the nearest frame that is the user's: not the tape's, nor NumPy's."""
    return said(place())


def place() -> tuple[CodeType, int] | str:
    """The same, to be put in words when they are wanted."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if _users(code.co_filename):
            return code, frame.f_lasti
        frame = frame.f_back
    return ""


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


def said(where: tuple[CodeType, int] | str) -> str:
    """A `place` in words; what is in words as it is."""
    if isinstance(where, str):
        return where
    code, at = where
    lines = (line for first, last, line in code.co_lines() if first <= at < last)
    return f"{_users(code.co_filename)}:{next(lines, code.co_firstlineno)}"


@cache
def _users(path: str) -> str:
    """The file's name if it is the user's, else nothing."""
    if path.startswith(_OURS) or f"{os.sep}numpy{os.sep}" in path or path[:1] == "<":
        return ""
    return os.path.basename(path)
