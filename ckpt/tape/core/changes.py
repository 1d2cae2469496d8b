"""Changes in place: what a backward reads must be what the forward read.

What the tape computes can't be written into. What it was given can: the data of a leaf, plain
arrays, arrays of indices, memory-mapped files, and views of them. Where such memory will be read
again - by a rule, by a replay, by a later line of a planned step - its *fingerprint* is taken as
the forward reads it and again before it is read the next time; MutationError where they differ.

By default arrays up to 64 KiB are read whole, and larger ones where 256 runs of 32 bytes lie,
spread evenly, and at their end: whatever changes the whole array is seen, and what changes a small
part of it may not be. ``check="all"`` reads every byte of every array, ``check=None`` none at all;
the environment variable ``CKPT_CHECK`` (``all``, ``default``, ``none``), read as ckpt is imported,
says what holds where nothing is given. A fingerprint is a CRC-32: it sees every change that lies
within 32 bits, and of all others misses one in 2**32. Of an array of objects it sees which they
are, and not what they hold.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from types import CodeType
from typing import TYPE_CHECKING, Any, Literal
from zlib import crc32

import numpy as np

from ckpt.errors import MutationError, UsageError
from ckpt.tape.core.sources import place, said
from ckpt.units import KIB

if TYPE_CHECKING:
    from ckpt.tape.core.node import TapeNode

Check = Literal["default", "all"] | None
"""How closely arrays are watched."""

RUNS, RUN = 256, 32
"""What is read of a large array: so many runs of so many bytes."""

ndarray = np.ndarray


ALL = sys.maxsize


def whole(check: Any) -> int:
    """Up to how many bytes an array is read whole; less than none: it isn't read."""
    match check:
        case "default":
            return DEFAULT
        case "all":
            return ALL
        case None:
            return -1
    raise UsageError(f"check is 'default', 'all' or None, not {check!r}")


def _from_environment() -> int:
    said = os.environ.get("CKPT_CHECK", "default")
    found = {"default": 64 * KIB, "all": ALL, "none": -1}.get(said.lower())
    if found is None:
        raise UsageError(f"CKPT_CHECK is 'all', 'default' or 'none', not {said!r}")
    return found


DEFAULT = _from_environment()
"""What holds where nothing else is said."""

# -- fingerprints ----------------------------------------------------------------------------------


def fingerprint(array: Any, whole: int = DEFAULT) -> int:
    """A check sum of an array's bytes: of all of them up to ``whole``, else of a sample.

    Copies nothing of an array's size, whatever its layout.
    """
    if array.nbytes <= whole:
        try:
            return crc32(array)
        except ValueError:  # not in C order
            return _of_all(_in_memory_order(array))
    return _of_large(np.asarray(array), whole)


def _of_large(array: Any, whole: int) -> int:
    if not array.flags.c_contiguous:
        array = _in_memory_order(array)
    if array.nbytes <= max(whole, RUNS * RUN) or array.dtype.hasobject:
        return _of_all(array)
    if not array.flags.c_contiguous:
        return crc32(array[_coordinates(array.shape)])
    memory = array.reshape(-1).view(np.uint8)
    count = memory.size // RUN
    runs = memory[: count * RUN].view(f"V{RUN}")
    return crc32(memory[-RUN:], crc32(runs.take(_spread(count))))


def _in_memory_order(array: Any) -> Any:
    """The same elements in the order in which they lie, those of a broadcast axis once."""
    array = np.asarray(array)
    array = array[
        tuple(
            0 if s == 0 and n else slice(None, None, -1 if s < 0 else 1)
            for n, s in zip(array.shape, array.strides, strict=True)
        )
    ]
    return array.transpose(np.argsort([-s for s in array.strides], kind="stable"))


def _of_all(array: Any) -> int:
    if array.flags.c_contiguous:
        return crc32(array)
    made = 0
    nditer: Any = np.nditer
    flags = ["external_loop", "buffered", "refs_ok", "zerosize_ok"]
    with nditer(array, flags, [["readonly", "contig"]], order="C") as pieces:
        for piece in pieces:
            made = crc32(piece, made)
    return made


@lru_cache(64)
def _spread(count: int) -> Any:
    """Places among ``count``, as even as can be, and at no equal distances."""
    golden = np.arange(RUNS) * 0.6180339887498949
    return np.sort((golden % 1.0 * count).astype(np.intp))


@lru_cache(64)
def _coordinates(shape: tuple[int, ...]) -> Any:
    count = int(np.prod(shape))
    within = np.arange(min(RUN // 8, count))
    places = np.minimum(_spread(count)[:, None] + within, count - 1).ravel()
    return np.unravel_index(np.append(places, count - 1), shape)


# -- what is watched -------------------------------------------------------------------------------


BETWEEN = (
    "between forward and backward; let it read a copy (array.copy()), or change it after backward"
)


class Watch:
    """An array as it was when a line of the program read it."""

    __slots__ = ("array", "print", "verified", "where", "whole")

    def __init__(self, array: Any, found: int, whole: int, where: Any) -> None:
        self.array = array
        self.print = found
        self.whole = whole
        self.where: tuple[CodeType, int] | str = where
        self.verified: object = None
        """The descent that found it unchanged."""

    def verify(self, reader: str, descent: object = None, when: str = BETWEEN) -> None:
        """Raise MutationError unless the array is what it was. Once a descent."""
        if descent is not None and self.verified is descent:
            return
        array = self.array
        if fingerprint(array, self.whole) != self.print:
            shape = "x".join(map(str, array.shape)) or "0-d"
            raise MutationError(
                f"{said(self.where)}: a {shape} {array.dtype} array that {reader} reads was "
                f"changed in place {when}"
            )
        self.verified = descent


def watch(array: Any, whole: int, where: Any = None) -> Watch:
    """Take the array's fingerprint, for the line of the program that runs."""
    return Watch(array, fingerprint(array, whole), whole, where or place())


def watch_operand(source: Any, array: Any, whole: int) -> Watch:
    """The same for an operand; what a leaf's readers find alike is watched once."""
    if isinstance(source, ndarray) or source.op is not None:
        return watch(array, whole)
    found = fingerprint(array, whole)
    known: Watch | None = source.watched
    if known is None or known.print != found or known.whole != whole:
        known = source.watched = Watch(array, found, whole, place())
    return known


def is_given(source: Any) -> bool:
    """Is an operand's memory not the tape's own?"""
    return isinstance(source, ndarray) or getattr(source, "given", False)


def lies_in_given(data: Any, arrays: Any, inputs: Any) -> bool:
    """Is a result a view of memory that isn't the tape's?"""
    return any(
        is_given(source) and isinstance(array, ndarray) and np.may_share_memory(array, data)
        for array, source in zip(arrays, inputs, strict=True)
    )


def options_watched(params: dict[str, Any] | None, whole: int) -> dict[Any, Watch]:
    """The arrays among an op's options, which its rules may read."""
    return {("option", k): watch(array, whole) for k, array in enumerate(arrays_among(params))}


def arrays_among(params: dict[str, Any] | None) -> list[Any]:
    """The arrays that an op's options are, or hold."""
    found: list[Any] = []
    if params:
        for value in params.values():
            _gather(value, found)
    return found


def _gather(value: Any, found: list[Any]) -> None:
    if isinstance(value, ndarray):
        found.append(value)
    elif isinstance(value, (tuple, list)):
        for item in value:
            _gather(item, found)


def verify_read(node: TapeNode, descent: object) -> None:
    """Before the rules of a node read: is what they read unchanged?"""
    assert node.op is not None and node.inputs is not None and node.watched is not None
    # A region watches whatever its replay reads as well.
    reads = None if node.region is None else node.op.keeps(len(node.inputs), node.mask)
    for k, watched in node.watched.items():
        if reads is None or k in reads or type(k) is tuple:
            watched.verify(node.op.name, descent)


def verify_replayed(node: TapeNode, descent: object) -> None:
    """The same before its forward runs again."""
    assert node.op is not None and node.watched is not None
    for watched in node.watched.values():
        watched.verify(node.op.name, descent)
