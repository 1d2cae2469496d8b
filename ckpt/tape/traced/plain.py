"""What an eager step computes of plain arrays alone, NumPy itself computes in a plan too.

An eager step sees an argument that isn't differentiated as the array that it is, so NumPy makes
what the program makes of such arrays; a trace sees Values, and would run our ops. Most of them call
the very same function. Those of `ROUNDED` round otherwise, or leave elements in another order, and
are called here as one primitive, on the plain arrays.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.tape.core import tree
from ckpt.tape.core.abstract import AbstractArray, abstract, contiguous, fresh
from ckpt.tape.core.cotangents import copy
from ckpt.tape.core.op import op
from ckpt.tape.core.value import Value
from ckpt.tape.traced.kernel import Kernel, trace_kernel

ROUNDED = frozenset(
    {
        np.dot, np.einsum, np.inner, np.kron, np.partition, np.tensordot, np.vdot, np.linalg.cond,
        np.linalg.matrix_norm, np.linalg.matrix_power, np.linalg.multi_dot, np.linalg.norm,
        np.linalg.svd, np.linalg.svdvals, np.linalg.tensordot, np.linalg.vector_norm, operator.pow,
    }
)  # fmt: skip


class NumpyCall:
    """A NumPy function with all its arguments but the arrays."""

    def __init__(self, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
        self.function = function
        self.given = tuple(args), kwargs

    def __call__(self, *arrays: Any) -> Any:
        rest = iter(arrays)
        args, kwargs = tree.rebuild(self.given, lambda x: next(rest) if is_operand(x) else x)
        return self.function(*args, **kwargs)

    def operands(self) -> list[Any]:
        return [leaf for leaf in tree.leaves(self.given) if is_operand(leaf)]

    def kernel(self, arrays: tuple[Any, ...]) -> Kernel:
        """What our ops would do instead, for the shape, the FLOPs and the workspace."""
        return trace_kernel(self, arrays)

    def infer(self, *arrays: Any) -> AbstractArray:
        # A miniature, of two elements an axis, has no third smallest one.
        like = copy if self.function is np.partition else self
        return fresh(like, self.kernel(arrays).array.shape, *arrays)


def is_operand(leaf: Any) -> bool:
    return isinstance(leaf, (Value, np.ndarray, AbstractArray))


def _workspace(out: Any, *arrays: Any, call: NumpyCall, name: str) -> int:
    """That of our ops, and contiguous copies of the operands that aren't."""
    given = [abstract(a) for a in arrays]
    copied = [a.size for a in given if a.strides != contiguous(a.shape, a.itemsize)]
    return int(call.kernel(arrays).workspace + sum(copied) * out.itemsize)


@op(
    infer=lambda *arrays, call, name: call.infer(*arrays),
    flops=lambda out, *arrays, call, name: call.kernel(arrays).flops,
    workspace=_workspace,
)
def as_numpy(*arrays: Any, call: Any = None, name: str = "") -> Any:
    """NumPy's own result, in memory of its own."""
    made = call(*arrays)
    return made.copy(order="K") if isinstance(made, np.ndarray) and made.ndim else made


as_numpy.no_gradient()
