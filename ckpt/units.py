"""Bytes and FLOPs as people write them. The only place that knows 2**20.

Bytes are shown in IEC units (KiB, MiB, GiB); both IEC and decimal units (kB, MB, GB) are read.
One multiply-add is 2 FLOPs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from operator import index
from typing import TypeVar

from ckpt.errors import UnitError, UsageError

T = TypeVar("T")

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40

BYTES = ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"), (1, "B"))
FLOPS = (
    (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1e3, "kFLOP"), (1, "FLOP"),
)  # fmt: skip
SECONDS = ((1, "s"), (1e-3, "ms"), (1e-6, "µs"))

_UNITS = {
    "b": 1, "byte": 1, "bytes": 1,
    "kib": KIB, "mib": MIB, "gib": GIB, "tib": TIB,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z%]*)\s*")

FLOP_NOTE = "1 multiply-add = 2 FLOPs; elementwise 1 per function per element; moving data 0"


def as_int(value: object) -> int | None:
    """A whole number of whatever kind, NumPy's too; None for anything else, a bool included."""
    if isinstance(value, bool):
        return None
    try:
        return index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def at_least(least: int, name: str, value: object) -> int:
    """The option ``name`` as an int; UsageError, naming it, if it is none or below ``least``."""
    number = as_int(value)
    if number is None or number < least:
        raise UsageError(f"{name} must be a whole number, at least {least}, not {value!r}")
    return number


def listed(name: str, values: Iterable[T]) -> list[T]:
    """The option ``name`` as a list; UsageError for a text, which is one thing, or no list."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise UsageError(f"{name} is a list, as in [{values!r}], not {values!r}")
    return list(values)


def parse_bytes(text: str | int, *, of: int | None = None) -> int:
    """Read a number of bytes: ``"64MiB"``, ``"8 GB"``, an int, or ``"25%"`` of ``of`` bytes.

    Raises UnitError for a text that is no number, has no unit or an unknown one, or is not
    positive, and for a percentage above 100 or where there is nothing to take it of.
    """
    if not isinstance(text, str):
        count = as_int(text)
        if count is None:
            raise UnitError(f"a number of bytes is an int or a text such as '64MiB', not {text!r}")
        if count <= 0:
            raise UnitError(f"a number of bytes must be positive, not {text}")
        return count
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise UnitError(f"{text!r} is no number of bytes; write for example '64MiB' or '25%'")
    number, unit = float(match[1]), match[2]
    if unit == "":
        raise UnitError(f"{text!r} has no unit; write '{text.strip()}MiB' or '{text.strip()}%'")
    if not number > 0:
        raise UnitError(f"a number of bytes must be positive, not {text!r}")
    if unit == "%":
        if of is None:
            raise UnitError(f"{text!r} is a percentage, and there is nothing here to take it of")
        if number > 100:
            raise UnitError(f"{text!r} is more than store-all needs; write at most '100%'")
        if of * number < 100:
            raise UnitError(f"{text!r} of {of} bytes is not a usable number of bytes")
        return int(of * number / 100)
    factor = _UNITS.get(unit.lower())
    if factor is None:
        raise UnitError(f"unknown unit {unit!r} in {text!r}; use B, KiB, MiB, GiB, kB, MB, GB or %")
    nbytes = number * factor
    if nbytes < 1 or nbytes == float("inf"):
        raise UnitError(f"{text!r} is not a usable number of bytes")
    return int(nbytes)


def format_bytes(nbytes: float) -> str:
    """Show bytes with three significant digits in IEC units: ``1536 -> "1.5 KiB"``."""
    sign, size = ("-", -nbytes) if nbytes < 0 else ("", nbytes)
    for factor, unit in BYTES[:-1]:
        if size >= factor:
            return f"{sign}{_three_digits(size / factor)} {unit}"
    return f"{sign}{size:.0f} B"


def in_one_unit(
    values: Sequence[float], units: Sequence[tuple[float, str]]
) -> tuple[str, list[str]] | None:
    """The numbers of a column in one of ``units``, and its name, so that they compare at a glance.

    The largest unit in which no more than one in four vanishes (``<0.01``); None where there is
    none, because the numbers are too far apart.
    """
    largest = max(map(abs, values), default=0)
    there = [value for value in values if value]
    for factor, unit in units:
        size = largest / factor
        if size < 1 and unit != units[-1][1]:
            continue
        if size >= 1e5 or not largest:
            break
        whole = all(value % factor == 0 for value in values)
        digits = 0 if whole or size >= 1e4 else 1 if size >= 100 or unit == "%" else 2
        gone = [value for value in there if abs(value) / factor < 0.5 * 10**-digits]
        if 4 * len(gone) <= len(there):
            least = f"<{10**-digits:.{digits}f}"
            return unit, [
                "0" if not v else least if v in gone else f"{v / factor:.{digits}f}" for v in values
            ]
    return None


def rounded_up(nbytes: int) -> str:
    """Bytes as an option takes them, not fewer than there are: ``3250000 -> "3.1MiB"``."""
    factor, unit = next(((f, u) for f, u in BYTES[:-1] if nbytes >= f), (1, "B"))
    return f"{math.ceil(10 * nbytes / factor) / 10:g}{unit}" if factor > 1 else f"{nbytes}B"


def part(some: int, of: int) -> str:
    """Bytes beside all there are, with one unit where it is the same: ``31.4 of 126 MiB``."""
    (number, unit), whole = format_bytes(some).split(), format_bytes(of)
    if whole == f"{number} {unit}":
        return whole
    return f"{number} of {whole}" if whole.split()[1] == unit else f"{number} {unit} of {whole}"


def format_flops(flops: float) -> str:
    """Show FLOPs with three significant digits and a decimal prefix: ``2.5e9 -> "2.5 GFLOP"``."""
    for factor, unit in FLOPS[:-1]:
        if flops >= factor:
            return f"{_three_digits(flops / factor)} {unit}"
    return f"{flops:.0f} FLOP"


def format_seconds(seconds: float) -> str:
    """Show a duration with three significant digits: ``0.0042 -> "4.2 ms"``."""
    for factor, unit in SECONDS[:-1]:
        if seconds >= factor:
            return f"{_three_digits(seconds / factor)} {unit}"
    return f"{_three_digits(seconds * 1e6)} µs"


def _three_digits(number: float) -> str:
    digits = 0 if number >= 100 else 1 if number >= 10 else 2
    text = f"{number:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
