"""Files that appear whole or not at all, and the errors of those that can't be written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ckpt.errors import UsageError


def check_kind(path: str | os.PathLike[str], kinds: Sequence[str]) -> str:
    """The extension of ``path``, in lower case; UsageError if it isn't one of ``kinds``."""
    suffix = Path(path).suffix.lower()
    if suffix not in kinds:
        has = f"the extension {suffix!r}" if suffix else "no extension"
        raise UsageError(f"can't write {os.fspath(path)!r}: it has {has}; use {' '.join(kinds)}")
    return suffix


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
        temporary.write_bytes(text.encode())
