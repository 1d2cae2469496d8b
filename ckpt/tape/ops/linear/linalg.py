"""Linear algebra: inv, det, slogdet, cholesky, solve, pinv.

All take stacks of matrices. Where a formula isn't obvious it is from Giles, "An extended collection
of matrix derivative results" (Oxford NA-08/01), section 2; Cholesky's is from Murray,
arXiv:1602.07527; the pseudoinverse's from Golub & Pereyra, SIAM J. Numer. Anal. 10 (1973), equation
4.12. FLOPs are the leading terms of Golub & Van Loan, *Matrix Computations* (4th ed.), sections 3.2
and 4.2; an operation on complex numbers counts as one.

Workspace: NumPy computes float32 and complex64 in double precision, and casts whole arrays both
ways. What LAPACK and NumPy's wrapper allocate isn't seen by tracemalloc: it is scratch.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.linalg import LinAlgError

from ckpt.tape.core.abstract import AbstractArray, AbstractParts, fresh
from ckpt.tape.core.dispatch import operand
from ckpt.tape.core.op import adapt, op
from ckpt.tape.ops.linear import scratch
from ckpt.tape.ops.parts import parts
from ckpt.tape.ops.pointwise.complex_numbers import conjugate

SlogdetResult = type(np.linalg.slogdet(np.eye(1)))

# -- shared by all of linear algebra ---------------------------------------------------------------


def transposed(x: Any) -> Any:
    """Each matrix transposed."""
    return np.swapaxes(x, -1, -2)


def adjoint(x: Any) -> Any:
    """Each matrix transposed and conjugated."""
    return conjugate(np.swapaxes(x, -1, -2))


def columns(x: Any) -> Any:
    """A vector's numbers as factors of a matrix's columns."""
    return np.expand_dims(x, -2)


def rows(x: Any) -> Any:
    """A vector's numbers as factors of a matrix's rows."""
    return np.expand_dims(x, -1)


def dtype_of(*operands: Any) -> np.dtype[Any]:
    """The dtype of LAPACK's results, as NumPy has it: integers count as float64."""
    found = []
    for x in operands:
        if x.dtype.kind in "fc" and x.dtype.char not in "fdFD":
            raise TypeError(f"array type {x.dtype} is unsupported in linalg")
        found.append(x.dtype if x.dtype.kind in "fc" else np.dtype(float))
    return np.result_type(*found)


def real_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of a complex dtype's real part."""
    return np.empty(0, dtype).real.dtype


def stack_of(x: Any) -> int:
    """How many matrices there are in the stack."""
    return prod(x.shape[:-2])


def sides(x: Any) -> tuple[int, int]:
    """Rows and columns."""
    if len(x.shape) < 2:
        raise LinAlgError(f"a matrix has at least two axes, and this array {len(x.shape)}")
    m, n = x.shape[-2:]
    return m, n


def square(x: Any) -> int:
    """The order of square matrices."""
    m, n = sides(x)
    if m != n:
        raise LinAlgError(f"the last two axes must be of equal length, and are {(m, n)}")
    return n


def double_precision(out: Any, *operands: Any, **params: Any) -> int:
    """Bytes of the copies NumPy makes since it computes in float64 or complex128 only.

    First the operands are cast; then there is the result in double precision beside, in the end,
    the one in single.
    """
    parts = out if isinstance(out, tuple) else (out,)
    wide = 16 if "c" in {x.dtype.kind for x in operands} else 8
    casts = sum(x.size * wide for x in operands if x.dtype.char not in "dD" or x.itemsize != wide)
    return int(casts + sum(part.nbytes for part in parts if part.dtype.char in "fF"))


def cubic(factor: float) -> Any:
    """FLOPs of a method that takes ``factor`` n**3 for one matrix of order n."""
    return lambda out, x, **params: factor * stack_of(x) * x.shape[-1] ** 3


# -- the ops ---------------------------------------------------------------------------------------


# The axes of a stack lie in the results as they do in the operands; of a miniature's ones, eigh and
# matmul give what inv, cholesky and solve would refuse.


def _vectors(x: Any) -> Any:
    return np.linalg.eigh(x)[1]


def _same(x: Any, **params: Any) -> AbstractArray:
    square(x)
    dtype_of(x)
    return fresh(_vectors, x.shape, x)


@op(
    np.linalg.inv, infer=_same, flops=cubic(2),
    **scratch.held(double_precision, scratch.solving),
)  # fmt: skip
def inv(x: Any) -> Any:
    return np.linalg.inv(x)


inv.vjp(x=lambda g, out: -np.matmul(np.matmul(transposed(out), g), transposed(out)))


def _infer_det(x: Any) -> AbstractArray:
    square(x)
    dtype_of(x)
    return fresh(np.linalg.det, x.shape[:-2], x)


@op(
    np.linalg.det, infer=_infer_det, flops=cubic(2 / 3),
    **scratch.held(double_precision, scratch.factoring),
)  # fmt: skip
def det(x: Any) -> Any:
    return np.linalg.det(x)


def _decomposed(out: Any, x: Any) -> tuple[int, int]:
    """Bytes beside the result, and of scratch, while the singular vectors are found."""
    parts = out, AbstractArray(out.shape[:-1], real_of(out.dtype)), out
    found = out.nbytes + parts[1].nbytes + double_precision(parts, x)
    return int(found), scratch.svd(parts, x)


def _cofactors_workspace(out: Any, x: Any) -> int:
    """The singular vectors, while they are found and while they are multiplied."""
    return max(_decomposed(out, x)[0], 2 * int(out.nbytes))


def _cofactors_scratch(out: Any, x: Any) -> int:
    return max(sum(_decomposed(out, x)) - _cofactors_workspace(out, x), 0)


@op(
    infer=_same, flops=cubic(24), **scratch.held(_cofactors_workspace, _cofactors_scratch),
)  # fmt: skip
def cofactors(x: Any) -> Any:
    """The derivatives of the determinant, which exist for singular matrices too: their singular
    values are the products of the others of x."""
    if not x.size or not np.isfinite(x).all():
        return np.full_like(np.matmul(x, x), np.nan, dtype_of(x))
    u, s, vh = np.linalg.svd(x)
    turned = np.conjugate(np.linalg.det(u) * np.linalg.det(vh))
    for k in range(s.shape[-1]):
        u[..., k] *= (turned * np.prod(np.delete(s, k, -1), -1))[..., None]
    return np.matmul(np.conjugate(u, out=u), np.conjugate(vh, out=vh))


def _cofactors(g: Any, x: Any) -> Any:
    """The derivative of det(x) inv(x).T, which needs the inverse."""
    turned = transposed(np.linalg.inv(x))
    whole = np.expand_dims(np.linalg.det(x), (-2, -1)) * turned
    along = np.expand_dims(np.sum(g * turned, axis=(-2, -1)), (-2, -1))
    return along * whole - np.matmul(np.matmul(turned, transposed(g)), whole)


cofactors.vjp(x=_cofactors)
# Not g * cofactors: of two complex scalars that has other bits than the ufunc.
det.vjp(x=lambda g, x: np.multiply(np.expand_dims(g, (-2, -1)), cofactors(x)))


@op(
    np.linalg.cholesky, infer=_same, flops=cubic(1 / 3),
    **scratch.held(double_precision, scratch.cholesky),
)  # fmt: skip
def cholesky(x: Any, *, upper: bool = False) -> Any:
    return np.linalg.cholesky(x, upper=upper)


def _cholesky(g: Any, out: Any, upper: bool) -> Any:
    if upper:
        g, out = adjoint(g), adjoint(out)
    p = np.matmul(transposed(out), g)
    p = np.linalg.solve(transposed(out), 0.5 * (np.tril(p) + np.tril(p, -1)))
    s = transposed(np.linalg.solve(adjoint(out), transposed(p)))
    return 0.5 * (s + adjoint(s))  # a symmetric change of a symmetric matrix


cholesky.vjp(x=_cholesky)


def _infer_solve(a: Any, b: Any) -> AbstractArray:
    n = square(a)
    vector = len(b.shape) == 1
    if not b.shape or b.shape[0 if vector else -2] != n:
        raise ValueError(f"solve: {a.shape} and {b.shape} don't match")
    dtype_of(a, b)
    if vector:
        return fresh(_times, a.shape[:-1], a, b)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return fresh(_times, (*batch, *b.shape[-2:]), a, b)


def _times(a: Any, b: Any) -> Any:
    return np.matmul(a, b).astype(dtype_of(a, b))


def _solve_flops(out: Any, a: Any, b: Any) -> float:
    n = a.shape[-1]
    stack = out.size // max(n, 1) if len(b.shape) == 1 else stack_of(out)
    return float(stack * 2 / 3 * n**3 + 2 * n * out.size)


@op(
    np.linalg.solve, infer=_infer_solve, flops=_solve_flops,
    **scratch.held(double_precision, scratch.solving),
)  # fmt: skip
def solve(a: Any, b: Any) -> Any:
    return np.linalg.solve(a, b)


def _solve_b(g: Any, a: Any, b_shape: Any) -> Any:
    if len(b_shape) == 1 and len(g.shape) > 1:
        return np.squeeze(np.linalg.solve(transposed(a), rows(g)), axis=-1)
    return np.linalg.solve(transposed(a), g)


def _solve_a(g: Any, out: Any, a: Any, b_shape: Any) -> Any:
    g = _solve_b(g, a, b_shape)
    if len(b_shape) == 1:
        return -rows(g) * columns(out)
    return -np.matmul(g, transposed(out))


solve.vjp(a=_solve_a, b=_solve_b)


@op(np.linalg.pinv)
def pinv(x: Any, *, rcond: Any = None, hermitian: bool = False, rtol: Any = np._NoValue) -> Any:
    """By singular values. ``hermitian`` changes nothing but NumPy's speed."""
    if 0 in x.shape[-2:]:
        return adjoint(x) + 0.0
    if rcond is None:
        rcond = 1e-15 if rtol is np._NoValue else rtol
        if rcond is None:
            rcond = max(x.shape[-2:]) * float(np.finfo(x.dtype).eps)
    u, s, vh = np.linalg.svd(x, full_matrices=False)
    large = s > rcond * np.max(s, axis=-1, keepdims=True)
    s = np.where(large, 1 / np.where(large, s, 1), 0)
    return np.matmul(adjoint(vh), rows(s) * adjoint(u))


def _pinv(g: Any, out: Any, x: Any) -> Any:
    g = transposed(g)
    b = np.matmul(np.matmul(g, out), adjoint(out))
    b = b - np.matmul(x, np.matmul(out, b))
    c = np.matmul(adjoint(out), np.matmul(out, g))
    c = c - np.matmul(np.matmul(c, out), x)
    return conjugate(b + c) - transposed(np.matmul(np.matmul(out, g), out))


pinv.vjp(x=_pinv)


def _infer_slogdet(x: Any) -> AbstractParts:
    square(x)
    dtype_of(x)
    return AbstractParts(fresh(_of_slogdet, x.shape[:-2], x, part=part) for part in (0, 1))


def _of_slogdet(x: Any, part: int) -> Any:
    return np.linalg.slogdet(x)[part]


@op(
    infer=_infer_slogdet, flops=cubic(2 / 3), **scratch.held(double_precision, scratch.factoring),
)  # fmt: skip
def slogdet(x: Any) -> Any:
    return tuple(np.linalg.slogdet(x))


def _slogdet(g: Any, out: Any, x: Any) -> Any:
    g_sign, g = parts(g)
    if x.dtype.kind == "c":  # the sign turns with the phase of the determinant
        g = g + 1j * np.imag(g_sign * parts(out)[0])
    return np.expand_dims(g, (-2, -1)) * transposed(np.linalg.inv(x))


slogdet.vjp(x=_slogdet)
adapt(np.linalg.slogdet)(lambda a: SlogdetResult(*parts(slogdet(operand(a)))))

# -- made of other functions -----------------------------------------------------------------------

adapt(np.linalg.matrix_transpose)(lambda x, /: transposed(operand(x)))
adapt(np.linalg.diagonal)(lambda x, /, *, offset=0: np.diagonal(operand(x), offset, -2, -1))
adapt(np.linalg.trace)(lambda x, /, *, offset=0: np.trace(operand(x), offset, -2, -1))


@adapt(np.linalg.tensorsolve)
def tensorsolve(a: Any, b: Any, axes: Any = None) -> Any:
    a, b = operand(a), operand(b)
    if axes is not None:
        a = np.moveaxis(a, axes, range(-len(axes), 0))
    shape = a.shape[b.ndim :]
    return np.reshape(np.linalg.solve(np.reshape(a, (b.size, -1)), np.reshape(b, -1)), shape)


@adapt(np.linalg.tensorinv)
def tensorinv(a: Any, ind: int = 2) -> Any:
    a = operand(a)
    if ind <= 0:
        raise ValueError(f"tensorinv: ind must be positive, not {ind}")
    inverse = np.linalg.inv(np.reshape(a, (prod(a.shape[:ind]), -1)))
    return np.reshape(inverse, (*a.shape[ind:], *a.shape[:ind]))
