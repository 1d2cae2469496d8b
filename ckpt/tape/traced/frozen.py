"""What a plan would freeze: whatever two traces of a program don't find alike."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from types import FunctionType
from typing import Any

import numpy as np

from ckpt.errors import TapeError
from ckpt.tape.core import tree
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import Op
from ckpt.tape.core.value import Value
from ckpt.tape.traced.kernel import Kernel
from ckpt.tape.traced.trace import Entry, Traced

ADVICE = (
    "and a plan would freeze that: pass it as an argument, an array or a NumPy number "
    "(np.float64(…)), or plan again where it changes"
)


def check_draws(moved: str) -> None:
    """Raise TapeError if a random generator ``moved`` during a trace."""
    if moved:
        raise TapeError(
            f"{moved} moves while the program is traced: it differs from call to call, and a plan "
            "would freeze what was drawn; draw masks with ckpt.nn.dropout, or draw outside and "
            "pass arrays or NumPy numbers (np.float64(…)) as arguments"
        )


def check_alike(one: Traced, other: Traced) -> None:
    """Raise TapeError where two traces of a program differ, naming the first line that does."""
    pair = _Pair(one, other)
    for a, b in zip_longest(one.entries, other.entries):
        if a is None or b is None:
            raise _refusal(a or b, "the program stops here in one call and goes on in the next")
        found = pair.difference(a, b)
        if found:
            raise _refusal(b, found)
    for entry, old, new in zip(other.entries, one.flow.edges, other.flow.edges, strict=True):
        kernels = [[None if e is None else e.kernel for e in edges] for edges in (old, new)]
        if not pair.same(*kernels):
            raise _refusal(entry, f"a rule of {entry.name} differs from call to call")
    if (one.loss, one.aux_nodes) != (other.loss, other.aux_nodes):
        raise TapeError(f"the program returns another of its values from call to call, {ADVICE}")
    for path, b, a in tree.paired(other.aux, one.aux, "aux"):
        if not (isinstance(a, Value) and isinstance(b, Value)) and not pair.same(a, b):
            raise TapeError(
                f"{path} is {_said(a)} in one call and {_said(b)} in the next, {ADVICE}"
            )
    if one.graph.digest != other.graph.digest:
        raise TapeError(f"two traces of the program differ, {ADVICE}")


_COMPARED = (str, bytes, int, frozenset, set, range, np.dtype, type)
"""What is compared as it says; other objects attribute by attribute, if they have any."""


class Checksums:
    """Of the arrays that a trace captured: does another trace change them in place?"""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.before = [(e, _checksum(e.captured)) for e in entries if e.captured is not None]

    def check(self) -> None:
        """Raise TapeError if one isn't what it was."""
        for entry, before in self.before:
            if _checksum(entry.captured) != before:
                raise _refusal(entry, "the program changes this array in place at every call")


def _checksum(array: Any) -> int:
    if array.flags.f_contiguous:
        array = array.T
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _refusal(entry: Entry, what: str) -> TapeError:
    where = f"{entry.source}: " if entry.source else ""
    return TapeError(f"{where}{what}, {ADVICE}")


class _Pair:
    """Two traces side by side."""

    def __init__(self, one: Traced, other: Traced) -> None:
        self.places = [self._generators(one), self._generators(other)]
        self.positions = [
            {entry.node: i for i, entry in enumerate(traced.entries)} for traced in (one, other)
        ]
        self.met: set[tuple[int, int]] = set()

    @staticmethod
    def _generators(traced: Traced) -> dict[int, int]:
        return {
            id(leaf): k
            for k, leaf in enumerate(tree.leaves(traced.arguments))
            if isinstance(leaf, np.random.Generator)
        }

    def difference(self, a: Entry, b: Entry) -> str:
        """How two entries differ, in words; nothing if they don't."""
        x, y = a.node, b.node
        if a.role != b.role or not self.same(x.op, y.op):
            return f"this is {_called(a)} in one call and {_called(b)} in the next"
        if a.captured is not b.captured and not self.same(a.captured, b.captured):
            assert b.captured is not None
            shape, dtype = list(b.captured.shape), b.captured.dtype
            return f"this {shape} {dtype} array differs from call to call"
        assert x.inputs is not None
        assert y.inputs is not None
        options = [("", u, v) for u, v in zip_longest(x.inputs, y.inputs)]
        options += [(f"{n}=", v, (y.params or {}).get(n)) for n, v in (x.params or {}).items()]
        for name, u, v in options:
            if not self.same(u, v):
                if isinstance(u, TapeNode) or isinstance(v, TapeNode):
                    return f"{a.name} reads another value from call to call"
                said = f"{name}{_said(u)} in one call and {name}{_said(v)} in the next"
                return f"{a.name} takes {said}"
        if (x.mask, a.keep) != (y.mask, b.keep) or not self.same(a.kernel, b.kernel):
            return f"{a.name} differs from call to call"
        return ""

    def same(self, u: Any, v: Any) -> bool:
        """Are two constants alike, to the bit?"""
        if u is v:
            return True
        if type(u) is not type(v):
            return False
        if (id(u), id(v)) in self.met:  # within itself: what differs is seen elsewhere
            return True
        self.met.add((id(u), id(v)))
        try:
            return self._same(u, v)
        finally:
            self.met.discard((id(u), id(v)))

    def _same(self, u: Any, v: Any) -> bool:
        if isinstance(u, TapeNode):
            return self.positions[0].get(u) == self.positions[1].get(v)
        if isinstance(u, (tuple, list)):
            return len(u) == len(v) and all(map(self.same, u, v))
        if isinstance(u, dict):
            return list(u) == list(v) and all(self.same(u[k], v[k]) for k in u)
        if isinstance(u, slice):
            return self.same((u.start, u.stop, u.step), (v.start, v.stop, v.step))
        if isinstance(u, (np.ndarray, np.generic)):
            if u.dtype.hasobject:
                return self.same(u.tolist(), v.tolist()) and u.shape == v.shape
            alike = u.dtype == v.dtype and u.shape == v.shape
            return bool(alike and u.tobytes() == v.tobytes())
        if isinstance(u, (float, complex)):
            return repr(u) == repr(v)
        if isinstance(u, np.random.Generator):
            place = self.places[0].get(id(u))
            return place is not None and place == self.places[1].get(id(v))
        if isinstance(u, FunctionType):
            return u.__code__ == v.__code__ and self.same(_bound(u), _bound(v))
        if isinstance(u, Op):
            return self.same((u.name, u.forward, u.functions), (v.name, v.forward, v.functions))
        if isinstance(u, Kernel):
            return self.same(_steps(u), _steps(v))
        if isinstance(u, Value):
            return self.same(u._node, v._node)
        if _compares_by_identity(u) or (hasattr(u, "__dict__") and not isinstance(u, _COMPARED)):
            return self.same(getattr(u, "__dict__", None), getattr(v, "__dict__", None))
        try:
            return bool(u == v)
        except (TypeError, ValueError):
            return False


def _compares_by_identity(value: Any) -> bool:
    equal: Any = type(value).__eq__
    return equal is object.__eq__ and not isinstance(value, type)


def _bound(function: FunctionType) -> Sequence[Any]:
    """What a function is bound to: defaults, and the contents of its closure."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return function.__defaults__, function.__kwdefaults__, cells


def _steps(kernel: Kernel) -> list[Any]:
    calls = [part for call in kernel.calls for part in call.parts or (call,)]
    return [kernel.result, *[(call.op, call.sources, call.params) for call in calls]]


def _called(entry: Entry) -> str:
    return f"a {entry.role} array" if entry.role else entry.name


def _said(value: Any) -> str:
    """A constant in a few characters."""
    if isinstance(value, np.ndarray):
        return f"a {list(value.shape)} {value.dtype} array"
    if isinstance(value, np.random.Generator):
        return "a generator of its own"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:59] + "…"
