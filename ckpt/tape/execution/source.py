"""The source of a compiled step, and what its names stand for.

All that the source names beside the step's own arguments are further parameters, whose defaults are
set once there is memory for the arrays among them: a default takes a slot, where a global would
take an entry of a dict and six times the bytecode.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from sys import getsizeof
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from ckpt.program import code_nbytes
from ckpt.tape.core.abstract import contiguous
from ckpt.tape.core.op import NUMPY
from ckpt.tape.core.value import Value
from ckpt.tape.execution.arguments import expression, structured
from ckpt.tape.execution.lines import Code, Line, Var
from ckpt.tape.ops.linear.stacks import lanes_of_stack, product_of_stacks
from ckpt.tape.traced.calling import as_array, out_of
from ckpt.tape.traced.trace import Traced
from ckpt.text import printable


class Place(NamedTuple):
    """An array in the arena."""

    shape: tuple[int, ...]
    dtype: Any
    strides: tuple[int, ...]
    offset: int


class Sight(NamedTuple):
    """A view of what another parameter stands for."""

    function: Callable[..., Any]
    parameter: int
    params: dict[str, Any] | None


class Assembled:
    """A step's function of its arguments, once it is bound to memory for its arrays."""

    def __init__(self, run: FunctionType, values: list[Any]) -> None:
        self.run = run
        self._values = values
        """What each further parameter stands for: as it is, or the Place or Sight of an array."""

    @property
    def bound(self) -> bool:
        return self.run.__defaults__ is not None

    def bind(self, memory: Any) -> None:
        made: list[Any] = []
        for value in self._values:
            if type(value) is Place:
                shape, dtype, strides, offset = value
                value = np.ndarray(shape, dtype, memory, offset, strides)
            elif type(value) is Sight:
                value = value.function(made[value.parameter], **(value.params or {}))
            made.append(value)
        self.run.__defaults__ = tuple(made)

    def release(self) -> None:
        """Let go of the arrays."""
        self.run.__defaults__ = None

    @property
    def nbytes(self) -> int:
        """Bytes of the code itself, of what says where its arrays lie, and of their headers."""
        places = [value for value in self._values if type(value) in (Place, Sight)]
        found = sum(getsizeof(place) + HEADER for place in places)
        return code_nbytes(self.run) + getsizeof(self._values) + found


HEADER = getsizeof(np.zeros((1, 1))[:])
"""Bytes of an array beside its elements."""


def assemble(traced: Traced, code: Code) -> Assembled:
    """The placed lines as one function."""
    writer = _Text(traced, code)
    names: dict[str, Any] = {}
    exec(compile(writer.text(), f"<step of {printable(traced.graph.name)}>", "exec"), names)
    return Assembled(names["step"], writer.values)


class _Text:
    """The lines' text, and what is behind the names in it."""

    def __init__(self, traced: Traced, code: Code) -> None:
        self.traced = traced
        self.code = code
        self.values: list[Any] = []
        self.known: dict[Any, str] = {}
        """Names of what is used again: functions, options, arrays that lie alike."""
        self.returned = set(code.results)
        self.last: dict[Var, int] = {}
        for at, line in enumerate(code.lines):
            if line.kind != "drop":
                self.last.update(dict.fromkeys(line.variables(), at))

    def text(self) -> str:
        for k, var in enumerate(self.code.arguments):
            var.name = f"a{k}"
        body: list[str] = []
        for at, line in enumerate(self.code.lines):
            if line.kind == "drop" or self._bound(line):
                continue
            body.append(f" {self._statement(at, line)}")
            dead = self._dead(at, line)
            if dead:
                body.append(f" del {', '.join(dead)}")
        body.append(f" return {self._outcome()}\n")
        arguments = [var.name for var in self.code.arguments]
        further = [f"k{k}" for k in range(len(self.values))]
        return "\n".join([f"def step({', '.join([*arguments, *further])}):", *body])

    def _bound(self, line: Line) -> bool:
        """Name a result that lies in the arena; True for a view, which is then made for good."""
        result = line.result
        if result is None or not result.root.placed:
            return False
        if result.root is result:
            array = result.array
            place = Place(array.shape, array.dtype, array.strides, result.offset)
            result.name = self._constant(place, _key(place))
        elif line.kind == "over":
            result.name = line.target.name
        else:
            seen = int(line.sources[0].name[1:])
            sight = Sight(line.function, seen, line.params)
            result.name = self._constant(sight, _key(sight))
        return line.kind == "view"

    def _statement(self, at: int, line: Line) -> str:
        sources = [self._use(source, line) for source in line.sources]
        options = []
        if line.params:
            options = [f"**{self._constant(line.params, _key(line.params))}"]
        result = line.result
        if line.kind == "do":
            return f"{self._function(line.function)}({', '.join(sources)})"
        assert result is not None
        if line.kind == "over":
            result.name = line.target.name
        if _by_dot(line):  # the same product, by what takes a third of the time to call
            if result.placed:
                return f"{sources[0]}.dot({sources[1]}, {result.name})"
            result.name = f"v{at}"
            return f"{result.name} = {sources[0]}.dot({sources[1]})"
        if line.kind == "over" or result.placed:
            writes = line.function if line.kind == "over" else line.writes
            if _is_shared(line):
                writes = product_of_stacks
            out = out_of(writes, result.name)
            return f"{self._function(writes)}({', '.join([*sources, out, *options])})"
        result.name = f"v{at}"
        if line.kind == "view" and _is_transpose(line):
            return f"{result.name} = {sources[0]}.T"  # an attribute is quicker than a call
        call = f"{self._function(line.function)}({', '.join([*sources, *options])})"
        return f"{result.name} = {call}"

    def _dead(self, at: int, line: Line) -> list[str]:
        """Names of arrays outside the arena that nothing uses after this line."""
        names = {
            var.name: None
            for var in line.variables()
            if var.name[0] == "v" and self.last[var] == at and var not in self.returned
        }
        result = line.result
        if result is not None and (self.last[result] > at or result in self.returned):
            names.pop(result.name, None)  # written over a source, it has that one's name
        return list(names)

    def _use(self, source: Any, line: Line) -> str:
        if isinstance(source, Var):
            return source.name
        if isinstance(source, (tuple, list)) and any(isinstance(v, Var) for v in source):
            return "(" + "".join(f"{self._use(v, line)}, " for v in source) + ")"
        number = _as_array(line, source)
        if number is not source:
            return self._constant(number, (number.dtype, repr(source)))
        return self._constant(source, _key(source))

    def _constant(self, value: Any, key: Hashable = None) -> str:
        """The parameter that stands for ``value``, or for what had the same key."""
        if key is not None and key in self.known:
            return self.known[key]
        name = f"k{len(self.values)}"
        self.values.append(value)
        if key is not None:
            self.known[key] = name
        return name

    def _function(self, function: Any) -> str:
        return self._constant(function, _key(function))

    def _outcome(self) -> str:
        """What the step returns: loss (and aux), and gradients structured as the arguments are."""
        traced, code = self.traced, self.code
        named = {}
        for position, var in zip(traced.parameters, code.gradients, strict=True):
            named[position] = _Name(var.name if var is not None else self._zeros(position))
        gradients = expression(structured(traced, named), str, self._constant)
        assert code.loss is not None
        value = code.loss.name
        if traced.has_aux:
            waiting = iter(code.aux)

            def leaf(v: Any) -> str:
                return next(waiting).name if isinstance(v, Value) else self._constant(v)

            value = f"({value}, {expression(traced.aux, leaf, self._constant)})"
        return f"{value}, {gradients}"

    def _zeros(self, position: int) -> str:
        """The gradient of a parameter that no cotangent reaches."""
        node = self.traced.graph[position]
        arguments = self._constant(node.shape), self._constant(np.dtype(node.dtype))
        return f"{self._constant(np.zeros)}({', '.join(arguments)})[()]"


def _key(value: Any) -> Hashable:
    """Equal for what says the same; what isn't plain is like itself alone."""
    if isinstance(value, dict):
        return (dict, *((name, _key(item)) for name, item in value.items()))
    if isinstance(value, (tuple, list)):
        return (type(value), *map(_key, value))
    if isinstance(value, slice):
        return slice, _key(value.start), _key(value.stop), _key(value.step)
    if value is None or type(value) in (bool, int, float, str):
        return type(value), repr(value)
    return id(value)


class _Name(str):
    """An expression of the code, as a leaf of a structure."""

    __slots__ = ()


def _is_transpose(line: Line) -> bool:
    if line.result is None or len(line.result.shape) != 2:
        return False
    params = line.params or {}
    if line.function is NUMPY[np.transpose].forward:
        return params.get("axes") in (None, (1, 0))
    apart = params.get("axis1", 0) - params.get("axis2", 1)
    return line.function is NUMPY[np.swapaxes].forward and apart % 2 == 1


def _as_array(line: Line, source: Any) -> Any:
    if line.result is None or isinstance(line.result.array, tuple):
        return source
    function = line.function if line.kind == "over" else line.writes
    others = [s.dtype if isinstance(s, Var) else None for s in line.sources if s is not source]
    return as_array(function, source, line.result.dtype, others)


def _by_dot(line: Line) -> bool:
    """Is it a product of matrices that ``x.dot(w)`` hands to BLAS as `np.matmul` does? Of one row
    or column they make other calls."""
    operands, product = _of_product(line)
    return (
        bool(operands)
        and product.dtype.char in "fdFD"
        and _is_dense(product, None)
        and all(
            a.dtype == product.dtype
            and len(a.shape) == 2
            and min(a.shape) > 1
            and (_is_dense(a, None) or _is_dense(a, (1, 0)))
            for a in operands
        )
    )


def _is_shared(line: Line) -> bool:
    """Is it a product of stacks of matrices that several threads may share?"""
    operands, product = _of_product(line)
    return bool(operands) and lanes_of_stack(operands[0], operands[1], product) > 1


def _of_product(line: Line) -> tuple[list[Any], Any]:
    """Of a product by `np.matmul` its operands, and itself; of anything else none."""
    is_one = line.kind == "call" and line.function is NUMPY[np.matmul].forward and not line.params
    if not is_one or not all(isinstance(s, Var) for s in line.sources):
        return [], None
    assert line.result is not None
    return [s.array for s in line.sources], line.result.array


def _is_dense(array: Any, order: tuple[int, ...] | None) -> bool:
    return bool(array.strides == contiguous(array.shape, array.itemsize, order))
