"""From a NumPy call on Values to the op that stands for it."""

from __future__ import annotations

import inspect
import sys
from functools import cache
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from ckpt.errors import MutationError, UnsupportedError
from ckpt.tape.core.abstract import check_class
from ckpt.tape.core.apply import apply, call_of
from ckpt.tape.core.op import ADAPTERS, LEARNERS, NUMPY, ROUNDED, Op
from ckpt.tape.core.value import Value

_PLAIN = (np.ndarray, np.generic, bool, int, float, complex)
_REDUCTIONS = {np.add: np.sum, np.multiply: np.prod, np.maximum: np.max, np.minimum: np.min,
               np.logical_and: np.all, np.logical_or: np.any}  # fmt: skip


def operand(x: Any) -> Any:
    """``x`` as an op takes it, or NotImplemented for an object of a class that isn't ours."""
    if isinstance(x, (Value, *_PLAIN)):
        if type(x) not in known:
            kind: Any = type(x)
            check_class(kind)
            return _bare(x) if isinstance(x, np.ndarray) else x
        return x
    if isinstance(x, (list, tuple, range)):
        if any(isinstance(item, Value) for item in _leaves(x)):
            raise UnsupportedError("a list of Values is no array; use np.stack to make one")
        return np.asarray(x)
    return NotImplemented


_BARE: WeakValueDictionary[int, Any] = WeakValueDictionary()


def _bare(x: Any) -> Any:
    """An array of a subclass as a plain one over the same memory, the same one while it is used."""
    if type(x) is np.ndarray:
        return x
    bare = _BARE.get(id(x))
    if bare is None or bare.__array_interface__ != x.__array_interface__:
        bare = _BARE[id(x)] = np.asarray(x)
    return bare


def _leaves(x: Any) -> Any:
    for item in x:
        if isinstance(item, (list, tuple)):
            yield from _leaves(item)
        else:
            yield item


known = frozenset({Value, np.ndarray, bool, int, float, complex, np.float32, np.float64})
"""Operands of these very types need no second look."""


def call_ufunc(self: Value, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """NumPy's protocol for ufuncs: what ``ufunc(*inputs)`` means with a Value among the inputs."""
    if not kwargs and method == "__call__":
        op = NUMPY.get(ufunc)
        if op is not None:
            if len(inputs) == 1:
                return (op.calls.get("v") or call_of(op, "v"))(self)
            for x in inputs:
                if type(x) not in known:
                    break
            else:
                return apply(op, inputs, dict(op.static) if op.static else None)
    if kwargs.get("out") is not None:
        raise MutationError(
            f"np.{ufunc.__name__} can't write into a given array (out=, array += Value), since a "
            "backward may need what was there; drop out=, or write x = x + value"
        )
    operands = []
    for x in inputs:
        plain = operand(x)
        if plain is NotImplemented:
            return NotImplemented
        operands.append(plain)
    options = _without_defaults(kwargs)
    if method == "reduce" and ufunc in _REDUCTIONS:
        reduction: Any = _REDUCTIONS[ufunc]
        return reduction(*operands, axis=kwargs.get("axis", 0), **_but(options, "axis"))
    if method == "outer" and not options:
        left, right = operands
        return ufunc(np.reshape(left, (*np.shape(left), *[1] * np.ndim(right))), right)
    if method == "at":
        raise MutationError(
            f"np.{ufunc.__name__}.at writes into an array, which Values don't allow, since a "
            "backward may need what was there; use np.where, np.concatenate or np.bincount"
        )
    asked: Any = ufunc if method == "__call__" else getattr(ufunc, method)
    if asked in ADAPTERS:
        return _adapted(asked, operands, options)
    found = NUMPY.get(asked) or _learned(asked)
    if found is None:
        raise no_rule(asked)
    for option, value in options.items():
        if option not in found.static:
            raise _no_option(asked, option, value, tuple(found.static))
    params = {**found.static, **options}
    return apply(found, operands, params or None)


def as_numpy(function: Any, args: Any, kwargs: Any) -> Any:
    """NumPy's own result of a call that needs no gradient, if that of our ops differs, or None."""
    if function not in ROUNDED or any(type(x) is Value and x._node.requires_grad for x in args):
        return None
    return ROUNDED[function](function, args, kwargs)


def _learned(ufunc: Any) -> Op | None:
    """The op of a ufunc of another library, whose ops are declared when the first one is met."""
    learned = [learn() for learn in LEARNERS]
    return NUMPY.get(ufunc) if any(learned) else None


def call_function(self: Value, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
    """NumPy's protocol for its other functions."""
    for t in types:
        if not issubclass(t, (Value, np.ndarray)):
            return NotImplemented
        check_class(t)
    if kwargs.get("out") is not None:
        raise MutationError(f"{name_of(function)} of a Value can't write into out=; drop it")
    kwargs.pop("out", None)
    made = as_numpy(function, args, kwargs)
    if made is not None:
        return made
    if function in ADAPTERS:
        return _adapted(function, args, kwargs)
    op = NUMPY.get(function)
    if op is None:
        raise no_rule(function)
    operands, params = _bind(function, op, args, kwargs)
    return apply(op, operands, params)


def _adapted(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The adapter's answer; UnsupportedError where these aren't arguments that it takes."""
    adapter = ADAPTERS[function]
    try:
        return adapter(*args, **kwargs)
    except TypeError:
        taken = inspect.signature(adapter).parameters
        try:
            inspect.signature(adapter).bind(*args, **kwargs)
        except TypeError:
            pass
        else:
            raise
        if not isinstance(function, np.ufunc):
            args, kwargs = (), dict(zip(_names(function), args, strict=False)) | kwargs
        given, usual = kwargs, _defaults(function)
        left = {name: v for name, v in given.items() if name in taken or not _is(v, usual, name)}
        for name, value in left.items():
            if name not in taken:
                has = tuple(n for n, p in taken.items() if p.default is not p.empty)
                raise _no_option(function, name, value, has) from None
        if len(left) == len(given):
            raise
        return adapter(*args, **left)


def _bind(
    function: Any, op: Op, args: Any, kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any] | None]:
    """A NumPy call's arguments as the op's operands and static parameters."""
    names = _names(function)
    arguments = dict(zip(names, args, strict=False))
    arguments.update(kwargs)
    if op.variadic:
        given = list(arguments.pop(names[0]))
    else:
        given = [arguments.pop(name) for name in names[: len(op.operands)] if name in arguments]
    operands = []
    for x in given:
        plain = operand(x)
        if plain is NotImplemented:
            raise UnsupportedError(
                f"{name_of(function)} of a Value can't take a {type(x).__name__} operand"
            )
        operands.append(plain)
    params = dict(op.static)
    for name, value in arguments.items():
        if name == "correction" and "ddof" in params and value is not np._NoValue:
            params["ddof"] = value
        elif name in params:
            if value is not np._NoValue:
                params[name] = value
        elif not _is(value, _defaults(function), name):
            raise _no_option(function, name, value, tuple(params))
    dtype = params.get("dtype")
    if dtype is not None and np.dtype(dtype).kind not in "fc":  # cut to whole numbers beforehand
        operands[0] = np.astype(operands[0], dtype)
    return operands, params or None


@cache
def _names(function: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


_OF_UFUNCS = {"where": True, "casting": "same_kind", "order": "K", "subok": True}
"""What the options of a ufunc are if they aren't given."""
_INSTEAD = {
    "where": "put what counts as nothing in their place beforehand, np.where(mask, x, neutral)",
    "initial": "combine the result with it afterwards",
    "dtype": "cast with .astype",
}


@cache
def _defaults(function: Any) -> dict[str, Any]:
    """A function's options as they are if they aren't given."""
    if not isinstance(function, np.ufunc):
        parameters = inspect.signature(function).parameters.values()
        given = {p.name: p.default for p in parameters if p.default is not p.empty}
        return {"subok": True, **given, "where": True}
    return _OF_UFUNCS


def _is(value: Any, defaults: dict[str, Any], name: str) -> bool:
    """Is it the option's default, spelled out?"""
    if value is None or value is np._NoValue:
        return True
    default = defaults.get(name)
    return type(value) is type(default) and bool(value == default)


def _without_defaults(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in kwargs.items() if not _is(v, _OF_UFUNCS, k)}


def _but(options: dict[str, Any], name: str) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k != name}


def _no_option(function: Any, name: str, value: Any, has: tuple[str, ...]) -> UnsupportedError:
    instead = _INSTEAD.get(name) or "leave it out" + (f" (there is: {', '.join(has)})" * bool(has))
    if name == "where" and isinstance(function, np.ufunc):
        instead = "choose afterwards, np.where(mask, result, otherwise)"
    said = f"={value!r}" if np.ndim(value) == 0 and not isinstance(value, Value) else ""
    return UnsupportedError(f"{name_of(function)} of a Value has no {name}{said}; {instead}")


def name_of(function: Any) -> str:
    """``np.linalg.inv``, ``scipy.special.binom``, ``np.add.reduceat``: as a user writes it."""
    ufunc = getattr(function, "__self__", None)
    if isinstance(ufunc, np.ufunc):
        return f"{name_of(ufunc)}.{function.__name__}"
    name = getattr(function, "__name__", str(function))
    for module in ("numpy", "scipy.special"):  # ufuncs don't say where they are from
        if getattr(sys.modules.get(module), name, None) is function:
            return f"{module.replace('numpy', 'np')}.{name}"
    module = getattr(function, "__module__", None) or ""
    return f"{module.replace('numpy', 'np', 1)}.{name}" if module else name


def no_rule(function: Any) -> UnsupportedError:
    name = name_of(function)
    return UnsupportedError(
        f"{name} has no rule for Values. Give it one with @ckpt.op({name}, ...) and .vjp(...), "
        "compute it on .data if no gradient should flow, or see `ckpt ops` for what there is"
    )
