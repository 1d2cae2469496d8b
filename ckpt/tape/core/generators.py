"""Random generators: the state before a draw, the same draw once more, and who drew."""

from __future__ import annotations

import gc
import pickle
import random
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np


def random_state(params: dict[str, Any] | None) -> Any:
    """The state of a random op's generator before it draws, for a replay to start from."""
    assert params is not None
    return params["rng"].bit_generator.state


def replayed(params: dict[str, Any], state: Any) -> np.random.Generator:
    """A generator like the op's, in an earlier state."""
    bits = type(params["rng"].bit_generator)()
    bits.state = state
    return np.random.Generator(bits)


# -- who drew --------------------------------------------------------------------------------------


class Generators:
    """The random generators that some objects reach, and the global ones: did they move?"""

    def __init__(self, *roots: Any) -> None:
        self.before = [(g, _state(g), _mark(g)) for g in reachable(*roots)]

    def moved(self) -> str:
        """Which of them moved first, in words; nothing if none did."""
        for g, _state, mark in self.before:
            if _mark(g) != mark:
                return _NAMES.get(id(g)) or f"a {type(g).__name__}"
        return ""

    def restore(self) -> None:
        """Put back those that moved."""
        for g, state, mark in self.before:
            if _mark(g) == mark:
                continue
            if isinstance(g, random.Random):
                g.setstate(state)
            elif isinstance(g, np.random.RandomState):
                g.set_state(state)
            else:
                g.state = state


_GLOBAL: Any = np.random.mtrand._rand
_PYTHON: Any = random._inst
_NAMES = {id(_GLOBAL): "NumPy's global generator", id(_PYTHON): "Python's global generator"}
_KINDS = (np.random.BitGenerator, np.random.RandomState, random.Random)
_PLAIN = (
    bool, int, float, complex, str, bytes, bytearray, type(None), np.ndarray, np.generic, np.dtype,
    np.ufunc, CodeType, ModuleType, random.SystemRandom,
)  # fmt: skip
"""What reaches no generator, or isn't looked into."""
_NOT_THEIRS = {"ckpt", "numpy", "scipy", *sys.stdlib_module_names}


def _state(g: Any) -> Any:
    if isinstance(g, random.Random):
        return g.getstate()
    return g.get_state(legacy=False) if isinstance(g, np.random.RandomState) else g.state


def _mark(g: Any) -> Any:
    """What changes when it draws, or spawns another."""
    seed = getattr(g, "seed_seq", None)
    return pickle.dumps(_state(g)), getattr(seed, "n_children_spawned", 0)


def reachable(*roots: Any) -> list[Any]:
    """The sources of random bits that the objects reach, the global ones first.

    Through attributes, containers, closures, and the globals that functions name; not into modules
    beyond those names, and not into the standard library's or NumPy's own.
    """
    found = {id(g): g for g in (_GLOBAL, _PYTHON)}
    seen: dict[int, Any] = {}
    stack = list(roots)
    while stack:
        here = stack.pop()
        if id(here) in seen or isinstance(here, _PLAIN):
            continue
        seen[id(here)] = here  # held, so that nothing else gets its id
        if isinstance(here, _KINDS):
            found[id(here)] = here
        elif isinstance(here, FunctionType):
            stack += _reads(here)
        elif isinstance(here, type):
            stack += vars(here).values() if _is_users(here.__module__) else ()
        elif not getattr(type(here), "abstract", False):
            stack += gc.get_referents(here)
    return list(found.values())


def _reads(function: FunctionType) -> list[Any]:
    """The objects that a function has at hand: closure, defaults, attributes, globals it names."""
    if not _is_users(function.__module__):
        return [*(function.__closure__ or ()), function.__dict__]  # it may wrap a user's
    names = set(_names(function.__code__))
    scopes: list[dict[str, Any]] = [function.__globals__]
    at_hand: list[Any] = [function.__closure__, function.__defaults__, function.__kwdefaults__]
    at_hand.append(function.__dict__)
    for k, scope in enumerate(scopes):
        for name in names & scope.keys():
            value = scope[name]
            if not isinstance(value, ModuleType):
                at_hand.append(value)
            elif k < 100 and _is_users(value.__name__) and vars(value) not in scopes:
                scopes.append(vars(value))
    return at_hand


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_users(module: Any) -> bool:
    """Is a module the user's, or his libraries'?"""
    root = str(module).partition(".")[0]
    return root == "__main__" or root not in _NOT_THEIRS
