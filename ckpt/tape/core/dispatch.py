"""From a NumPy call on Values to the op that stands for it."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import numpy as np

from ckpt.errors import MutationError, UnsupportedError
from ckpt.tape.core.apply import apply
from ckpt.tape.core.op import ADAPTERS, LEARNERS, NUMPY, Op
from ckpt.tape.core.value import Value

_PLAIN = (np.ndarray, np.generic, bool, int, float, complex)
_REDUCTIONS = {np.add: np.sum, np.multiply: np.prod, np.maximum: np.max, np.minimum: np.min,
               np.logical_and: np.all, np.logical_or: np.any}  # fmt: skip


def operand(x: Any) -> Any:
    """``x`` as an op takes it, or NotImplemented for an object of a class that isn't ours."""
    if isinstance(x, (Value, *_PLAIN)):
        return x
    if isinstance(x, (list, tuple)):
        if any(isinstance(item, Value) for item in _leaves(x)):
            raise UnsupportedError("a list of Values is no array; use np.stack to make one")
        return np.asarray(x)
    return NotImplemented


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
    if not kwargs and method == "__call__" and ufunc in NUMPY:
        for x in inputs:
            if type(x) not in known:
                break
        else:
            op = NUMPY[ufunc]
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
    if method == "reduce" and ufunc in _REDUCTIONS:
        kwargs.setdefault("axis", 0)
        reduction: Any = _REDUCTIONS[ufunc]
        return reduction(*operands, **_without_defaults(kwargs))
    if method == "outer" and not kwargs:
        left, right = operands
        return ufunc(np.reshape(left, (*np.shape(left), *[1] * np.ndim(right))), right)
    found = NUMPY.get(ufunc) or _learned(ufunc)
    if method != "__call__" or found is None:
        if ufunc in ADAPTERS and method == "__call__":
            return ADAPTERS[ufunc](*operands, **kwargs)
        raise no_rule(ufunc, "" if method == "__call__" else f".{method}")
    options = _without_defaults(kwargs)
    if options:
        raise UnsupportedError(f"np.{ufunc.__name__} of a Value takes no {', '.join(options)}")
    return apply(found, operands, dict(found.static) if found.static else None)


def _learned(ufunc: np.ufunc) -> Op | None:
    """The op of a ufunc of another library, whose ops are declared when the first one is met."""
    learned = [learn() for learn in LEARNERS]
    return NUMPY.get(ufunc) if any(learned) else None


def call_function(self: Value, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
    """NumPy's protocol for its other functions."""
    for t in types:
        if not issubclass(t, (Value, np.ndarray)):
            return NotImplemented
    if kwargs.get("out") is not None:
        raise MutationError(f"np.{function.__name__} of a Value can't write into out=; drop it")
    adapter = ADAPTERS.get(function)
    if adapter is not None:
        try:
            return adapter(*args, **kwargs)
        except TypeError:
            _check_call(function, adapter, args, kwargs)
            raise
    op = NUMPY.get(function)
    if op is None:
        raise no_rule(function)
    operands, params = _bind(function, op, args, kwargs)
    return apply(op, operands, params)


def _check_call(function: Any, adapter: Any, args: Any, kwargs: dict[str, Any]) -> None:
    """Raise UnsupportedError where these aren't arguments that the adapter takes."""
    try:
        inspect.signature(adapter).bind(*args, **kwargs)
    except TypeError as error:
        raise UnsupportedError(f"np.{function.__name__} of a Value {error}") from None


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
                f"np.{function.__name__} of a Value can't take a {type(x).__name__} operand"
            )
        operands.append(plain)
    params = dict(op.static)
    for name, value in arguments.items():
        if name in params:
            params[name] = value
        elif value is not None and value is not np._NoValue:
            raise UnsupportedError(
                f"np.{function.__name__} of a Value has no option {name}={value!r}"
            )
    return operands, params or None


@cache
def _names(function: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def _without_defaults(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in kwargs.items() if v is not None and v is not np._NoValue}


def no_rule(function: Any, method: str = "") -> UnsupportedError:
    module = getattr(function, "__module__", "numpy") or "numpy"
    prefix = "np" + module.removeprefix("numpy") if module.startswith("numpy") else module
    name = f"{prefix}.{function.__name__}{method}"
    return UnsupportedError(
        f"{name} has no rule for Values. Give it one with @ckpt.op({name}, ...) and .vjp(...), "
        "compute it on .data if no gradient should flow, or see `ckpt ops` for what there is"
    )
