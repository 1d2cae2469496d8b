"""The usual calls of an op as Python functions, written from what its rules keep.

`apply` serves any operands and options, within regions and traces too; most calls are of one or two
Values that need a gradient, or of one and a Python number, outside of any. For those there is a
function that makes the same node without asking. Sums, differences, products and quotients of
float64 numbers are Python's operators: IEEE 754 fixes their bits, and a ufunc takes ten times as
long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.tape.core import changes
from ckpt.tape.core.apply import _settled, apply
from ckpt.tape.core.context import CURRENT
from ckpt.tape.core.node import TapeNode, count
from ckpt.tape.core.op import NUMPY, OUT, Op
from ckpt.tape.core.value import Value

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
    else:
        data = forward({xs})
        if type(data) is ndarray and data.ndim:
            data.setflags(False)
        else:
            data = settled(op, ({xs},), data)
"""

_ARRAYS = """
    data = forward({xs})
    if type(data) is ndarray and data.ndim:
        data.setflags(False)
    else:
        data = settled(op, ({xs},), data)
"""

_NODE = """
    node = new_node(TapeNode)
    node.position = count()
    node.op = op
    node.inputs = ({inputs},)
    node.params = None
    node.mask = {mask}
    node.requires_grad = True
    node.shape = data.shape
    node.dtype = data.dtype
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
        "op": op, "apply": apply, "forward": op.forward, "settled": _settled, "count": count,
        "current": CURRENT.get, "TapeNode": TapeNode, "new_node": TapeNode.__new__,
        "Value": Value, "new_value": Value.__new__, "changes": changes, "watched": changes.watched,
        "ndarray": np.ndarray, "float64": np.float64,
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
