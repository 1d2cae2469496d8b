"""When glibc gives pages back to the kernel: which decides what its witness sees, and the time.

Above two thresholds a free gives its pages back, and the next array gets new ones, zeroed. They
rise by themselves as large arrays are freed, unless one of them is set: then both stay where they
are. So whoever sets ``MALLOC_TRIM_THRESHOLD_`` alone, as Dask's nanny does, has every array of
128 KiB mapped and zeroed anew.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

from ckpt.units import KIB, MIB

_NUMBERS = {"TRIM_THRESHOLD": -1, "MMAP_THRESHOLD": -3}
"""Of glibc's ``mallopt``."""
_USUAL = {"TRIM_THRESHOLD": 64 * MIB, "MMAP_THRESHOLD": 32 * MIB}
"""Where they come to rest in a process that frees large arrays."""
LARGE = 16 * MIB
"""What a step holds at least for the pages to be worth a word."""
VARIABLES = tuple(f"MALLOC_{name}_" for name in _NUMBERS)


def _glibc() -> tuple[int, ...]:
    """Its version; without numbers where there is another C library."""
    text = ""
    with suppress(ValueError, OSError, AttributeError):
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    version = text.rpartition(" ")[2].split(".")[:2]
    return tuple(map(int, version)) if all(part.isdigit() for part in version) else ()


def _most() -> int:
    """The highest threshold that is heard: glibc before 2.35 passes over more than 32 MiB."""
    return 2**31 - 1 if _glibc() >= (2, 35) else 32 * MIB


def keeping() -> dict[str, str]:
    """The environment in which a process that begins keeps its pages."""
    return dict.fromkeys(VARIABLES, str(_most()))


def hint(nbytes: int) -> str | None:
    """What to set so that a step that holds so many bytes takes less time; None where that is set,
    or would change nothing (`experiments/keeping_pages.py`)."""
    given = [name for name in VARIABLES if name in os.environ]
    if len(given) == len(VARIABLES) or nbytes < LARGE or not _glibc():
        return None
    share = "a fifth" if not given else f"half, as {given[0]} is set alone"
    names = " ".join(f"{name}={value}" for name, value in keeping().items())
    return f"malloc gives pages back, which may be {share} of a step's time; to keep them: {names}"


class _Thresholds:
    """Those of this process, since ``mallopt`` can't be asked for them."""

    def __init__(self) -> None:
        self.resting = {}
        for name, usual in _USUAL.items():
            text = os.environ.get(f"MALLOC_{name}_", "")
            self.resting[name] = int(text) if text.isdecimal() else usual

    def set(self, values: dict[str, int]) -> None:
        with suppress(OSError, AttributeError):  # another C library has no such thing
            libc = ctypes.CDLL(None)
            for name, value in values.items():
                libc.mallopt(_NUMBERS[name], min(value, 2**31 - 1))
        trim()


_thresholds = _Thresholds()


def keep_pages() -> None:
    """From now on this process, though it runs already, keeps the pages that it has."""
    _thresholds.resting = dict.fromkeys(_NUMBERS, _most())
    rest()


def trim() -> None:
    """Give the pages of all that is free back: what is freed between what stays, malloc keeps at
    any threshold."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def give_back_at_once() -> None:
    """Give pages back as soon as they are free, until `rest`."""
    _thresholds.set(dict.fromkeys(_NUMBERS, 64 * KIB))


def rest() -> None:
    """The thresholds as they were."""
    _thresholds.set(_thresholds.resting)
