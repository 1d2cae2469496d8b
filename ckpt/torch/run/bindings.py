"""Torch's own Python functions for ops of aten: they read their arguments in half the time."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ckpt.torch.capture.kernels import Ref
from ckpt.torch.capture.record import AtenCall

_PLACES: tuple[Any, ...] = (torch._C._VariableFunctions, torch._C._nn, torch._C.TensorBase)


def bound(call: AtenCall) -> Callable[..., Any]:
    """What to call with the arguments of ``call``: a function of torch's that leads to this very op
    with these arguments, or else the op itself."""
    op = call.function
    if not isinstance(op, torch._ops.OpOverload):
        found: Callable[..., Any] = op
        return found
    kinds = tuple(map(_kind, call.args)), tuple((k, _kind(v)) for k, v in call.kwargs.items())
    return _bound(op, *kinds)


def _kind(value: Any) -> Any:
    """What a function tells overloads apart by; of a tensor a stand-in's dtype and dimensions."""
    if isinstance(value, Ref):
        return torch.Tensor, value.dtype, len(value.size)
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(_kind, value))
    if isinstance(value, (bool, int, float, str, torch.dtype, torch.device, torch.layout)):
        return type(value), value
    return type(value), None


def _value(kind: Any) -> Any:
    if kind[0] is torch.Tensor:
        return torch.empty((1,) * kind[2], dtype=kind[1], device="meta")
    if kind[0] in (list, tuple):
        return kind[0](map(_value, kind[1]))
    return kind[1]


@lru_cache(maxsize=4096)
def _bound(op: Any, args: Any, kwargs: Any) -> Callable[..., Any]:
    name = op._schema.name.removeprefix("aten::")
    given = [_value(kind) for kind in args]
    named = {key: _value(kind) for key, kind in kwargs}
    for place in _PLACES:
        function: Callable[..., Any] | None = getattr(place, name, None)
        if function is not None and _leads_to(function, op, given, named):
            return function
    itself: Callable[..., Any] = op._op
    return itself


def _leads_to(function: Any, op: Any, args: list[Any], kwargs: dict[str, Any]) -> bool:
    with _First() as first:
        try:
            function(*args, **kwargs)
        except _SeenError:
            return first.op is op and _alike(first.args, args) and _alike(first.kwargs, kwargs)
        except (TypeError, RuntimeError, ValueError, IndexError):
            pass
    return False


class _SeenError(Exception):
    """An op was reached."""


class _First(TorchDispatchMode):
    """The first op that is reached, which isn't run."""

    op: Any = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.op, self.args, self.kwargs = func, args, kwargs or {}
        raise _SeenError


def _alike(a: Any, b: Any) -> bool:
    """The same tensors and equal numbers of one type, nested alike."""
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_alike, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_alike(a[k], b[k]) for k in a)
    return a is b or (type(a) is type(b) and not isinstance(a, torch.Tensor) and bool(a == b))
