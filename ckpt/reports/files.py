"""Files: written whole or not at all; read, whoever wrote them, with nothing taken on trust."""

from __future__ import annotations

import gc
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from ckpt.errors import UsageError
from ckpt.units import GIB, format_bytes

LARGEST = GIB
"""Bytes of a file that is read."""

DEEPEST = 32
"""Lists and objects of a JSON document that may lie in each other; ours need eight."""


def check_kind(path: str | os.PathLike[str], kinds: Sequence[str]) -> str:
    """The ending of ``path`` among ``kinds``, the longest that fits; UsageError for any other."""
    name, suffix = Path(path).name.lower(), Path(path).suffix.lower()
    fits = [kind for kind in kinds if suffix and name.endswith(kind)]
    if not fits:
        has = f"the extension {suffix!r}" if suffix else "no extension"
        raise UsageError(f"can't write {os.fspath(path)!r}: it has {has}; use {' '.join(kinds)}")
    return max(fits, key=len)


def check_output(path: str | os.PathLike[str], kinds: Sequence[str]) -> Path:
    """Refuse, before any work is done, an output that could not be written; return it as a Path.

    Raises UsageError for an unknown extension, a folder under that name, or a folder that can't be
    made or written to.
    """
    check_kind(path, kinds)
    target = Path(path)
    if target.is_dir():
        raise UsageError(f"can't write {os.fspath(path)!r}: it is a folder; add a file's name")
    parent = target.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise UsageError(f"can't write {os.fspath(path)!r}: {str(parent)!r} is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"can't write {os.fspath(path)!r}: no permission in {str(parent)!r}")
    return target


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path``, which takes its place when the block ends well.

    Folders are made on the way; a link is followed, so that what it points to is replaced. Whatever
    goes wrong, the file that was there before is untouched and the temporary one is gone. Raises
    UsageError if the file can't be written.
    """
    try:
        target = Path(os.path.realpath(path))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            yield temporary
            os.replace(temporary, target)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: str | os.PathLike[str], error: OSError) -> UsageError:
    """The error for a file that the system refuses to write, with its reason."""
    reason = (error.strerror or str(error)).lower()
    return UsageError(f"can't write {os.fspath(path)!r}: {reason}; choose another place")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8 with ``\\n`` line ends, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(text.encode(errors="backslashreplace"))


def read_bytes(path: str | os.PathLike[str]) -> bytearray:
    """What is in a file or comes through a pipe.

    Raises UsageError where it can't be read, is a device, or has more than LARGEST bytes.
    """
    found = bytearray()  # parts that are joined at the end would be there twice
    try:
        with open(path, "rb") as file:
            if stat.S_ISCHR(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"can't read {os.fspath(path)}: it is a device, and no file")
            while part := file.read(2**20):
                found += part
                if len(found) > LARGEST:
                    raise UsageError(
                        f"can't read {os.fspath(path)}: it is larger than {format_bytes(LARGEST)}"
                    )
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"can't read {os.fspath(path)}: {reason}") from None
    return found


def read_text(path: str | os.PathLike[str]) -> str:
    """The same as UTF-8; UsageError where it isn't."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{os.fspath(path)} is no text, and so nothing that ckpt wrote") from None


def read_json(path: str | os.PathLike[str]) -> Any:
    """The JSON document in a file; UsageError where there is none."""
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{os.fspath(path)} is no JSON document, or is cut off: {error}") from None


def parse_json(text: str | bytes | bytearray) -> Any:
    """A JSON document, to the letter and not DEEPEST deep; ValueError for any other text."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON")

    try:
        data = json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("its lists are nested too deep") from None
    level = [data] if isinstance(data, (list, dict)) else []
    for _ in range(DEEPEST):
        level = [
            item
            for found in level
            for item in (found.values() if isinstance(found, dict) else found)
            if isinstance(item, (list, dict))
        ]
        if not level:
            return data
    raise ValueError("its lists are nested too deep")


@contextmanager
def acyclic() -> Iterator[None]:
    """In this block the garbage collector rests: what is made has no cycles, and a million small
    objects would be searched for them again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
