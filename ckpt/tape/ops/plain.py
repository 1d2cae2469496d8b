"""What needs no gradient NumPy itself computes, on Values as on plain arrays.

An eager step sees an argument that isn't differentiated as the array that it is, so NumPy makes
what the program makes of such arrays; a trace sees Values, and would run our ops; and so would a
checkpointed region, of what it drew. Most ops call the very same function. Those that round
otherwise, or leave elements in another order, give way here to one primitive, which doesn't.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.tape.core import tree
from ckpt.tape.core.abstract import AbstractArray, abstract, contiguous, fresh
from ckpt.tape.core.apply import apply
from ckpt.tape.core.context import CURRENT
from ckpt.tape.core.cotangents import copy
from ckpt.tape.core.op import ROUNDED, op
from ckpt.tape.core.value import Value
from ckpt.tape.ops.pointwise.buffers import ELEMENTS

_HERE = object()
"""Stands for an array among a call's arguments."""


class NumpyCall:
    """A NumPy function with all its arguments but the arrays."""

    def __init__(
        self, function: Callable[..., Any], args: Any, kwargs: Any, kernel_of: Any
    ) -> None:
        self.function = function
        self.kernel_of = kernel_of
        """Of a trace: the kernel of a function, for given arrays."""
        self.given = tree.rebuild((args, kwargs), lambda x: _HERE if is_operand(x) else x)

    def __call__(self, *arrays: Any) -> Any:
        rest = iter(arrays)
        args, kwargs = tree.rebuild(self.given, lambda x: next(rest) if x is _HERE else x)
        return self.function(*args, **kwargs)

    def kernel(self, arrays: tuple[Any, ...]) -> Any:
        """What our ops would do instead, for the shape, the FLOPs and the workspace."""
        return self.kernel_of(self, arrays)

    def infer(self, *arrays: Any) -> AbstractArray:
        # A miniature, of two elements an axis, has no third smallest one.
        like = copy if self.function is np.partition else self
        return fresh(like, self.kernel(arrays).array.shape, *arrays)


def is_operand(leaf: Any) -> bool:
    return isinstance(leaf, (Value, np.ndarray, AbstractArray))


def _workspace(out: Any, *arrays: Any, call: NumpyCall, name: str) -> int:
    """That of our ops, contiguous copies of the operands that aren't, and what NumPy holds more."""
    given = [abstract(a) for a in arrays]
    copies = sum(
        a.size * max(a.itemsize, out.itemsize)
        for a in given
        if a.strides != contiguous(a.shape, a.itemsize)
    )
    return int(call.kernel(arrays).workspace + copies + sum(map(HELD[call.function], given)))


@op(
    infer=lambda *arrays, call, name: call.infer(*arrays),
    flops=lambda out, *arrays, call, name: call.kernel(arrays).flops,
    workspace=_workspace,
)
def as_numpy(*arrays: Any, call: Any = None, name: str = "") -> Any:
    """NumPy's own result, in memory of its own."""
    made = call(*arrays)
    if isinstance(made, tuple):
        raise TypeError("several results")
    shared = any(np.may_share_memory(made, array) for array in arrays)
    return made.copy(order="K") if shared else made


as_numpy.no_gradient()


def by_numpy(function: Callable[..., Any], args: Any, kwargs: Any) -> Value | None:
    """The call as that primitive, or None: a gradient is needed, there are several results, or it
    goes wrong, and our ops say how."""
    context = CURRENT.get()
    kernel_of = None
    if context is not None and context.recorder is not None:
        kernel_of = context.recorder.kernel_of
        if kernel_of is None:  # of a kernel: what a rule does to plain arrays our ops say
            return None
    operands = [leaf for leaf in tree.leaves((args, kwargs)) if is_operand(leaf)]
    if any(x.requires_grad for x in operands if isinstance(x, Value)):
        return None
    call = NumpyCall(function, args, kwargs, kernel_of)
    try:
        return apply(as_numpy, operands, {"call": call, "name": function.__name__})
    except Exception:
        return None


def _nothing(a: AbstractArray) -> int:
    return 0


def _conjugate(a: AbstractArray) -> int:
    return a.nbytes if a.dtype.kind == "c" else 0


HELD: dict[Any, Callable[[AbstractArray], int]] = {
    **dict.fromkeys(
        (
            np.dot, np.einsum, np.inner, np.kron, np.nansum, np.partition, np.tensordot, np.vdot,
            np.linalg.eigvalsh, np.linalg.matrix_power, np.linalg.multi_dot, np.linalg.svd,
            np.linalg.svdvals, np.linalg.tensordot, operator.pow,
        ),
        _nothing,
    ),
    **dict.fromkeys(
        (np.linalg.matrix_norm, np.linalg.norm, np.linalg.pinv, np.linalg.vector_norm), _conjugate
    ),
    np.linalg.cond: lambda a: a.nbytes + _conjugate(a),  # the inverse, for some norms
    np.nanmean: lambda a: a.size + 8 * min(a.size, ELEMENTS),  # a mask, which is counted
}  # fmt: skip
"""The functions that round otherwise than our ops, or leave elements in another order; and the
bytes that NumPy's own code holds of an operand where ours doesn't."""
ROUNDED.update(dict.fromkeys(HELD, by_numpy))
