"""What LAPACK, BLAS and NumPy's wrappers of them allocate out of tracemalloc's sight, in bytes.

NumPy's gufuncs (``numpy/linalg/umath_linalg.cpp``) copy one matrix of a stack at a time into
buffers of their own, in double precision and Fortran order, with room for the results, and ask the
driver how much work space it wants. What it answers is in LAPACK's own documentation, under
``LWORK`` and ``RWORK``: dgesdd (BDSPAC = 3 k**2 + 4 k; a QR first from 11/6 of k rows on), zgesdd
(RWORK k (5 k + 7)), dsyevd (1 + 6 n + 2 n**2), zheevd (2 n + n**2, RWORK 1 + 5 n + 2 n**2), dgebrd
(3 k + (m + n) NB), dgeqrf, dorgqr and zgeev (n NB), dgetrf, dgesv and dpotrf (none). NB is 32.
OpenBLAS's own buffers come with its first call, and stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

TRACED = tuple(map(int, np.__version__.split(".")[:2])) >= (2, 5)
"""From 2.5 on NumPy's wrapper allocates in tracemalloc's sight: all that is workspace then."""

NB = 32
"""LAPACK's block size for these, ILAENV's."""
INTEGER = 8
"""Bytes of a Fortran integer: NumPy's wheels have 64-bit ones."""


def held(workspace: Callable[..., int], scratch: Callable[..., int]) -> dict[str, Any]:
    """An op's bytes beside operands and result, as tracemalloc sees them."""
    if not TRACED:
        return {"workspace": workspace, "scratch": scratch}
    return {"workspace": lambda *a, **params: workspace(*a, **params) + scratch(*a, **params)}


def _wide(*operands: Any) -> int:
    return 16 if any(x.dtype.kind == "c" for x in operands) else 8


def solving(out: Any, a: Any, *b: Any, **params: Any) -> int:
    """``gesv``: the matrix, the right sides (of an inverse: the identity), the pivots."""
    n: int = a.shape[-1]
    sides: int = b[0].shape[-1] if b and len(b[0].shape) > 1 else 1 if b else n
    return (n * n + n * sides) * _wide(a, *b) + n * INTEGER


def factoring(out: Any, a: Any, **params: Any) -> int:
    """``getrf`` of a determinant: the matrix, the pivots."""
    n: int = a.shape[-1]
    return n * n * _wide(a) + n * INTEGER


def cholesky(out: Any, a: Any, **params: Any) -> int:
    """``potrf``: the matrix alone."""
    return int(a.shape[-1]) ** 2 * _wide(a)


def eigh(out: Any, a: Any, **params: Any) -> int:
    """``syevd``, ``heevd``: the matrix, which the vectors take over; the values; work."""
    n: int = a.shape[-1]
    own = n * n * _wide(a) + n * 8 + (3 + 5 * n) * INTEGER
    if a.dtype.kind == "c":
        return own + max(2 * n + n * n, (NB + 1) * n) * 16 + (1 + 5 * n + 2 * n * n) * 8
    return own + max(1 + 6 * n + 2 * n * n, (NB + 2) * n) * 8


def eigenvalues(out: Any, a: Any, **params: Any) -> int:
    """``syevd`` or ``heevd`` without vectors: the matrix, and a block of its columns."""
    n: int = a.shape[-1]
    return (n * n + (NB + 2) * n) * _wide(a)


def singular_values(out: Any, a: Any, **params: Any) -> int:
    """``gesdd`` without vectors: the matrix, the values; work, RWORK, and IWORK, which LAPACK
    leaves alone then."""
    m, n = map(int, a.shape[-2:])
    k = min(m, n)
    numbers = m * n + 3 * k + (m + n) * NB
    if a.dtype.kind == "c":
        numbers += 7 * k
    return numbers * _wide(a) + k * 8 + (8 * k * INTEGER if TRACED else 0)


def eig(out: Any, a: Any, **params: Any) -> int:
    """``zgeev``: the matrix, the values, the right vectors; work."""
    n: int = a.shape[-1]
    return (2 * n * n + n) * 16 + 2 * n * 8 + n * (NB + 1) * 16


def svd(out: Any, a: Any, **params: Any) -> int:
    """``gesdd``: the matrix, the values, both kinds of vectors; work. For RWORK NumPy takes complex
    numbers, of which LAPACK uses half."""
    m, n = map(int, a.shape[-2:])
    left, right = out[0].shape[-1], out[2].shape[-2]
    k, long = min(m, n), max(m, n)
    wide = _wide(a)
    own = (m * n + m * int(left) + int(right) * n) * wide + k * 8 + 8 * k * INTEGER
    reduce = 3 * k + (m + n) * NB
    first = long >= 11 * k // 6  # MNTHR: a QR of a long matrix comes first
    if a.dtype.kind == "c":
        return own + (reduce + k * k * first) * 16 + k * (5 * k + 7) * (16 if TRACED else 8)
    work = max(reduce, 3 * k + 3 * k * k + 4 * k) + k * k * first
    return own + work * 8


def taking_r(a: Any, r: Any) -> int:
    """A mask to take R out of the factored matrix, and a buffer of NumPy's iterator, if that copy
    isn't in C order."""
    is_turned = abs(a.strides[-1]) > abs(a.strides[-2])
    buffer = min(r.size, np.getbufsize()) * _wide(a) if is_turned else 0
    return int(r.shape[-2] * r.shape[-1] + buffer)


def qr(out: Any, a: Any, **params: Any) -> int:
    """``geqrf``, then ``orgqr``: the factored matrix, Q, the reflectors' factors; work. Neither R
    nor what takes it out is there by then, nor are copies in single precision."""
    m, n = map(int, a.shape[-2:])
    q, r = out
    columns = int(q.shape[-1])
    driver = (m * n + m * columns + min(m, n) + columns * NB) * _wide(a)
    later = q.nbytes + r.nbytes if q.dtype.char in "fF" else taking_r(a, r)
    return max(int(driver) - int(r.nbytes + later), 0)
