"""Decompositions, with several results each: eigh, eig, svd, qr.

Where eigenvalues or singular values coincide, to the precision of their dtype, their vectors have
no derivative: a loss that reads such a vector is refused (`distinct`), and one of the values alone
has its gradient. Sources: Giles,
"An extended collection of matrix derivative results" (Oxford NA-08/01), section 3 (eigh); Boeddeker
et al., arXiv:1701.00392, equation 4.77 (eig); Wan & Zhang, arXiv:1909.02659 (complex svd); Seeger
et al., arXiv:1710.08717 (qr). FLOPs: Golub & Van Loan, *Matrix Computations* (4th ed.), sections
5.2, 7.5, 8.3 and figure 8.6.1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.errors import AbstractError, TapeError, UnsupportedError
from ckpt.tape.core.abstract import AbstractArray, AbstractParts, fresh
from ckpt.tape.core.dispatch import operand
from ckpt.tape.core.op import adapt, op
from ckpt.tape.ops.linear import scratch
from ckpt.tape.ops.linear.linalg import (
    adjoint,
    columns,
    cubic,
    double_precision,
    dtype_of,
    rows,
    sides,
    square,
    stack_of,
    transposed,
)
from ckpt.tape.ops.parts import parts
from ckpt.tape.ops.pointwise.complex_numbers import conjugate

_ONE = np.eye(1)
EigResult, EighResult = type(np.linalg.eig(_ONE)), type(np.linalg.eigh(_ONE))
SVDResult, QRResult = type(np.linalg.svd(_ONE)), type(np.linalg.qr(_ONE))


def inverse_gaps(w: Any) -> Any:
    """The matrix of 1 / (w[j] - w[i]), zero where they are equal."""
    gaps = columns(w) - rows(w)
    equal = gaps == 0
    return np.where(equal, 0, 1 / np.where(equal, 1, gaps))


def _resolution(values: Any, order: int) -> Any:
    """What LAPACK's results may be off by: of the largest value a few units in the last place."""
    size = np.max(np.absolute(values), axis=-1, keepdims=True, initial=0)
    return 4 * max(order, 1) * np.finfo(values.dtype).eps * size


def _copied(x: Any, *_: Any, **params: Any) -> AbstractArray:
    return fresh(np.array, x.shape, x)


@op(infer=_copied)
def distinct(values: Any, *cotangents: Any, name: str = "", inverse: bool = False) -> Any:
    """The values, of which no two coincide whose vectors have a cotangent: columns, none all zero.

    ``inverse``: and none of those is zero, since the rule divides by them.
    """
    close = _resolution(values, max(c.shape[-2] for c in cotangents))
    used = np.logical_or.reduce([(c != 0).any(-2)[..., : values.shape[-1]] for c in cotangents])
    gaps = np.absolute(columns(values) - rows(values)) <= rows(close)
    gaps &= ~np.eye(values.shape[-1], dtype=bool)
    equal = gaps & (rows(used) | columns(used))
    zero = used & (np.absolute(values) <= close) & inverse
    if equal.any() or zero.any():
        why = "are equal" if equal.any() else "of a matrix without full rank are zero"
        raise TapeError(
            f"{name}: two or more values {why} to the precision of {values.dtype}, and the loss "
            "reads their vectors, which have no derivative there; compute it from the values alone "
            "(eigvalsh, svdvals), or from a matrix whose values differ"
        )
    return np.array(values)


distinct.vjp(values=lambda g: g, cotangents=None)


@op(infer=_copied)
def independent(x: Any, *, name: str = "") -> Any:
    """The matrix, which must have an inverse for the rule of ``name``."""
    s = np.linalg.svd(x, compute_uv=False) if x.size else np.ones(1)
    if (s[..., -1:] <= _resolution(s, x.shape[-1])).any():
        raise TapeError(
            f"{name}: columns are linearly dependent to the precision of {x.dtype}, where there is "
            "no derivative"
        )
    return np.array(x)


independent.vjp(x=lambda g: g)


def diagonal(x: Any) -> Any:
    return np.diagonal(x, axis1=-2, axis2=-1)


# -- eigh, eig -------------------------------------------------------------------------------------


def _infer_eigh(x: Any, *, UPLO: str) -> AbstractParts:
    square(x)
    dtype_of(x)
    shapes = x.shape[:-1], x.shape
    return AbstractParts(fresh(_of_eigh, shape, x, part=k) for k, shape in enumerate(shapes))


def _of_eigh(x: Any, part: int) -> Any:
    return np.linalg.eigh(x)[part]


@op(infer=_infer_eigh, flops=cubic(9), **scratch.held(double_precision, scratch.eigh))
def eigh(x: Any, *, UPLO: str = "L") -> Any:
    return tuple(np.linalg.eigh(x, UPLO))  # type: ignore[call-overload]


def _eigh(g: Any, out: Any, UPLO: str) -> Any:
    g_values, g_vectors = parts(g)
    w, v = parts(out)
    w = distinct(w, g_vectors, name="eigh")
    inner = inverse_gaps(w) * np.matmul(transposed(v), g_vectors)
    v_conj = conjugate(v)
    m = np.matmul(np.matmul(v_conj, inner) + v_conj * columns(g_values), transposed(v))
    m = m + adjoint(m)  # NumPy reads one triangle, and takes the other to be its mirror image
    if UPLO.upper() == "L":
        return 0.5 * (np.tril(m) + np.tril(m, -1))
    return 0.5 * (np.triu(m) + np.triu(m, 1))


eigh.vjp(x=_eigh)
adapt(np.linalg.eigh)(lambda a, UPLO="L": EighResult(*parts(eigh(operand(a), UPLO=UPLO))))
adapt(np.linalg.eigvalsh)(lambda a, UPLO="L": parts(eigh(operand(a), UPLO=UPLO))[0])


def _infer_eig(x: Any) -> AbstractParts:
    square(x)
    dtype = dtype_of(x)
    if dtype.kind != "c":
        raise AbstractError(
            "np.linalg.eig of a real matrix is real or complex depending on its values, which are "
            "not known while tracing; pass x.astype(complex), use eigh if it is symmetric, or run "
            "it with real data"
        )
    return AbstractParts((AbstractArray(x.shape[:-1], dtype), AbstractArray(x.shape, dtype)))


@op(infer=_infer_eig, flops=cubic(25), **scratch.held(double_precision, scratch.eig))
def eig(x: Any) -> Any:
    w, v = np.linalg.eig(x)
    return np.ascontiguousarray(w), np.ascontiguousarray(v)


def _eig(g: Any, out: Any) -> Any:
    g_values, g_vectors = parts(g)
    w, v = parts(out)
    w = distinct(w, g_vectors, name="eig")
    vt = transposed(independent(v, name="eig"))
    vt_g = np.matmul(vt, g_vectors)
    # Each vector has length one: what lengthens it is projected out.
    vt_g = vt_g - np.matmul(vt, conjugate(v)) * columns(np.real(diagonal(vt_g)))
    inner = np.matmul(inverse_gaps(w) * vt_g, vt) + rows(g_values) * vt
    return np.linalg.solve(vt, inner)


eig.vjp(x=_eig)
adapt(np.linalg.eig)(lambda a: EigResult(*parts(eig(operand(a)))))
adapt(np.linalg.eigvals)(lambda a: parts(eig(operand(a)))[0])


# -- svd -------------------------------------------------------------------------------------------


def _infer_svd(x: Any, *, full_matrices: bool) -> AbstractParts:
    m, n = sides(x)
    dtype_of(x)
    k, batch = min(m, n), x.shape[:-2]
    left, right = (m, n) if full_matrices else (k, k)
    shapes = (*batch, m, left), (*batch, k), (*batch, right, n)
    return AbstractParts(fresh(_of_svd, shape, x, part=k) for k, shape in enumerate(shapes))


def _of_svd(x: Any, part: int) -> Any:
    return np.linalg.svd(x)[part]


def _svd_flops(out: Any, x: Any, *, full_matrices: bool) -> int:
    short, long = sorted(sides(x))
    if full_matrices:
        work = 4 * long**2 * short + 8 * long * short**2 + 9 * short**3
    else:
        work = 14 * long * short**2 + 8 * short**3
    return int(stack_of(x) * work)


@op(infer=_infer_svd, flops=_svd_flops, **scratch.held(double_precision, scratch.svd))
def svd(x: Any, *, full_matrices: bool = True) -> Any:
    return tuple(np.linalg.svd(x, full_matrices=full_matrices))


def _svd(g: Any, out: Any) -> Any:
    g_u, g_s, g_vh = parts(g)
    u, s, vh = parts(out)
    m, n, k = u.shape[-2], vh.shape[-1], s.shape[-1]
    v, g_v = adjoint(vh), adjoint(g_vh)
    s = distinct(s, g_u, g_v, name="svd", inverse=m != n or u.dtype.kind == "c")
    over = 1 / np.where(np.equal(s, 0), np.inf, s)
    u1, v1, g_u1, g_v1 = u[..., :k], v[..., :k], g_u[..., :k], g_v[..., :k]
    gaps = inverse_gaps(np.square(s))
    ut_g, vt_g = np.matmul(transposed(u1), g_u1), np.matmul(transposed(v1), g_v1)
    inner = gaps * (ut_g - adjoint(ut_g)) * columns(s) + rows(s) * (gaps * (vt_g - adjoint(vt_g)))
    middle = g_s
    if u.dtype.kind == "c":
        middle = middle + 1j * (np.imag(diagonal(ut_g)) * over)
    u_conj = conjugate(u1)
    whole = np.matmul(np.matmul(u_conj, inner) + u_conj * columns(middle), transposed(v1))
    if m > k:  # what lies outside of the span of the left vectors
        rest = transposed(g_u1) - np.matmul(np.matmul(transposed(g_u1), u1), adjoint(u1))
        whole = whole + transposed(np.matmul(v1 * columns(over), rest))
        if u.shape[-1] > k:
            turned = np.matmul(transposed(g_u[..., k:]), u1 * columns(over))
            whole = whole - conjugate(np.matmul(np.matmul(u[..., k:], turned), adjoint(v1)))
    if n > k:
        rest = transposed(g_v1) - np.matmul(np.matmul(transposed(g_v1), v1), adjoint(v1))
        whole = whole + conjugate(np.matmul(u1 * columns(over), rest))
        if v.shape[-1] > k:
            turned = np.matmul(transposed(v1 * columns(over)), g_v[..., k:])
            whole = whole - np.matmul(np.matmul(u_conj, turned), transposed(v[..., k:]))
    return whole


svd.vjp(x=_svd)


@adapt(np.linalg.svd)
def _svd_parts(
    a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False
) -> Any:
    if hermitian:
        raise UnsupportedError(
            "np.linalg.svd of a Value has no hermitian=True; leave it out, or take np.linalg.eigh, "
            "whose absolute values the singular values are"
        )
    if not compute_uv:
        return svdvals(a)
    return SVDResult(*parts(svd(operand(a), full_matrices=bool(full_matrices))))


@adapt(np.linalg.svdvals)
def svdvals(x: Any, /) -> Any:
    """With the vectors, which the rule reads."""
    return parts(svd(operand(x), full_matrices=False))[1]


# -- qr --------------------------------------------------------------------------------------------


def _infer_qr(x: Any, *, mode: str) -> AbstractParts:
    m, n = sides(x)
    dtype_of(x)
    inner = m if mode == "complete" else min(m, n)
    shapes = (*x.shape[:-2], m, inner), (*x.shape[:-2], inner, n)
    return AbstractParts(
        fresh(_of_qr, shape, x, part=k, mode=mode) for k, shape in enumerate(shapes)
    )


def _of_qr(x: Any, part: int, mode: str) -> Any:
    return np.linalg.qr(x, mode)[part]  # type: ignore[call-overload]


def _qr_flops(out: Any, x: Any, *, mode: str) -> float:
    m, n = sides(x)
    k = min(m, n)
    factor = 2 * k * k * (max(m, n) - k / 3)
    vectors = (
        4 * (m * m * k - m * k * k + k**3 / 3) if mode == "complete" else 2 * k * k * (m - k / 3)
    )
    return stack_of(x) * (factor + vectors)


def _qr_workspace(out: Any, x: Any, *, mode: str) -> int:
    """The operand is copied and factored in place, in double precision. Then there is either what
    takes R out of it, or the copies of Q and R in single precision beside those in double."""
    q, r = out
    wide = 16 if q.dtype.kind == "c" else 8
    held = x.size * wide
    taking = held + scratch.taking_r(x, r)
    if q.dtype.char not in "fF":
        return int(taking)
    return int(
        max(
            taking + (q.size + r.size) * wide - q.nbytes - r.nbytes, held + q.size * wide + r.nbytes
        )
    )


@op(infer=_infer_qr, flops=_qr_flops, **scratch.held(_qr_workspace, scratch.qr))
def qr(x: Any, *, mode: str = "reduced") -> Any:
    return tuple(np.linalg.qr(x, mode))  # type: ignore[call-overload]


def _qr(g: Any, out: Any) -> Any:
    q, r = parts(out)
    g_q, g_r = map(conjugate, parts(g))  # the formulas are of the conjugate cotangents
    n = r.shape[-1]
    k = min(q.shape[-2], n)
    if n > k:  # columns that only R knows: they are Q @ R[:, k:]
        right = r[..., :, k:]
        beyond = np.matmul(q, g_r[..., :, k:])
        g_q = g_q + np.matmul(np.matmul(q, right), adjoint(g_r[..., :, k:]))
    q1, g_q1, g_r1 = q[..., :k], g_q[..., :k], g_r[..., :k, :k]
    r1 = independent(r[..., :k, :k], name="qr")
    both = np.matmul(r1, adjoint(g_r1)) - np.matmul(adjoint(g_q1), q1)
    mirrored = 0.5 * (np.tril(both) + np.tril(both, -1))
    inner = g_q1 + np.matmul(q1, mirrored + adjoint(mirrored))
    if q.shape[-1] > k:  # the columns that complete Q turn against those of A
        inner = inner - np.matmul(np.matmul(q[..., k:], adjoint(g_q[..., k:])), q1)
    whole = adjoint(np.linalg.solve(r1, adjoint(inner)))
    if n > k:
        whole = np.concatenate((whole, beyond), axis=-1)
    return conjugate(whole)


qr.vjp(x=_qr)


@adapt(np.linalg.qr)
def _qr_parts(a: Any, mode: str = "reduced") -> Any:
    if mode not in ("reduced", "complete", "r"):
        raise UnsupportedError(f"np.linalg.qr of a Value has no rule for mode={mode!r}")
    result = QRResult(*parts(qr(operand(a), mode="complete" if mode == "complete" else "reduced")))
    return result.R if mode == "r" else result
