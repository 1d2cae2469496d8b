"""`Value`: a number or an array that remembers how it was made.

Plain NumPy works on Values: operators, `np.tanh(x)`, `np.sum(x, axis=0)`, `x[1:]`, through NumPy's
own protocols. What NumPy can't hand over (`np.array([value])`, `math.sqrt(value)`) raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ckpt.errors import AbstractError, MutationError, TapeError, UnsupportedError
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import ADAPTERS, NUMPY


class Gradient:
    """Where a gradient rests; shared by a Value and its node, which must not hold each other."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: Any = None


class Value:
    """A number or an ndarray on the tape.

    ``Value(data)`` makes a leaf: a parameter, whose gradient ``.grad`` (of its shape and dtype)
    accumulates over backwards and is None until then. A Python int becomes a float; float16 to
    longdouble and complex arrays are taken as they are, without a copy. Integer, boolean and object
    arrays raise TapeError: they have no gradient, and can be passed to functions as plain arrays.
    """

    if TYPE_CHECKING:  # operators, indexing and methods are installed below, from the table of ops

        def __getattr__(self, name: str) -> Any: ...
        def __getitem__(self, index: Any) -> Any: ...

    __slots__ = ("__weakref__", "_data", "_node")
    __array_priority__ = 1000.0

    def __init__(self, data: Any, _node: TapeNode | None = None) -> None:
        if _node is None:
            data, _node = _leaf(data)
        self._data = data
        self._node = _node

    # -- what it is --------------------------------------------------------------------------------

    @property
    def data(self) -> Any:
        """The array or NumPy scalar. A leaf's may be changed between steps, others may not."""
        return self._data

    @data.setter
    def data(self, data: Any) -> None:
        old = self._node
        if old.op is not None or old.extra is None:
            raise MutationError(
                "only a leaf's .data can be set; this Value was computed: make a new one from it"
            )
        if np.shape(data) != old.shape:
            raise TapeError(
                f"this leaf has shape {old.shape}; its .data can't become one of shape "
                f"{np.shape(data)}"
            )
        if data is not self._data:
            data = np.asarray(data, dtype=old.dtype)[() if np.ndim(data) == 0 else ...]
        # A new node, so that a backward of what was computed before can't read the new value.
        node = TapeNode(None, (), None, 0, data)
        node.requires_grad = True
        node.extra = old.extra
        old.value = None
        self._data = data
        self._node = node

    @property
    def grad(self) -> Any:
        """The gradient that rests here: an array of its own, or None."""
        return self._node.extra.value if isinstance(self._node.extra, Gradient) else None

    @grad.setter
    def grad(self, grad: Any) -> None:
        if not isinstance(self._node.extra, Gradient):
            raise TapeError("only a leaf, or a Value that asked with retain_grad(), has a gradient")
        if grad is not None:
            if np.shape(grad) != self._node.shape:
                raise TapeError(
                    f"the gradient of a Value of shape {self._node.shape} can't have shape "
                    f"{np.shape(grad)}"
                )
            grad = np.asarray(grad, dtype=self._node.dtype)[()]
        self._node.extra.value = grad

    def __reduce__(self) -> Any:
        """Copies and pickles of a leaf or a constant are Values of their own, with its gradient."""
        if self._node.op is not None:
            raise TapeError(
                "a computed Value can't be copied or pickled, for all that it was computed from "
                "would go with it; copy its .data, or use stop_gradient"
            )
        return _restored, (self._data, self.requires_grad, self.grad)

    @property
    def requires_grad(self) -> bool:
        return self._node.requires_grad

    def zero_grad(self) -> None:
        """Forget the gradient, as before the first backward."""
        self.grad = None

    def retain_grad(self) -> Value:
        """Ask that backward leaves this inner Value's gradient in ``.grad``."""
        if not self._node.requires_grad:
            raise TapeError("no gradient flows to this Value, so it can't retain one")
        if not isinstance(self._node.extra, Gradient):
            self._node.extra = Gradient()
        return self

    def backward(self, gradient: Any = None, *, retain_graph: bool = False) -> None:
        """Let cotangents flow from here to every leaf.

        ``gradient``: the cotangent to start from, of this Value's shape; a scalar's is 1. Without
        ``retain_graph`` the values that the backward read are freed as it goes, and a second one
        raises BackwardTwiceError.
        """
        from ckpt.tape.eager.backward import backward

        backward(self, gradient, retain_graph=retain_graph)

    shape = property(lambda self: self._data.shape, doc="Lengths of the axes.")
    dtype = property(lambda self: self._data.dtype, doc="NumPy dtype.")
    ndim = property(lambda self: len(self._data.shape), doc="Number of axes.")
    size = property(lambda self: int(np.prod(self._data.shape)), doc="Number of elements.")
    nbytes = property(lambda self: self._data.nbytes, doc="Bytes of the data.")

    def item(self) -> Any:
        """The Python number of a one-element Value; no gradient flows through it."""
        return _concrete(self, "its item()").item()

    def tolist(self) -> Any:
        return _concrete(self, "tolist()").tolist()

    def __len__(self) -> int:
        if not self._data.shape:
            raise TypeError("a scalar Value has no len()")
        return int(self._data.shape[0])

    def __iter__(self) -> Iterator[Value]:
        return (self[k] for k in range(len(self)))

    def __repr__(self) -> str:
        made_by = f", by {self._node.op.name}" if self._node.op else ""
        if getattr(self._data, "abstract", False):
            return f"Value({self._data.dtype}{list(self._data.shape)}{made_by})"
        return f"Value({self._data!r}{made_by})"

    def __format__(self, spec: str) -> str:
        return format(_concrete(self, "formatting it"), spec) if spec else repr(self)

    __hash__ = object.__hash__

    # -- plain NumPy -------------------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise UnsupportedError(
            "a Value can't be turned into a plain array, which would lose its gradient; "
            "to build an array of Values use np.stack or np.concatenate (and np.broadcast_to in "
            "place of np.full), "
            "to index a plain array by a Value use np.take, and to leave the tape use .data"
        )

    def __bool__(self) -> bool:
        return bool(_concrete(self, "its truth (if, while, and, or, not)"))

    def __float__(self) -> float:
        return float(_number(self, "float"))

    def __int__(self) -> int:
        return int(_number(self, "int"))

    def __index__(self) -> int:
        return _number(self, "index").__index__()  # type: ignore[no-any-return]

    def __complex__(self) -> complex:
        return complex(_number(self, "complex"))

    def __setitem__(self, index: Any, value: Any) -> None:
        raise MutationError(
            "a Value can't be written into (x[i] = v), since a backward may need what was there; "
            "use np.where, np.concatenate or np.stack to make a new one"
        )


def _leaf(data: Any) -> tuple[Any, TapeNode]:
    if isinstance(data, Value):
        raise TapeError("this is a Value already; use stop_gradient to cut it from its history")
    if isinstance(data, (bool, int, np.bool_)):
        data = float(data)
    array = np.asarray(data)
    if array.dtype.kind not in "fc":
        raise TapeError(
            f"a Value of dtype {array.dtype} can't have a gradient; use floats (.astype(float)), "
            "or pass the array as it is, without Value"
        )
    array = array[()] if array.ndim == 0 else array
    node = TapeNode(None, (), None, 0, array)
    node.requires_grad = True
    node.extra = Gradient()
    return array, node


def _restored(data: Any, requires_grad: bool, grad: Any) -> Value:
    if not requires_grad:
        return constant(data)
    value = Value(data)
    value.grad = None if grad is None else grad.copy()
    return value


def constant(data: Any) -> Value:
    """A Value that no gradient flows to."""
    data = data if hasattr(data, "shape") else np.asarray(data)[()]
    return Value(data, TapeNode(None, (), None, 0, data))


def _concrete(value: Value, what: str) -> Any:
    data = value._data
    if getattr(data, "abstract", False):
        raise AbstractError(
            f"the program asked for {what}, but it is being traced: only shapes and dtypes are "
            "known. Use np.where instead of branching on values, or run it with real data"
        )
    return data


def _number(value: Value, kind: str) -> Any:
    data = _concrete(value, f"{kind}() of it")
    if value._node.requires_grad:
        raise UnsupportedError(
            f"{kind}() of a Value would lose its gradient; "
            "use .item() where that is meant, and NumPy's functions in place of math's"
        )
    return data


def _install_protocols() -> None:
    """What NumPy calls when a Value is among a function's arguments."""
    from ckpt.tape.core.dispatch import call_function, call_ufunc

    Value.__array_ufunc__ = call_ufunc  # type: ignore[attr-defined]
    Value.__array_function__ = call_function  # type: ignore[attr-defined]


def _install_operators() -> None:
    """Arithmetic, comparisons and indexing, each a NumPy function's op."""
    from ckpt.tape.core.apply import apply
    from ckpt.tape.core.dispatch import known, operand

    def binary(name: str, ufunc: np.ufunc) -> None:
        op = NUMPY[ufunc]

        def forward(self: Value, other: Any) -> Any:
            if type(other) not in known:
                other = operand(other)
                if other is NotImplemented:
                    return other
            return apply(op, (self, other))

        def reflected(self: Value, other: Any) -> Any:
            if type(other) not in known:
                other = operand(other)
                if other is NotImplemented:
                    return other
            return apply(op, (other, self))

        setattr(Value, f"__{name}__", forward)
        setattr(Value, f"__r{name}__", reflected)

    for name, ufunc in {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide,
        "pow": np.power, "matmul": np.matmul, "mod": np.remainder, "floordiv": np.floor_divide,
        "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
        "eq": np.equal, "ne": np.not_equal, "and": np.bitwise_and, "or": np.bitwise_or,
        "xor": np.bitwise_xor,
    }.items():  # fmt: skip
        binary(name, ufunc)

    def unary(name: str, ufunc: np.ufunc) -> None:
        op = NUMPY[ufunc]
        setattr(Value, f"__{name}__", lambda self: apply(op, (self,)))

    for name, ufunc in {
        "neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert,
    }.items():  # fmt: skip
        unary(name, ufunc)


def _install_methods() -> None:
    """The methods of ndarray that are functions: ``x.sum(axis=0)`` is ``np.sum(x, axis=0)``."""

    def method(name: str) -> None:
        function = getattr(np, name)

        def call(self: Value, *args: Any, **kwargs: Any) -> Any:
            return function(self, *args, **kwargs)

        call.__name__ = name
        call.__doc__ = f"``np.{name}`` of this Value."
        setattr(Value, name, call)

    for name in (
        "sum", "prod", "mean", "var", "std", "max", "min", "cumsum", "argmax", "argmin", "argsort",
        "all", "any", "clip", "round", "dot", "squeeze", "swapaxes", "ravel", "repeat", "take",
        "diagonal", "trace", "sort", "partition", "conj", "conjugate", "astype", "choose",
        "compress", "cumprod", "nonzero", "searchsorted",
    ):  # fmt: skip
        if hasattr(np, name) and (getattr(np, name) in NUMPY or getattr(np, name) in ADAPTERS):
            method(name)

    def reshape(self: Value, *shape: Any, order: str = "C") -> Any:
        new = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return numpy.reshape(self, new, order=order)

    def transpose(self: Value, *axes: Any) -> Any:
        if not axes or axes == (None,):
            return numpy.transpose(self)
        several = len(axes) > 1 or isinstance(axes[0], int)
        return numpy.transpose(self, axes if several else axes[0])

    numpy: Any = np
    methods: dict[str, Any] = {
        "reshape": reshape,
        "transpose": transpose,
        "flatten": lambda self, order="C": numpy.ravel(self, order),
        "copy": lambda self: numpy.positive(self),
        "__round__": lambda self, ndigits=0: numpy.round(self, ndigits or 0),
        "__divmod__": lambda self, other: numpy.divmod(self, other),
        "__rdivmod__": lambda self, other: numpy.divmod(other, self),
        "T": property(lambda self: numpy.transpose(self)),
        "mT": property(lambda self: numpy.swapaxes(self, -1, -2)),
        "real": property(lambda self: numpy.real(self)),
        "imag": property(lambda self: numpy.imag(self)),
    }
    for name, function in methods.items():
        setattr(Value, name, function)
