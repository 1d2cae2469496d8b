"""One step forward: compute an op's value and write the tape's node for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.errors import NonFiniteError, TapeError
from ckpt.tape.core import changes
from ckpt.tape.core.changes import (
    DEFAULT,
    OPTION,
    arrays_among,
    is_given,
    lies_in_given,
    watched,
)
from ckpt.tape.core.context import CURRENT, Context
from ckpt.tape.core.generators import random_state
from ckpt.tape.core.node import Parts, TapeNode
from ckpt.tape.core.node import count as next_position
from ckpt.tape.core.op import NUMPY, OUT, Op
from ckpt.tape.core.sources import caller
from ckpt.tape.core.value import Value

ndarray = np.ndarray
_current = CURRENT.get
_new_node = TapeNode.__new__
_new_value = Value.__new__


def apply(op: Op, operands: Any, params: dict[str, Any] | None = None) -> Value:
    """The op's value on ``operands`` (Values, arrays, scalars), recorded on the tape.

    Outside of a region a value that some rule reads is kept on its own node. Nobody else holds it:
    whatever no Backward reads is gone with the caller's last reference.
    """
    arrays = []
    inputs = []
    mask = 0
    bit = 1
    for operand in operands:
        if type(operand) is Value:
            node = operand._node
            arrays.append(operand._array)
            inputs.append(node)
            if node.requires_grad:
                mask |= bit
        else:
            arrays.append(operand)
            inputs.append(operand)
        bit += bit
    if op.blind:
        mask &= ~op.blind
    context = _current()
    if context is not None:
        return _apply_within(context, op, arrays, inputs, params, mask)
    data = op.forward(*arrays) if params is None else op.forward(*arrays, **params)
    if type(data) is ndarray and data.ndim and op.fresh:
        data.setflags(False)  # type: ignore[call-arg]  # a keyword would take longer
    else:
        data = _settled(op, arrays, data)
    return _on_tape(op, arrays, inputs, params, mask, data)


def is_recorded(op: Op, operands: Any) -> bool:
    """Does a call of the op belong on the tape, or is it plain arithmetic on plain arrays?"""
    return any(type(x) is Value for x in operands) or (op.random and _current() is not None)


def _on_tape(
    op: Op,
    arrays: list[Any],
    inputs: list[Any],
    params: Any,
    mask: int,
    data: Any,
    whole: int = DEFAULT,
) -> Value:
    """Write the node, and keep what the rules read, each value on its own node.

    Plain arrays that no rule reads are let go of.
    """
    if op.lacking and not _is_float(data):
        mask = 0
    if not mask:
        node = TapeNode(None, (), None, 0, data)
        node.given = not op.fresh and lies_in_given(data, arrays, inputs)
        return Value(data, node)
    node = _new_node(TapeNode)  # as TapeNode(op, inputs, params, mask, data), without the call
    node.position = next_position()
    node.op = op
    node.inputs = inputs
    node.params = params
    node.mask = mask
    node.requires_grad = True
    node.shape = data.shape
    node.dtype = data.dtype
    node.value = node.cotangent = node.region = node.gradient = None
    node.given = not op.fresh and lies_in_given(data, arrays, inputs)
    count = len(inputs)
    kept = op.kept.get(mask | 1 << count)
    if kept is None:
        kept = op.keeps(count, mask)
    frees = 0
    watches = None
    for option in arrays_among(params) if params else ():
        watches = watched(watches, OPTION, option, whole)
    for k in kept:
        if k == OUT:
            node.value = data
            if node.given:
                watches = watched(watches, k, data, whole)
            continue
        source = inputs[k]
        if type(source) is TapeNode:
            if source.value is None:
                source.value = arrays[k]
                if source.op is not None:  # a leaf may be read by another loss's backward too
                    frees |= 1 << k
            if source.given:
                watches = watched(watches, k, arrays[k], whole)
        elif isinstance(source, ndarray):
            watches = watched(watches, k, source, whole)
    node.frees = frees
    node.watched = watches
    if mask + 1 != 1 << count:  # not every operand is a Value that needs a gradient
        for k, source in enumerate(inputs):
            if type(source) is ndarray and k not in kept:
                inputs[k] = Shape(source)
    value = _new_value(Value)
    value._array = data
    value._node = node
    return value


def _is_float(data: Any) -> bool:
    """Can a gradient flow to the result? Of an op without rules nobody knows before."""
    return isinstance(data, Parts) or data.dtype.kind in "fc"


def compute(op: Op, arrays: Any, params: dict[str, Any] | None) -> Any:
    """The op's forward on plain arrays."""
    data = op.forward(*arrays) if params is None else op.forward(*arrays, **params)
    return _settled(op, arrays, data)


def _settled(op: Op, arrays: Any, data: Any) -> Any:
    """A forward's result as the tape holds it: an array that can't be written into by mistake, or,
    if it has no axes, a NumPy scalar."""
    if type(data) is ndarray:
        if not data.ndim:
            return data[()]
        if any(data is array for array in arrays):
            data = data.view()
        data.setflags(write=False)
        return data
    return data if isinstance(data, np.generic) else _as_data(op, data)


def _as_data(op: Op, data: Any) -> Any:
    if isinstance(data, tuple):
        return together(data)
    if isinstance(data, (bool, int, float, complex)):
        return np.asarray(data)[()]
    if isinstance(data, ndarray):  # of a subclass
        return _settled(op, (), np.asarray(data))
    raise TapeError(f"{op.name} returned a {type(data).__name__}, not an array or a number")


def together(data: tuple[Any, ...]) -> Parts:
    """The results of one op as arrays that can't be written into, and numbers."""
    made = []
    for part in data:
        if np.ndim(part):
            part.setflags(write=False)
            made.append(part)
        else:
            made.append(part[()])
    return Parts(made)


class Shape:
    """What is left of a plain array that no rule reads."""

    __slots__ = ("dtype", "shape")

    def __init__(self, array: Any) -> None:
        self.shape = array.shape
        self.dtype = array.dtype


def _apply_within(
    context: Context,
    op: Op,
    arrays: list[Any],
    inputs: list[Any],
    params: dict[str, Any] | None,
    mask: int,
) -> Value:
    """The same, inside a trace (nothing is computed) or a checkpointed region (nothing is kept)."""
    if context.recorder is not None:
        return context.recorder.record(op, arrays, inputs, params, mask)  # type: ignore[no-any-return]
    state = random_state(params) if op.random else None  # before it draws
    data = compute(op, arrays, params)
    if context.finite and not isinstance(data, Parts) and not np.isfinite(data).all():
        raise NonFiniteError(_not_finite(op, data))
    region = context.region
    if region is None:
        return _on_tape(op, arrays, inputs, params, mask, data, context.whole)
    if op.lacking and not _is_float(data):
        mask = 0
    node = TapeNode(op, inputs, params, mask, data)
    node.region = region
    if not op.fresh:
        node.given = lies_in_given(data, arrays, inputs)
    for option in arrays_among(params):
        node.watched = watched(node.watched, OPTION, option, context.whole)
    for k, source in enumerate(inputs):
        if is_given(source):
            node.watched = watched(node.watched, k, arrays[k], context.whole)
    if op.random:
        node.state = state
    region.enter(node, arrays)
    if region.keeps(node):
        node.value = data
    return Value(data, node)


def _not_finite(op: Op, data: Any) -> str:
    bad = np.argwhere(~np.isfinite(np.atleast_1d(data)))[0]
    value = np.atleast_1d(data)[tuple(bad)]
    at = f" at {list(map(int, bad))}" if np.ndim(data) else ""
    return f"{caller()}: {op.name} gave {value}{at}, the first value that isn't finite"


# -- the usual calls, as Python functions written from what rules keep -----------------------------
#
# `apply` serves any operands and options, within regions and traces too; most calls are of one or
# two Values that need a gradient, or of one and a Python number, outside of any. For those there is
# a function that makes the same node without asking. Sums, differences, products and quotients of
# float64 numbers are Python's operators: IEEE 754 fixes their bits, and a ufunc takes ten times as
# long.

SIGNS = {
    np.add: "x0 + x1", np.subtract: "x0 - x1", np.multiply: "x0 * x1", np.true_divide: "x0 / x1",
    np.negative: "-x0",
}  # fmt: skip
"""Exact operators; power and functions may differ from the ufunc in their last bits."""

Call = Callable[..., Value]


def call_of(op: Op, given: str) -> Call:
    """The function for operands of these kinds: ``v`` a Value, ``n`` a Python float or int."""
    found = op.calls.get(given)
    if found is None:
        plain = op.fresh and not (op.static or op.variadic or op.random or op.blind or op.lacking)
        usual = plain and len(op.operands) == len(given)
        found = op.calls[given] = _written(op, given) if usual else _applied(op)
    return found


def _applied(op: Op) -> Call:
    return lambda *operands: apply(op, operands, dict(op.static) if op.static else None)


_HEAD = """
def call({operands}):
    {nodes}
    if current() is not None or not ({needed}):
        return apply(op, ({operands},))
    {arrays}
"""

_NUMBERS = """
    if {numbers}:
        data = {expression}
        shape = ()
        dtype = double
    else:
        data = forward({xs})
        if type(data) is ndarray and data.ndim:
            data.setflags(False)
        else:
            data = settled(op, ({xs},), data)
        shape = data.shape
        dtype = data.dtype
"""

_ARRAYS = """
    data = forward({xs})
    if type(data) is ndarray and data.ndim:
        data.setflags(False)
    else:
        data = settled(op, ({xs},), data)
    shape = data.shape
    dtype = data.dtype
"""

_NODE = """
    node = new_node(TapeNode)
    node.position = count()
    node.op = op
    node.inputs = ({inputs},)
    node.params = None
    node.mask = {mask}
    node.requires_grad = True
    node.shape = shape
    node.dtype = dtype
    node.value = {value}
    node.cotangent = node.region = node.gradient = None
    node.given = False
    frees = 0
    watches = None
"""

_KEEP = """
    if s{k}.value is None:
        s{k}.value = x{k}
        if s{k}.op is not None:
            frees |= {bit}
    if s{k}.given and type(x{k}) is ndarray:
        watches = watched(watches, {k}, x{k}, changes.DEFAULT, 3)
"""

_TAIL = """
    node.frees = frees
    node.watched = watches
    value = new_value(Value)
    value._array = data
    value._node = node
    return value
"""


def _written(op: Op, given: str) -> Call:
    names: dict[str, Any] = {
        "op": op, "apply": apply, "forward": op.forward, "settled": _settled,
        "count": next_position, "current": _current, "TapeNode": TapeNode, "new_node": _new_node,
        "Value": Value, "new_value": _new_value, "changes": changes, "watched": changes.watched,
        "ndarray": ndarray, "float64": np.float64, "double": np.dtype(np.float64),
    }  # fmt: skip
    values = [k for k, kind in enumerate(given) if kind == "v"]
    mask = sum(1 << k for k in values)
    kept = op.keeps(len(given), mask)
    xs = ", ".join(f"x{k}" for k in range(len(given)))
    operands = ", ".join(f"v{k}" if k in values else f"x{k}" for k in range(len(given)))
    expression = next((e for u, e in SIGNS.items() if NUMPY.get(u) is op), None)
    text = [
        _HEAD.format(
            operands=operands,
            nodes="; ".join(f"s{k} = v{k}._node" for k in values),
            needed=" and ".join(f"s{k}.requires_grad" for k in values),
            arrays="; ".join(f"x{k} = v{k}._array" for k in values),
        )
    ]
    if expression:
        numbers = " and ".join(f"type(x{k}) is float64" for k in values)
        text.append(_NUMBERS.format(numbers=numbers, expression=expression, xs=xs))
    else:
        text.append(_ARRAYS.format(xs=xs))
    inputs = ", ".join(f"s{k}" if k in values else f"x{k}" for k in range(len(given)))
    text.append(_NODE.format(inputs=inputs, mask=mask, value="data" if OUT in kept else None))
    text += [_KEEP.format(k=k, bit=1 << k) for k in kept if k in values]
    text.append(_TAIL)
    exec(compile("".join(text), f"{__file__}:{op.name}", "exec"), names)
    return names["call"]  # type: ignore[no-any-return]
