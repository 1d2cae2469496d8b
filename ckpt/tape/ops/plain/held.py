"""The functions that NumPy itself computes, and what its own code holds meanwhile."""

from __future__ import annotations

import operator
from collections.abc import Callable
from inspect import signature
from math import prod
from typing import Any

import numpy as np

from ckpt.tape.core.abstract import AbstractArray, contiguous
from ckpt.tape.ops.linear import scratch
from ckpt.tape.ops.pointwise.buffers import ELEMENTS

Options = dict[str, Any]
Given = list[AbstractArray]


def _ours(options: Options, ours: int, given: Given) -> int:
    """What our ops hold, and contiguous copies of the operands that aren't."""
    return ours


def _nothing(options: Options, ours: int, given: Given) -> int:
    return 0


def _conjugated(options: Options, ours: int, given: Given) -> int:
    return ours + sum(int(a.nbytes) for a in given if a.dtype.kind == "c")


def _inverted(options: Options, ours: int, given: Given) -> int:
    """The inverse, for some norms."""
    return _conjugated(options, ours, given) + sum(int(a.nbytes) for a in given)


def _masked(options: Options, ours: int, given: Given) -> int:
    """A mask, which is counted."""
    return ours + sum(int(a.size) + 8 * min(int(a.size), ELEMENTS) for a in given)


def _doubled(options: Options, ours: int, given: Given) -> int:
    """One call of LAPACK, which takes double precision."""
    return sum(int(a.size) * _wide(a) for a in given if a.itemsize < _wide(a))


def _wide(a: AbstractArray) -> int:
    return 16 if a.dtype.kind == "c" else 8


def _walked(options: Options, ours: int, given: Given) -> int:
    """One walk over all operands, which are copied in pieces but for one or two of one dtype in C
    order; or, where a path is looked for, products as ours are."""
    if options.get("optimize", False):
        return ours
    common = np.result_type(*(a.dtype for a in given))
    plain = (a.dtype == common and a.strides == contiguous(a.shape, a.itemsize) for a in given)
    if len(given) < 3 and all(plain):
        return 0
    steps = min(prod(int(a.size) for a in given), ELEMENTS)
    return len(given) * steps * common.itemsize


Held = Callable[[Options, int, Given], int]
HELD: dict[Any, Held] = {
    **dict.fromkeys(
        (
            np.dot, np.inner, np.kron, np.nansum, np.tensordot, np.vdot, np.linalg.matrix_power,
            np.linalg.multi_dot, np.linalg.tensordot, operator.pow,
        ),
        _ours,
    ),
    **dict.fromkeys(
        (np.linalg.matrix_norm, np.linalg.norm, np.linalg.pinv, np.linalg.vector_norm),
        _conjugated,
    ),
    **dict.fromkeys((np.linalg.eigvalsh, np.linalg.svd, np.linalg.svdvals), _doubled),
    np.einsum: _walked,
    np.partition: _nothing,
    np.linalg.cond: _inverted,
    np.nanmean: _masked,
}  # fmt: skip
"""The functions that round otherwise than our ops, or leave elements in another order; and the
bytes that NumPy's own code holds beside result and operands, of what ours hold."""
SCRATCH = {
    np.linalg.eigvalsh: scratch.eigenvalues, np.linalg.svd: scratch.singular_values,
    np.linalg.svdvals: scratch.singular_values,
}  # fmt: skip
"""Those that compute no vectors, as ours do."""
_ORDERS = {np.linalg.cond: ("p", (None, 2, -2)), np.linalg.norm: ("ord", ("nuc", 2, -2)),
           np.linalg.matrix_norm: ("ord", ("nuc", 2, -2))}  # fmt: skip
"""Those that compute singular values alone, for some orders."""


def decomposed(function: Any, given: Any, a: AbstractArray) -> AbstractArray | None:
    """One of the matrices whose singular values the function computes, of which it makes a number;
    None: it doesn't. ``given``: its arguments and options."""
    name, orders = _ORDERS.get(function, ("", ()))
    given = signature(function).bind(*given[0], **given[1]).arguments if name else {}
    axes = given.get("axis", (-2, -1) if function is not np.linalg.norm else tuple(range(a.ndim)))
    if given.get(name) not in orders or not isinstance(axes, tuple) or len(axes) != 2:
        return None
    return AbstractArray(tuple(a.shape[k] for k in axes), a.dtype)


def of_values(a: AbstractArray, matrix: AbstractArray) -> int:
    """The singular values of all the matrices, and their copy in double precision."""
    return _doubled({}, 0, [a]) + int(a.size) // max(*matrix.shape, 1) * 8
