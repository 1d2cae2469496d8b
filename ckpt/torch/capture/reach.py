"""What a function reads by name beside its arguments: attributes, globals, closures.

A plan has their values in it. Names are looked up in the code of the functions that may run, and
followed through functions of the user's own files, through objects, modules and containers.
"""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn

from ckpt.torch.capture import named_values
from ckpt.torch.capture.named_values import NUMBERS, Watched

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

_INSTALLED = ("site-packages", "dist-packages", str(Path(inspect.__file__).parent), "<")
"""Where files lie that aren't the user's; what their modules read of themselves counts."""

_OF_MODULES = {"training", "_modules", "_parameters", "_buffers"}
"""What the guards know of a module by themselves."""

_BY_ANY_NAME = {"getattr", "__dict__", "vars"}
_LONGEST = 1000
"""Containers with more items aren't looked into."""


@dataclass(slots=True)
class Reach:
    """The places that a function reads, as they are now."""

    places: list[Watched] = field(default_factory=list)
    tensors: list[Watched] = field(default_factory=list)
    """The parameters and buffers of modules."""
    loose: dict[int, str] = field(default_factory=dict)
    """id of every other tensor that a name stands for -> that name."""
    _seen: set[Any] = field(default_factory=set)
    _held: list[Any] = field(default_factory=list)
    """What was seen, lest another object takes its identity."""

    def settle(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Put back what changed meanwhile: what it was, by name, and of modules' tensors the same.
        It is no longer watched: who runs the function changes it again."""
        found: tuple[dict[str, Any], dict[str, Any]] = {}, {}
        for some, names in zip((self.places, self.tensors), found, strict=True):
            for k, place in enumerate(some):
                if own := place.put_back():
                    names |= own
                    some[k] = place.without(own)
        return found

    def forget_fakes(self) -> None:
        """Put back the attributes in which a run left tensors without values."""
        for place in self.places:
            place.put_back(fakes=True)

    def value(self, value: Any, label: str = "", used: tuple[str, ...] = ()) -> None:
        """Whatever a name stands for; ``used``: the names in the code that came by it."""
        if isinstance(value, partial):
            for inner in (value.func, value.args, value.keywords):
                self.value(inner, label, used)
        elif isinstance(value, MethodType):
            self.value(value.__self__, label, used)
            self._function(value.__func__, value.__self__, label)
        elif isinstance(value, FunctionType):
            self._function(value, None, label)
        elif isinstance(value, nn.Module):
            for path, part in value.named_modules():
                self._module(part, ".".join(filter(None, [label, path])))
        elif isinstance(value, (list, tuple, dict)):
            self._items(value, label, used)
        elif isinstance(value, type):
            if _of_the_user(_file_of(value)) and self._new(value):
                for own in vars(value).values():
                    self.value(getattr(own, "__func__", own), label, used)
        elif isinstance(value, ModuleType):
            if _of_the_user(getattr(value, "__file__", None) or "<"):
                self._names(vars(value), used, label)
        elif hasattr(value, "__array_interface__"):
            if value.dtype != object and self._new(value):
                self.places.append(named_values.array(value, label))
        elif isinstance(value, torch.Tensor):
            self.loose.setdefault(id(value), label)
        elif not isinstance(value, (torch.Generator, *NUMBERS)):
            self._owner(value, used, (), label)
            for name in ("__call__", *used):
                method = getattr(type(value), name, None)
                if isinstance(method, FunctionType):
                    self._function(method, value, label)

    def _new(self, value: Any, *more: Any) -> bool:
        key = id(value), *more
        if key in self._seen:
            return False
        self._seen.add(key)
        self._held.append(value)
        return True

    def _module(self, module: nn.Module, label: str) -> None:
        if not self._new(module):
            return
        for hooks in HOOKS:
            if own := getattr(module, hooks):
                self._items(own, f"{label}.{hooks}", ())
        for store in (module._buffers, module._parameters):
            if store:
                self.tensors.append(named_values.named(store, tuple(store), label))
        kind = type(module)
        self._names(vars(module), ("forward",), label, to_come=True)
        self._names(next(k for k in kind.__mro__ if "forward" in vars(k)), ("forward",), label)
        self._function(vars(module).get("forward", kind.forward), module, label)

    def _items(self, value: Any, label: str, used: tuple[str, ...]) -> None:
        if len(value) > _LONGEST or not self._new(value):
            return
        if isinstance(value, list):
            self.places.append(named_values.listed(value, label))
        elif isinstance(value, dict):
            self.places.append(named_values.keyed(value, label))
        for item in tuple(value.values()) if isinstance(value, dict) else tuple(value):
            self.value(item, label, used)

    def _function(self, function: Any, owner: Any, label: str) -> None:
        if isinstance(function, MethodType):
            function, owner = function.__func__, function.__self__
        if not isinstance(function, FunctionType) or not self._new(function, id(owner)):
            return
        self.value(getattr(function, "__wrapped__", None))
        code = function.__code__
        looked_up, stored = names_in(code)
        if owner is not None:
            self._owner(owner, looked_up, stored, label)
        if not _of_the_user(code.co_filename):
            return
        self._names(function.__globals__, looked_up, "")
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            if self._new(cell):
                try:
                    self.places.append(named_values.closed_over(cell, name))
                except ValueError:  # nothing in it yet
                    continue
                self.value(cell.cell_contents, name, looked_up)

    def _owner(self, owner: Any, names: tuple[str, ...], stored: tuple[str, ...], at: str) -> None:
        """What is read of an object: of itself, and of its classes."""
        own = getattr(owner, "__dict__", None)
        if not isinstance(own, dict):
            return
        if _BY_ANY_NAME.intersection(names):
            names = (*names, *own)
        if isinstance(owner, nn.Module):
            names = tuple(n for n in names if n not in _OF_MODULES and n not in HOOKS)
        self._names(own, names, at)
        self._names(own, stored, at, to_come=True)
        for kind in type(owner).__mro__:
            if kind in (nn.Module, object):
                break
            there = tuple(n for n in names if n in vars(kind) and n not in own)
            self._names(kind, there, at)
            plain = tuple(n for n in there if not hasattr(vars(kind)[n], "__get__"))
            self._names(own, plain, at, to_come=True)
            for name in there:
                found = vars(kind)[name]
                self._function(getattr(found, "fget", found), owner, at)

    def _names(self, owner: Any, names: tuple[str, ...], label: str, to_come: bool = False) -> None:
        """Those of the names that a namespace, or a class, has; and those ``to_come``."""
        space = vars(owner) if isinstance(owner, type) else owner
        found = tuple(n for n in names if (to_come or n in space) and self._new(owner, n))
        if found:
            place = named_values.named(space, found, label)
            self.places.append(place)
            for name, value in zip(place.names, place.values, strict=True):
                self.value(value, name, names)


@lru_cache(maxsize=4096)
def names_in(code: CodeType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names that the code, and functions within it, look up; and those of attributes that it
    sets."""
    inner = [names_in(c) for c in code.co_consts if isinstance(c, CodeType)]
    looked_up = dict.fromkeys((*code.co_names, *(n for some, _ in inner for n in some)))
    stored = dict.fromkeys((*_stored(code), *(n for _, some in inner for n in some)))
    return tuple(looked_up), tuple(stored)


def _stored(code: CodeType) -> Iterator[str]:
    return (i.argval for i in dis.get_instructions(code) if i.opname == "STORE_ATTR")


def _file_of(kind: type) -> str:
    return getattr(sys.modules.get(kind.__module__), "__file__", None) or "<"


def _of_the_user(path: str) -> bool:
    return not any(part in path for part in _INSTALLED)
