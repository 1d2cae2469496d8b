"""Arrays without data: shape, dtype and strides, and how an op's result follows from them.

NumPy itself is asked, on arrays that cost nothing. What a *view* would be is read off a dummy whose
memory is never touched. The dtype and the order of the axes of a fresh result are read off a
miniature, in which every axis longer than one is two long.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ckpt.errors import AbstractError, UnsupportedError
from ckpt.tape.core.node import Parts

LARGEST = 2**63
"""Bytes that no array of NumPy's has."""


class AbstractArray:
    """What is known of an array while tracing. Immutable and hashable."""

    __slots__ = ("_hash", "dtype", "shape", "strides")
    abstract = True

    def __init__(
        self, shape: tuple[int, ...], dtype: Any, strides: tuple[int, ...] | None = None
    ) -> None:
        self.shape = tuple(map(int, shape))
        self.dtype = np.dtype(dtype)
        if self.dtype.hasobject:
            raise UnsupportedError(
                "an array of Python objects can't be traced, since its bytes are elsewhere; make "
                "it one of numbers with .astype(float)"
            )
        if prod(self.shape) * self.dtype.itemsize >= LARGEST:
            raise AbstractError(
                f"an array of shape {list(self.shape)} and {self.dtype} is larger than any can be"
            )
        self.strides = contiguous(self.shape, self.dtype.itemsize) if strides is None else strides
        self._hash = hash((self.shape, self.dtype, self.strides))

    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: prod(self.shape))
    itemsize = property(lambda self: self.dtype.itemsize)
    nbytes = property(lambda self: prod(self.shape) * self.dtype.itemsize)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            type(other) is AbstractArray
            and self._hash == other._hash
            and self.shape == other.shape
            and self.dtype == other.dtype
            and self.strides == other.strides
        )

    def __repr__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"

    def __array_ufunc__(self, *_: Any, **__: Any) -> Any:
        return self.__array__()

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __array_ufunc__
    __rtruediv__ = __pow__ = __matmul__ = __rmatmul__ = __neg__ = __getitem__ = __array_ufunc__
    __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __float__ = __int__ = __array_ufunc__

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise AbstractError(
            "the program asked for the values of an array, but it is being traced: only shapes "
            "and dtypes are known; run it with real data instead"
        )


class AbstractParts(Parts):
    """What is known of a value that is several arrays."""

    __slots__ = ()
    abstract = True
    strides = ()


class Shared:
    """An inferred result that is a view of the op's first operand."""

    __slots__ = ("array",)

    def __init__(self, array: AbstractArray) -> None:
        self.array = array


def check_class(kind: Any) -> None:
    """UnsupportedError for a subclass of ndarray in which a NumPy function means something else."""
    if kind is np.ndarray or not issubclass(kind, np.ndarray):
        return
    names = ("__array_ufunc__", "__array_function__", "__mul__", "__rmul__", "__add__")
    if any(getattr(kind, name) is not getattr(np.ndarray, name) for name in names):
        masked = "np.where(mask, ...) and " if issubclass(kind, np.ma.MaskedArray) else ""
        raise UnsupportedError(
            f"a {kind.__name__} has rules of its own, which would be lost in an expression with "
            f"Values; use {masked}a plain array, np.asarray(x)"
        )


def abstract(array: Any) -> AbstractArray:
    """What is known of a real array or NumPy scalar."""
    if isinstance(array, (AbstractArray, AbstractParts)):
        return array  # type: ignore[return-value]
    if isinstance(array, np.ndarray):
        check_class(type(array))
        return AbstractArray(array.shape, array.dtype, array.strides)
    scalar = np.asarray(array)
    return AbstractArray(scalar.shape, scalar.dtype)


def contiguous(
    shape: tuple[int, ...], itemsize: int, order: tuple[int, ...] | None = None
) -> tuple[int, ...]:
    """Strides of a dense array whose axes lie in ``order``, outermost first (default: C order)."""
    strides = [0] * len(shape)
    step = itemsize
    for axis in reversed(order if order is not None else range(len(shape))):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return tuple(strides)


def dummy(array: AbstractArray) -> Any:
    """An array of this shape and these strides over memory that must never be read."""
    return as_strided(np.empty(1, array.dtype), array.shape, array.strides, writeable=False)


def view(function: Callable[..., Any], x: Any, *args: Any, **params: Any) -> Shared:
    """The view that ``function`` gives of ``x``. Only for functions that never copy."""
    made = function(dummy(abstract(x)), *args, **params)
    return Shared(AbstractArray(made.shape, made.dtype, made.strides))


REMEMBERED = 4096
"""Entries of a cache by shapes: a program whose shapes change from step to step fills no memory."""


def remember(cache: dict[Any, Any], key: Any, found: Any) -> Any:
    """Put ``found`` into a cache, the oldest entry making room for it."""
    if len(cache) >= REMEMBERED:
        del cache[next(iter(cache))]
    cache[key] = found
    return found


_LAYOUTS: dict[Any, tuple[np.dtype[Any], tuple[int, ...]]] = {}


def fresh(
    function: Callable[..., Any], shape: tuple[int, ...], *operands: Any, **params: Any
) -> AbstractArray:
    """A result of known shape, its dtype and the order of its axes those of the miniature."""
    minis = [_pattern(x) for x in operands]
    key: Any = (function, tuple(minis), tuple(params.items()))
    try:
        found = _LAYOUTS.get(key)
    except TypeError:  # an option that can't be hashed
        found, key = None, None
    if found is None:
        with np.errstate(all="ignore"):
            made = function(*map(_miniature, minis), **params)
        found = made.dtype, _axis_order(made)
        if key is not None:
            remember(_LAYOUTS, key, found)
    dtype, order = found
    if len(order) != len(shape):
        order = tuple(range(len(shape)))
    return AbstractArray(shape, dtype, contiguous(shape, dtype.itemsize, order))


def elementwise(function: Callable[..., Any]) -> Callable[..., AbstractArray]:
    """The ``infer`` of an op that treats all its operands element by element."""

    def infer(*operands: Any, **params: Any) -> AbstractArray:
        shape = np.broadcast_shapes(*(np.shape(x) if _is_plain(x) else x.shape for x in operands))
        return fresh(function, shape, *operands, **params)

    return infer


def _is_plain(x: Any) -> bool:
    return not hasattr(x, "shape")


Pattern = Any


def _pattern(x: Any) -> Pattern:
    """A miniature's description, hashable: a Python scalar (weak), or dtype, lengths, strides."""
    if isinstance(x, (bool, int, float, complex)):
        return type(x)
    return _laid(abstract(x))


@lru_cache(REMEMBERED)
def _laid(a: AbstractArray) -> Pattern:
    order = sorted(range(a.ndim), key=lambda k: (-abs(a.strides[k]), k))
    lengths = tuple(min(n, 2) for n in a.shape)
    dense = contiguous(lengths, 1, tuple(order))
    signs = tuple(
        0 if s == 0 else dense[k] if s > 0 else -dense[k] for k, s in enumerate(a.strides)
    )
    return a.dtype, lengths, signs


def miniature(x: AbstractArray, fill: Callable[..., Any] = np.ones) -> Any:
    """An array whose axes lie as those of ``x``, and are two long at most."""
    return _miniature(_pattern(x), fill)


def _miniature(pattern: Pattern, fill: Callable[..., Any] = np.ones) -> Any:
    if isinstance(pattern, type):
        return pattern(1)
    dtype, lengths, signs = pattern
    room = 2 * sum(abs(s) for s in signs) + 1
    base = fill(room, dtype)
    steps = tuple(s * base.itemsize for s in signs)
    start = -sum(s for s in signs if s < 0)
    made = as_strided(base[start:], lengths, steps)
    return made if lengths else made[()]


def _axis_order(made: Any) -> tuple[int, ...]:
    strides = getattr(made, "strides", ())
    return tuple(sorted(range(len(strides)), key=lambda k: (-abs(strides[k]), k)))


def spec(shape: tuple[int, ...] | int, dtype: Any = "float32") -> AbstractArray:
    """Stand-in for an array when tracing: ``ckpt.trace(loss, ckpt.spec((64, 256)))``."""
    return AbstractArray((shape,) if isinstance(shape, int) else tuple(shape), dtype)
