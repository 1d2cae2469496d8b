"""Changes in place: what a backward reads must be what the forward read.

What the tape computes can't be written into. What it was given can: the data of a leaf, plain
arrays, arrays of indices, memory-mapped files, and views of them. Where such memory will be read
again - by a rule, by a replay, by a later line of a planned step - its *fingerprint* is taken as
the forward reads it and again before it is read the next time; MutationError where they differ.

By default arrays up to 64 KiB are read whole, and larger ones where 64 runs of 64 bytes lie,
spread evenly, and at their end: whatever changes the whole array is seen, and what changes a small
part of it may not be. ``check="all"`` reads every byte of every array, ``check=None`` none at all;
the environment variable ``CKPT_CHECK`` (``all``, ``default``, ``none``), read as ckpt is imported,
says what holds where nothing is given. A fingerprint is a CRC-32: it sees every change that lies
within 32 bits, and of all others misses one in 2**32. Of an array of objects it sees which they
are, and not what they hold.

The price (`experiments/bench_tape.py --only check`): of an eager step of an MLP 8 % at width 16 and
5 % at 256 by default, 9 % and 38 % with ``"all"``.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from types import CodeType
from typing import Any, Literal
from zlib import crc32

import numpy as np

from ckpt.errors import MutationError, UsageError
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.sources import is_users, place, said
from ckpt.units import KIB

Check = Literal["default", "all"] | None
"""How closely arrays are watched."""

SMALL = 4 * KIB
"""Up to here an array is read faster than it is told whether it must be."""

RUNS, RUN = 64, 64
"""What is read of a large array: so many runs of so many bytes."""

_RUN = np.dtype(f"V{RUN}")
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
    memory, rest = array.reshape(-1), array.nbytes % RUN
    if rest:
        memory = memory.view(np.uint8)
        made = crc32(memory[-rest:].tobytes())
        memory = memory[:-rest]
    else:
        made = 0
    runs = memory.view(_RUN)
    return crc32(runs.take(_spread(runs.size)), made)


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
    """Places among ``count``, as even as can be, at no equal distances, and the last of all."""
    places = (np.arange(RUNS) * 0.6180339887498949 % 1.0 * count).astype(np.intp)
    return np.append(np.sort(places), count - 1)


@lru_cache(64)
def _coordinates(shape: tuple[int, ...]) -> Any:
    count = int(np.prod(shape))
    places = np.minimum(_spread(count)[:, None] + np.arange(RUN // 4), count - 1)
    return np.unravel_index(places.ravel(), shape)


# -- what is watched -------------------------------------------------------------------------------

Watch = tuple[int, Any, int, int, CodeType | str, int, Any]
"""``(k, array, print, whole, code, at, rest)``: operand k of a node (or `OUT`, or `OPTION`) as the
program's line ``code, at`` read it, and the node's other watches; ``whole`` is 0 of a small array
in C order. Plain tuples are quickest to make, and the least for the cycle collector to walk."""

OPTION = -2
"""The operand's number of an array among the options."""

BETWEEN = (
    "between forward and backward; let it read a copy (array.copy()), or change it after backward"
)


def watched(rest: Watch | None, k: int, array: Any, whole: int, depth: int = 4) -> Watch | None:
    """``rest``, and operand k beside. ``depth``: of the first frame that may be the user's."""
    if type(array) is not ndarray and not isinstance(array, ndarray):
        return rest
    if array.nbytes <= SMALL and whole >= SMALL and array.flags.c_contiguous:
        found, whole = crc32(array), 0  # type: ignore[arg-type]
    elif whole >= 0:
        found = fingerprint(array, whole)
    else:
        return rest
    frame: Any = sys._getframe(depth)
    while frame is not None:
        code = frame.f_code
        if is_users(code.co_filename):
            return k, array, found, whole, code, frame.f_lasti, rest
        frame = frame.f_back
    return k, array, found, whole, "", 0, rest


def watch(array: Any, whole: int, where: str = "") -> Watch:
    """An array as it is now, read at ``where`` or by the line that runs."""
    code, at = (where, 0) if where else place()
    return OPTION, array, fingerprint(array, whole), whole, code, at, None


def verify(watch: Watch, reader: str, when: str = BETWEEN) -> None:
    """Raise MutationError unless the array is what it was."""
    _, array, before, whole, code, at, _ = watch
    if fingerprint(array, whole or SMALL) != before:
        raise _changed(array, code, at, reader, when)


def _changed(array: Any, code: Any, at: int, reader: str, when: str) -> MutationError:
    shape = "x".join(map(str, array.shape)) or "0-d"
    return MutationError(
        f"{said(code, at)}: a {shape} {array.dtype} array that {reader} reads was changed in place "
        f"{when}"
    )


def verify_read(node: Any, descent: object) -> None:
    """Before the rules of a node read: is what they read unchanged?

    The data of a leaf is looked at once a descent, however many read it alike.
    """
    watch, op = node.watched, node.op
    # In a region what a replay alone reads is watched as well.
    reads = None if node.region is None else op.keeps(len(node.inputs), node.mask)
    while watch is not None:
        k, array, before, whole, code, at, watch = watch
        if reads is not None and k not in reads and k != OPTION:
            continue
        if not whole:
            found = crc32(array)
        else:
            leaf = node.inputs[k] if k >= 0 else None
            if type(leaf) is TapeNode and leaf.op is None:
                if leaf.watched == (descent, before):
                    continue
                leaf.watched = descent, before
            found = fingerprint(array, whole)
        if found != before:
            raise _changed(array, code, at, op.name, BETWEEN)


def verify_replayed(node: TapeNode) -> None:
    """The same before its forward runs again, of all that it reads."""
    assert node.op is not None
    watch = node.watched
    while watch is not None:
        verify(watch, node.op.name)
        watch = watch[-1]


# -- what is given ---------------------------------------------------------------------------------


def is_given(source: Any) -> bool:
    """Is an operand's memory not the tape's own?"""
    return isinstance(source, ndarray) or getattr(source, "given", False)


def lies_in_given(data: Any, arrays: Any, inputs: Any) -> bool:
    """Is a result a view of memory that isn't the tape's?"""
    return isinstance(data, ndarray) and any(
        is_given(source) and isinstance(array, ndarray) and np.may_share_memory(array, data)
        for array, source in zip(arrays, inputs, strict=True)
    )


def arrays_among(params: dict[str, Any] | None) -> list[Any]:
    """The arrays that an op's options are, or hold."""
    found: list[Any] = []
    for value in params.values() if params else ():
        if isinstance(value, (ndarray, tuple, list)):
            _gather(value, found)
    return found


def _gather(value: Any, found: list[Any]) -> None:
    if isinstance(value, ndarray):
        found.append(value)
    elif isinstance(value, (tuple, list)):
        for item in value:
            _gather(item, found)
