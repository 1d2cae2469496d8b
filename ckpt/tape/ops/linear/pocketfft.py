"""What NumPy's FFT allocates out of tracemalloc's sight, in bytes.

Source: pocketfft's ``pocketfft_hdronly.h`` as ``numpy/fft/_pocketfft_umath.cpp`` calls it. Each
call makes a plan and lets it go (NumPy builds it without a cache): the twiddle factors of ``cfftp``
or ``rfftp``; or where a large prime makes that dear, ``fftblue``, Bluestein's convolution of at
least twice the length. Lines are transformed as many at a time as a register of
128 bits has room for, in storage of their own: those of the result, and what is left over, aren't
touched yet. That is transformed one by one, in the result where its numbers lie side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

REGISTER = 16
"""Bytes of what NumPy's builds compute at a time: SSE2, NEON, VSX."""


@cache
def transform(length: int, lines: int, real: bool, wide: int, apart: bool) -> int:
    """The plan and what works by it. ``lines``: how many there are to transform, 1 where each is
    filled up with zeros; ``real``: between real and complex numbers, of ``wide`` bytes a real one;
    ``apart``: a line's results don't lie side by side."""
    number = wide if real else 2 * wide
    line = length * number
    if _is_convolved(length, real):
        inner = _good_size(2 * length - 1)
        plan = (_twiddles(inner, False) + length + inner // 2 + 1) * 2 * wide
        work = (2 * inner + length * real) * 2 * wide
    else:
        plan, work = _twiddles(length, real) * number, line
    together = REGISTER // wide
    if lines < together:
        return plan + work + line * apart
    left = lines % together
    return plan + max(together * work - left * line, together * line + work * (left > 0))


def _is_convolved(length: int, real: bool) -> bool:
    if length < 50 or max(_primes(length)) ** 2 <= length:
        return False
    direct = _cost(length) * (0.5 if real else 1)
    return 1.5 * 2 * _cost(_good_size(2 * length - 1)) < direct


def _twiddles(length: int, real: bool) -> int:
    """``twsize``: factors of a plan."""
    found, before = 0, 1
    for factor in _factors(length, real):
        after = length // (before * factor)
        found += (factor - 1) * (after - 1)
        if factor > (5 if real else 11):
            found += factor * (2 if real else 1)
        before *= factor
    return found


def _factors(length: int, real: bool) -> list[int]:
    """Radices in the order in which they are passed; a single 2 comes first."""
    found = []
    for power in (4,) if real else (8, 4):
        while length % power == 0:
            found.append(power)
            length //= power
    if length % 2 == 0:
        found.append(2)
        found[0], found[-1] = found[-1], found[0]
        length //= 2
    return found + list(_primes(length))


def _primes(length: int) -> Iterator[int]:
    divisor = 2
    while divisor * divisor <= length:
        while length % divisor == 0:
            yield divisor
            length //= divisor
        divisor += 1 + divisor % 2
    if length > 1:
        yield length


def _cost(length: int) -> float:
    return length * sum(p if p <= 5 else 1.1 * p for p in _primes(length))


def _good_size(least: int) -> int:
    """The smallest product of 2, 3, 5, 7 and 11 that is at least so large."""
    sizes = {1}
    for prime in (3, 5, 7, 11):
        for size in list(sizes):
            while (size := size * prime) < 2 * least:
                sizes.add(size)
    return min(size << max(0, (-(-least // size) - 1).bit_length()) for size in sizes)
