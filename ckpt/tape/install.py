"""What Values and ops can do once the table of ops is there: NumPy's protocols, operators, methods.

They are put on the classes here, and not written in them, since what they call is built on Values.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.errors import MutationError, TapeError, UnsupportedError
from ckpt.tape.core.apply import apply, call_of, is_recorded
from ckpt.tape.core.dispatch import as_numpy, call_function, call_ufunc, known, operand
from ckpt.tape.core.op import ADAPTERS, NUMPY, Op
from ckpt.tape.core.value import Value
from ckpt.tape.eager.backward import backward

OPERATORS = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide,
    "pow": np.power, "matmul": np.matmul, "mod": np.remainder, "floordiv": np.floor_divide,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "eq": np.equal, "ne": np.not_equal, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor, "lshift": np.left_shift, "rshift": np.right_shift,
}  # fmt: skip
SIGNS = {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}
METHODS = (
    "sum", "prod", "mean", "var", "std", "max", "min", "cumsum", "argmax", "argmin", "argsort",
    "all", "any", "clip", "round", "dot", "squeeze", "swapaxes", "ravel", "repeat", "take",
    "diagonal", "trace", "conj", "conjugate", "choose", "argpartition",
    "cumprod", "nonzero", "searchsorted",
)  # fmt: skip
"""Methods of ndarray that are functions: ``x.sum(axis=0)`` is ``np.sum(x, axis=0)``."""
IN_PLACE = {
    "sort": "np.sort(x)", "partition": "np.partition(x, kth)", "put": "np.where or np.concatenate",
    "fill": "np.broadcast_to(value, x.shape)", "resize": "np.reshape, np.pad or x[:n]",
    "setfield": "np.where", "setflags": "a new Value", "byteswap": "x.data.byteswap()",
    "__delitem__": "np.delete's index: x[kept]",
}  # fmt: skip
"""Methods that write into the array, and what makes a new one instead."""
OF_MEMORY = ("view", "getfield", "tobytes", "tofile", "dump", "dumps")
"""Methods that read an array's bytes."""


def install() -> None:
    """Complete `Value` and `Op`."""
    for name, ufunc in OPERATORS.items():
        _operator(name, NUMPY[ufunc])
    _power(*(getattr(Value, name) for name in ("__pow__", "__rpow__")))
    for name, ufunc in SIGNS.items():
        _sign(name, NUMPY[ufunc])
    for name in METHODS:
        function = getattr(np, name, None)
        if function in NUMPY or function in ADAPTERS:
            _method(name, function)
    numpy: Any = np
    for name, attribute in {
        "__array_ufunc__": call_ufunc,
        "__array_function__": call_function,
        "backward": backward,
        "reshape": _reshape,
        "transpose": _transpose,
        "flatten": lambda self, order="C": numpy.ravel(self, order),
        "flat": property(lambda self: numpy.ravel(self)),
        "copy": _copy,
        "astype": _astype,
        "compress": lambda self, condition, axis=None: numpy.compress(condition, self, axis),
        "__contains__": lambda self, item: bool(numpy.any(numpy.equal(self, item))),
        "__round__": lambda self, ndigits=0: numpy.round(self, ndigits or 0),
        "__divmod__": lambda self, other: numpy.divmod(self, other),
        "__rdivmod__": lambda self, other: numpy.divmod(other, self),
        "T": property(lambda self: numpy.transpose(self)),
        "mT": property(lambda self: numpy.swapaxes(self, -1, -2)),
        "real": property(lambda self: numpy.real(self)),
        "imag": property(lambda self: numpy.imag(self)),
        "device": property(lambda self: "cpu"),
        "to_device": _to_device,
    }.items():
        setattr(Value, name, attribute)
    for name, instead in IN_PLACE.items():
        _refusal(
            name,
            MutationError,
            f"x.{name} writes into the array, which Values don't allow, since a backward may need "
            f"what was there; use {instead}",
        )
    for name in OF_MEMORY:
        _refusal(
            name,
            UnsupportedError,
            f"x.{name} is about the bytes of an array, and would lose the gradient; use "
            f"x.data.{name} if none should flow, or x.astype to cast",
        )
    for name in ("base", "ctypes"):
        setattr(Value, name, property(_of_data(name)))
    Op.__call__ = _call  # type: ignore[method-assign]


def _operator(name: str, op: Op) -> None:
    def forward(self: Value, other: Any) -> Any:
        kind = type(other)
        if kind is Value:
            return (op.calls.get("vv") or call_of(op, "vv"))(self, other)
        if kind is float or kind is int:
            return (op.calls.get("vn") or call_of(op, "vn"))(self, other)
        if kind not in known:
            other = operand(other)
            if other is NotImplemented:
                return other
        return apply(op, (self, other))

    def reflected(self: Value, other: Any) -> Any:
        if type(other) is float or type(other) is int:
            return (op.calls.get("nv") or call_of(op, "nv"))(other, self)
        if type(other) not in known:
            other = operand(other)
            if other is NotImplemented:
                return other
        return apply(op, (other, self))

    setattr(Value, f"__{name}__", forward)
    setattr(Value, f"__r{name}__", reflected)


def _power(power: Any, reflected: Any) -> None:
    """``**``, which of complex arrays and of numbers rounds otherwise than np.power."""

    def of_plain(self: Value, x: Any, y: Any) -> Any:
        if self.ndim and self.dtype.kind != "c":
            return None
        return as_numpy(operator.pow, (x, y), {})

    def forward(self: Value, other: Any) -> Any:
        made = of_plain(self, self, other)
        return power(self, other) if made is None else made

    def backward(self: Value, other: Any) -> Any:
        made = of_plain(self, other, self)
        return reflected(self, other) if made is None else made

    for name, method in ("__pow__", forward), ("__rpow__", backward):
        setattr(Value, name, method)


def _sign(name: str, op: Op) -> None:
    setattr(Value, f"__{name}__", lambda self: (op.calls.get("v") or call_of(op, "v"))(self))


def _method(name: str, function: Any) -> None:
    def call(self: Value, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    call.__name__ = name
    call.__doc__ = f"``np.{name}`` of this Value."
    setattr(Value, name, call)


def _refusal(name: str, kind: type[TapeError], message: str) -> None:
    def refuse(self: Value, *args: Any, **kwargs: Any) -> Any:
        raise kind(message)

    refuse.__name__ = name
    refuse.__doc__ = "Not for Values."
    setattr(Value, name, refuse)


def _of_data(name: str) -> Callable[[Value], Any]:
    """An attribute that Values lack, by a line that says where it is."""

    def lacking(self: Value) -> Any:
        raise AttributeError(
            f"a Value has no {name!r}, which is about an array's memory; use x.data.{name}"
        )

    return lacking


def _to_device(self: Any, device: Any, *, stream: Any = None) -> Any:
    if device != "cpu" or stream is not None:
        raise UnsupportedError(f"Values are on 'cpu' alone, not on {device!r}; leave stream out")
    return self


def _copy(self: Any, order: str = "K") -> Any:
    if order not in ("C", "K", "A"):
        raise UnsupportedError(
            f"copy of a Value has no order={order!r}: the copy lies as the array does"
        )
    return np.positive(self)


def _astype(
    self: Any, dtype: Any, order: Any = "K", casting: Any = "unsafe", **options: Any
) -> Any:
    """As ndarray's; ``copy=False`` gives back a Value that has the dtype already."""
    if order != "K" or casting != "unsafe" or not {"copy", "subok"}.issuperset(options):
        raise UnsupportedError("astype of a Value takes a dtype and copy=; leave the rest out")
    return np.astype(self, dtype, copy=options.get("copy", True))


def _reshape(self: Any, *shape: Any, order: Any = "C", copy: bool | None = None) -> Any:
    if copy:
        raise UnsupportedError("reshape of a Value has no copy=True: nobody can write into either")
    new = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    return np.reshape(self, new, order=order)


def _transpose(self: Any, *axes: Any) -> Any:
    if not axes or axes == (None,):
        return np.transpose(self)
    several = len(axes) > 1 or isinstance(axes[0], int)
    return np.transpose(self, axes if several else axes[0])


def _call(self: Op, *operands: Any, **params: Any) -> Any:
    """Apply to Values (recorded on the tape) or plain arrays (just computed).

    A random op is recorded in any case where its result may be wanted twice: in a checkpointed
    region or a trace.
    """
    for name in params:
        if name not in self.static:
            options = ", ".join(self.static) or "none"
            raise UnsupportedError(f"{self.name} has no option {name!r}; it has: {options}")
    if is_recorded(self, operands):
        return apply(self, operands, {**self.static, **params} if self.static else None)
    return self.forward(*operands, **params)
