"""Ops with several results: one tuple node, and an `item` view for each result.

The forward of such an op returns a tuple of arrays; the value of its node is a `Parts`. A cotangent
of an item is accumulated in place into the tuple node's own cotangent, which starts as zeros, so
the rule of a tuple op gets ``g`` as a tuple too. Rules take ``g`` and ``out`` apart with `parts`,
which also works on Values.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import numpy as np

from ckpt.tape.core.abstract import AbstractArray, AbstractParts, Shared
from ckpt.tape.core.apply import apply
from ckpt.tape.core.context import CURRENT
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import op
from ckpt.tape.core.value import Value


def parts(value: Any) -> tuple[Any, ...]:
    """The results that a tuple value holds: arrays, or `item` Values."""
    if isinstance(value, Value):
        return tuple(_taken(value, k) for k in range(len(value._array)))
    # Numbers, and not arrays without axes, which multiply otherwise if they are complex.
    return tuple(part if part.ndim else part[()] for part in value)


def _taken(value: Value, k: int) -> Value:
    """The k-th result, one node however often it is asked for, as in a trace: else what comes to
    it in a backward would be summed in another order."""
    node, context = value._node, CURRENT.get()
    if not node.requires_grad or (context is not None and context.recorder is not None):
        return apply(item, (value,), {"k": k})
    taken = _TAKEN.setdefault(node, WeakValueDictionary())
    known = taken.get(k)
    if known is not None and known.inputs is not None:
        return Value(item.forward(value._array, k=k), known)
    made = apply(item, (value,), {"k": k})
    taken[k] = made._node
    return made


_TAKEN: WeakKeyDictionary[TapeNode, WeakValueDictionary[int, TapeNode]] = WeakKeyDictionary()


@op(infer=lambda x, *, k: Shared(x[k]), view=True)
def item(x: Any, *, k: int = 0) -> Any:
    """One of several results: a view, or, of a number, a copy."""
    return x[k] if x[k].ndim else x[k].copy()


def _add_item(target: Any, g: Any, k: int) -> None:
    target[k][...] += g


@op(infer=lambda g, *, shapes, dtypes, k: AbstractParts(map(AbstractArray, shapes, dtypes)))
def alone(g: Any, *, shapes: Any = (), dtypes: Any = (), k: int = 0) -> Any:
    """A tuple of zeros but for the k-th, which is ``g``: what an item contributes to the whole."""
    return tuple(
        g.astype(dtype) if j == k else np.zeros(shape, dtype)
        for j, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))
    )


item.vjp(x=lambda g, x_shape, x_dtype, k: alone(g, shapes=x_shape, dtypes=x_dtype, k=k))
item.accumulate(x=_add_item)
alone.vjp(g=lambda g, k: parts(g)[k])


@op(infer=lambda x, y: x, flops=lambda out, *_: sum(part.size for part in out))
def add_parts(x: Any, y: Any) -> Any:
    """The sum of two tuples, part by part."""
    return tuple(a + b for a, b in zip(x, y, strict=True))


add_parts.vjp(x=lambda g: g, y=lambda g: g)
