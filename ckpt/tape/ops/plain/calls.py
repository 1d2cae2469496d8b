"""A NumPy function's call as one primitive, and when it takes the place of our ops."""

from __future__ import annotations

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
from ckpt.tape.ops.linear import scratch
from ckpt.tape.ops.plain.held import HELD, SCRATCH, decomposed, of_values

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
    given = [abstract(a) for a in arrays]
    if (matrix := decomposed(call.function, call.given, given[0])) is not None:
        return of_values(given[0], matrix)
    copies = sum(
        a.size * max(a.itemsize, out.itemsize)
        for a in given
        if a.strides != contiguous(a.shape, a.itemsize)
    )
    return int(HELD[call.function](call.given[1], call.kernel(arrays).workspace + copies, given))


def _scratch(out: Any, *arrays: Any, call: NumpyCall, name: str) -> int:
    if (matrix := decomposed(call.function, call.given, abstract(arrays[0]))) is not None:
        return scratch.singular_values(out, matrix)
    own = SCRATCH.get(call.function)
    return int(own(out, *arrays) if own else call.kernel(arrays).scratch)


@op(
    infer=lambda *arrays, call, name: call.infer(*arrays),
    flops=lambda out, *arrays, call, name: call.kernel(arrays).flops,
    **scratch.held(_workspace, _scratch),
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


ROUNDED.update(dict.fromkeys(HELD, by_numpy))
