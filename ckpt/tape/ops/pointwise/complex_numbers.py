"""Complex numbers: what isn't holomorphic.

Of a real loss L and z = x + iy the gradient is dL/dx - i dL/dy, as in HIPS autograd. A real operand
takes the real part of its cotangent, and a complex one takes a real cotangent as it is: the tape
casts both ways.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.errors import AbstractError
from ckpt.tape.core.abstract import AbstractArray, Shared, contiguous, elementwise, view
from ckpt.tape.core.op import adapt, op
from ckpt.tape.core.value import Value
from ckpt.tape.ops.pointwise.arithmetic import size, ufunc


@op(np.real, infer=lambda x: view(np.real, x), view=True)
def real(x: Any) -> Any:
    return np.real(x)


real.vjp(x=lambda g: g)


def _infer_imag(x: Any) -> AbstractArray | Shared:
    if x.dtype.kind == "c":
        return view(np.imag, x)
    order = sorted(range(len(x.shape)), key=lambda k: (-abs(x.strides[k]), k))
    return AbstractArray(x.shape, x.dtype, contiguous(x.shape, x.itemsize, tuple(order)))


@op(np.imag, infer=_infer_imag, view=True)
def imag(x: Any) -> Any:
    # Of a real array NumPy's zeros can't be written into, nor may they be by what comes after.
    return np.imag(x) if x.dtype.kind == "c" else np.zeros_like(x)


imag.vjp(x=lambda g: g * -1j)


def conjugate(x: Any) -> Any:
    """The complex conjugate; what is real is left as it is."""
    return np.conjugate(x) if x.dtype.kind == "c" else x


ufunc(np.conjugate, flops=None).vjp(x=lambda g: conjugate(g))


def _absolute_x(g: Any, x: Any) -> Any:
    return g * conjugate(np.sign(x))


ufunc(np.absolute).vjp(x=_absolute_x)


sign = op(name="sign", infer=elementwise(np.sign), flops=size)(np.sign).no_gradient()
unit = op(name="complex_sign", infer=elementwise(np.sign), flops=size)(np.sign)


def _unit_x(g: Any, out: Any, x: Any) -> Any:
    """What turns z turns z / |z|; what lengthens it is projected out."""
    length = np.absolute(np.where(np.equal(x, 0), np.inf, x))
    return (g - np.real(g * out) * np.conjugate(out)) / length


unit.vjp(x=_unit_x)
adapt(np.sign)(lambda x: (unit if x.dtype.kind == "c" else sign)(x))


@adapt(np.angle)
def _angle(z: Any, deg: bool = False) -> Any:
    angle = np.arctan2(np.imag(z), np.real(z))
    return np.degrees(angle) if deg else angle


adapt(np.isreal)(lambda x: np.equal(np.imag(x), 0))
adapt(np.iscomplex)(lambda x: np.not_equal(np.imag(x), 0))


@adapt(np.real_if_close)
def _real_if_close(a: Any, tol: float = 100) -> Any:
    if a.dtype.kind != "c":
        return a
    if not isinstance(a, Value) or getattr(a.data, "abstract", False):
        raise AbstractError(
            "the dtype of np.real_if_close depends on values, and only shapes and dtypes are known "
            "while tracing; use np.real, or run it with real data"
        )
    return np.real(a) if np.real_if_close(a.data, tol).dtype.kind != "c" else a
