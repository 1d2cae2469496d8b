"""`Value`: a number or an array that remembers how it was made.

Plain NumPy works on Values: operators, `np.tanh(x)`, `np.sum(x, axis=0)`, `x[1:]`, through NumPy's
own protocols. What NumPy can't hand over (`np.array([value])`, `math.sqrt(value)`) raises.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ckpt.errors import AbstractError, MutationError, TapeError, UnsupportedError
from ckpt.tape.core.abstract import check_class
from ckpt.tape.core.node import Gradient, TapeNode, count
from ckpt.tape.core.sources import called


class Value:
    """A number or an ndarray on the tape.

    ``Value(data)`` makes a leaf: a parameter, whose gradient ``.grad`` (of its shape and dtype)
    accumulates over backwards and is None until then. A Python int becomes a float; float16 to
    longdouble and complex arrays are taken as they are, without a copy. Integer, boolean and object
    arrays raise TapeError: they have no gradient, and can be passed to functions as plain arrays.
    """

    if TYPE_CHECKING:  # installed from the table of ops: see `ckpt.tape.install`

        def __getattr__(self, name: str) -> Any: ...
        def __getitem__(self, index: Any) -> Any: ...
        def backward(self, gradient: Any = None, *, retain_graph: bool = False) -> None: ...

    __slots__ = ("__weakref__", "_array", "_node")
    __array_priority__ = 1000.0

    def __init__(self, data: Any, _node: TapeNode | None = None) -> None:
        if _node is None:
            data, _node = _leaf(data)
        self._array = data
        self._node = _node

    # -- what it is --------------------------------------------------------------------------------

    @property
    def data(self) -> Any:
        """The array or NumPy scalar. A leaf's may be changed between steps, others may not."""
        return self._array

    @data.setter
    def data(self, data: Any) -> None:
        old = self._node
        if old.op is not None or old.gradient is None:
            raise MutationError(
                "only a leaf's .data can be set; this Value was computed: make a new one from it"
            )
        if np.shape(data) != old.shape:
            raise TapeError(
                f"this leaf has shape {old.shape}; its .data can't become one of shape "
                f"{np.shape(data)}"
            )
        if data is not self._array:
            data = np.asarray(data, dtype=old.dtype)[() if np.ndim(data) == 0 else ...]
        # A new node, so that a backward of what was computed before can't read the new value.
        node = TapeNode(None, (), None, 0, data)
        node.requires_grad = True
        node.gradient = old.gradient
        old.value = None
        self._array = data
        self._node = node

    @property
    def grad(self) -> Any:
        """The gradient that rests here: an array of its own, or None."""
        cell = self._node.gradient
        return None if cell is None else cell.value

    @grad.setter
    def grad(self, grad: Any) -> None:
        cell = self._node.gradient
        if cell is None:
            raise TapeError("only a leaf, or a Value that asked with retain_grad(), has a gradient")
        if grad is not None:
            if np.shape(grad) != self._node.shape:
                raise TapeError(
                    f"the gradient of a Value of shape {self._node.shape} can't have shape "
                    f"{np.shape(grad)}"
                )
            grad = np.asarray(grad, dtype=self._node.dtype)[()]
        cell.value = grad

    def __reduce__(self) -> Any:
        """Copies and pickles of a leaf or a constant are Values of their own, with its gradient."""
        if self._node.op is not None:
            raise TapeError(
                "a computed Value can't be copied or pickled, for all that it was computed from "
                "would go with it; copy its .data, or use stop_gradient"
            )
        return _restored, (self._array, self.requires_grad, self.grad)

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
        if self._node.gradient is None:
            self._node.gradient = Gradient()
        return self

    shape = property(lambda self: self._array.shape, doc="Lengths of the axes.")
    dtype = property(lambda self: self._array.dtype, doc="NumPy dtype.")
    ndim = property(lambda self: len(self._array.shape), doc="Number of axes.")
    size = property(lambda self: int(np.prod(self._array.shape)), doc="Number of elements.")
    nbytes = property(lambda self: self._array.nbytes, doc="Bytes of the data.")

    itemsize = property(lambda self: self._array.dtype.itemsize, doc="Bytes of one element.")
    strides = property(lambda self: self._array.strides, doc="Bytes between neighbours.")
    flags = property(lambda self: _concrete(self, "its flags").flags, doc="Of the data.")

    def item(self, *place: Any) -> Any:
        """The Python number of a one-element Value, or of the element at ``place``; no gradient
        flows through it."""
        return _concrete(self, "its item()").item(*place)

    def tolist(self) -> Any:
        return _concrete(self, "tolist()").tolist()

    def __len__(self) -> int:
        if not self._array.shape:
            raise TypeError("a scalar Value has no len()")
        return int(self._array.shape[0])

    def __iter__(self) -> Iterator[Value]:
        return (self[k] for k in range(len(self)))

    def __repr__(self) -> str:
        made_by = f", by {self._node.op.name}" if self._node.op else ""
        if getattr(self._array, "abstract", False):
            return f"Value({self._array.dtype}{list(self._array.shape)}{made_by})"
        return f"Value({self._array!r}{made_by})"

    def __format__(self, spec: str) -> str:
        return format(_concrete(self, "formatting it"), spec) if spec else repr(self)

    __hash__ = object.__hash__

    # -- plain NumPy -------------------------------------------------------------------------------

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        """What has no gradient to lose, whole numbers and bools, is a plain array on demand."""
        data = self._array
        if getattr(data.dtype, "kind", "f") in "fc":
            raise UnsupportedError(_no_array(called()))
        if getattr(data, "abstract", False):
            raise AbstractError(
                "a plain array can't be indexed by a Value, nor a Value made plain, while only "
                "shapes and dtypes are known; pass the array to the function as an argument, or "
                "use np.take_along_axis or ckpt.nn.embedding(array, index)"
            )
        return np.array(data, dtype, copy=copy)

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


_new_node, _new_value = TapeNode.__new__, Value.__new__
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def leaf(array: Any) -> Value:
    """``Value(array)``, in half the time where it is an array of the usual floats."""
    if type(array) is not np.ndarray or not array.ndim:
        return Value(array)
    if array.dtype is not _FLOAT32 and array.dtype is not _FLOAT64:
        return Value(array)
    node = _new_node(TapeNode)  # as TapeNode(None, (), None, 0, array), without the call
    node.position = count()
    node.inputs = ()
    node.mask = 0
    node.requires_grad = node.given = True
    node.shape = array.shape
    node.dtype = array.dtype
    node.op = node.params = node.value = node.cotangent = node.region = node.watched = None
    node.gradient = Gradient()
    value = _new_value(Value)
    value._array = array
    value._node = node
    return value


def _leaf(data: Any) -> tuple[Any, TapeNode]:
    if isinstance(data, Value):
        raise TapeError("this is a Value already; use stop_gradient to cut it from its history")
    if isinstance(data, (bool, int, np.bool_)):
        data = float(data)
    check_class(type(data))
    array = np.asarray(data)
    if array.dtype.kind not in "fc":
        raise TapeError(
            f"a Value of dtype {array.dtype} can't have a gradient; use floats (.astype(float)), "
            "or pass the array as it is, without Value"
        )
    array = array[()] if array.ndim == 0 else array
    node = TapeNode(None, (), None, 0, array)
    node.requires_grad = True
    node.gradient = Gradient()
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


_IN_NN = ("logsumexp", "softmax", "log_softmax", "softplus")
"""Functions that aren't ufuncs in SciPy, and are in `ckpt.nn`."""


def _no_array(function: str) -> str:
    """Why a Value isn't made a plain array, and what to do; ``function`` is what asked for it."""
    if not function:
        return (
            "a Value can't be turned into a plain array, which would lose its gradient; "
            "to build an array of Values use np.stack or np.concatenate (and np.broadcast_to in "
            "place of np.full), and to leave the tape use .data"
        )
    short = function.rpartition(".")[2]
    way_out = f"use ckpt.nn.{short}" if short in _IN_NN else "write it in NumPy's functions"
    return (
        f"{function} makes plain arrays of its arguments, which would lose the gradient of a "
        f"Value; {way_out}, or pass .data if no gradient should flow"
    )


def _concrete(value: Value, what: str) -> Any:
    data = value._array
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
