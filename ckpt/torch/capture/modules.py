"""Which modules are behind a function, which of them is running, and what they are called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from ckpt.errors import UnsupportedError


class Running:
    """The modules that are running, outermost first, and all that ran."""

    def __init__(self) -> None:
        self.stack: list[nn.Module] = []
        self.seen: dict[int, nn.Module] = {}

    def ids(self) -> tuple[int, ...]:
        return tuple(map(id, self.stack))

    @contextmanager
    def watched(self) -> Iterator[None]:
        def enter(module: nn.Module, args: Any) -> None:
            if id(module) not in self.seen:
                refuse_compiled([module])
            self.stack.append(module)
            self.seen.setdefault(id(module), module)

        def leave(module: nn.Module, args: Any, result: Any) -> None:
            if self.stack and self.stack[-1] is module:
                self.stack.pop()

        hooks = [
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def refuse_compiled(found: Iterable[nn.Module]) -> None:
    """UnsupportedError for modules whose kernels aren't those of the calls that are seen."""
    for root in found:
        for module in root.modules():
            kind = type(module).__name__
            if kind == "OptimizedModule":
                raise UnsupportedError("a compiled submodule can't be planned: plan the plain one")
            if "FullyShardedDataParallel" in kind or kind.startswith("FSDP"):
                raise UnsupportedError("FSDP modules can't be planned")


def behind(function: Callable[..., Any]) -> dict[str, Any]:
    """What a function refers to by name: its own object, closure, globals, bound arguments."""
    found: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        found |= {f"argument{k}": a for k, a in enumerate(function.args)} | function.keywords
        function = function.func
    if isinstance(function, nn.Module):
        return {"": function, **found}
    owner = getattr(function, "__self__", None)
    if owner is not None:
        if isinstance(owner, nn.Module):
            found[""] = owner
        else:
            found |= getattr(owner, "__dict__", {})
        function = getattr(function, "__func__", function)
    elif not inspect.isfunction(function) and not inspect.isbuiltin(function):
        found |= getattr(function, "__dict__", {})
        function = vars(type(function)).get("__call__", function)
    function = inspect.unwrap(function)
    if inspect.isfunction(function):
        names = inspect.getclosurevars(function)
        found |= {**names.nonlocals, **names.globals}
        for value in [*names.nonlocals.values(), *names.globals.values()]:
            if inspect.isfunction(value) and value.__module__ == function.__module__:
                inner = inspect.getclosurevars(value)
                found = {**inner.nonlocals, **inner.globals, **found}
    return found


def modules_among(values: dict[str, Any]) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    for name, value in values.items():
        if isinstance(value, nn.Module):
            found[name] = value
        elif isinstance(value, (list, tuple)):
            found |= {f"{name}.{k}": m for k, m in enumerate(value) if isinstance(m, nn.Module)}
        elif isinstance(value, dict):
            found |= {f"{name}.{k}": m for k, m in value.items() if isinstance(m, nn.Module)}
    return found


def roots(
    candidates: dict[str, nn.Module], seen: Iterable[nn.Module], tensors: set[int]
) -> dict[str, nn.Module]:
    """The outermost modules that own a tensor of the step or that ran, by name."""
    ran = {id(module): module for module in seen}
    known = list(candidates.items()) + [(f"module{k}", m) for k, m in enumerate(ran.values())]
    chosen: list[tuple[str, nn.Module]] = []
    owned: set[int] = set()
    # The one with most modules first: it may contain others.
    for name, module in sorted(known, key=lambda pair: -sum(1 for _ in pair[1].modules())):
        parts = {id(part) for part in module.modules()}
        if id(module) in owned:
            continue
        holds = any(id(t) in tensors for t in (*module.parameters(), *module.buffers()))
        if holds or parts & ran.keys():
            chosen.append((name, module))
            owned |= parts
    if len(chosen) == 1:
        return {"": chosen[0][1]}
    order = {id(m): k for k, (_, m) in enumerate(known)}
    return {name or "module": m for name, m in sorted(chosen, key=lambda p: order[id(p[1])])}


def paths(found: dict[str, nn.Module]) -> dict[int, str]:
    """id of every module -> its path."""
    return {
        id(part): ".".join(filter(None, [name, path]))
        for name, root in found.items()
        for path, part in root.named_modules()
    }


def tensor_names(found: dict[str, nn.Module]) -> dict[int, str]:
    """id of every parameter and buffer -> its name."""
    names: dict[int, str] = {}
    for prefix, root in found.items():
        named: list[tuple[str, torch.Tensor]] = [*root.named_parameters(), *root.named_buffers()]
        for name, tensor in named:
            names.setdefault(id(tensor), ".".join(filter(None, [prefix, name])))
    return names
