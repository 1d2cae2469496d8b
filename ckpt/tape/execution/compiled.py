"""From lines to a callable: Python source, with its arrays bound to places in one arena.

Because the schedule is known, so is every array's lifetime. Each array that a call can write into
gets a place in the arena, the views of it are made beforehand, and what remains is a function of
nothing but NumPy calls. The loss, the gradients, and results of functions that can't write into a
given array are allocated by their calls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.machine import simulate
from ckpt.schedule import Schedule
from ckpt.tape.core.abstract import contiguous
from ckpt.tape.core.changes import ALL, DEFAULT
from ckpt.tape.core.op import NUMPY
from ckpt.tape.core.value import Value
from ckpt.tape.execution.arena import beside, block, lifetimes, place
from ckpt.tape.execution.arguments import check_arguments, expression, reader, structured
from ckpt.tape.execution.draws import Draws
from ckpt.tape.execution.guard import Guard, runs_code_of_the_users
from ckpt.tape.execution.layouts import as_given, layouts
from ckpt.tape.execution.lines import Code, Line, Var, write
from ckpt.tape.traced.trace import Traced
from ckpt.text import printable
from ckpt.units import KIB

KEYWORD_OUT = (np.maximum, np.minimum)
"""Ufuncs that warn of an ``out`` that is passed by position, which is quicker."""

ARITHMETIC = (np.add, np.subtract, np.multiply, np.true_divide)
"""Ufuncs by whose dtype a Python number is that of the arrays beside it."""

LAYOUTS = 8
"""Memory orders of the arguments that a step remembers."""


class StraightLine:
    """``step(*args)``: one forward and backward by a schedule, its buffers used again by the next.

    What it returns is never a part of them. Threads that call it at once take turns.
    """

    def __init__(
        self, traced: Traced, schedule: Schedule, whole: int = DEFAULT, memory: Any = None
    ) -> None:
        self.traced, self.schedule, self.whole = traced, schedule, whole
        self.otherwise: dict[Any, StraightLine] = {}
        """The same for arguments in other memory orders, by those."""
        self._draws = Draws(traced, schedule)
        guarded = whole == ALL or runs_code_of_the_users(traced)
        guard = self._guard = Guard(traced, whole) if guarded and whole >= 0 else None
        code = write(traced, schedule, self._draws, guard)
        self.nbytes = place(code)
        """Of the arena, held between calls."""
        self.beside_nbytes = beside(code)
        """The most that a call allocates beside it, results aside."""
        promised = simulate(traced.graph, schedule).peak
        if self.nbytes + self.beside_nbytes > promised + promised // 100 + KIB * 64:
            # Lifetimes that leave gaps which nothing fits: keep the promise rather than the speed.
            code = write(traced, schedule, self._draws, guard)
            lifetimes(code)
            self.nbytes = 0
            self.beside_nbytes = beside(code)
        fits = memory is not None and memory.nbytes >= self.nbytes
        self._memory = memory if fits else block(self.nbytes)
        writer = _Text(traced, code, self._memory)
        self.source = writer.text()
        exec(
            compile(self.source, f"<step of {printable(traced.graph.name)}>", "exec"), writer.names
        )
        self._run: Callable[..., Any] = writer.names["step"]
        self._read = reader(traced)
        self._turn = threading.RLock()

    def __call__(self, *args: Any) -> Any:
        arrays = self._read(args)
        with self._turn:  # those for other memory orders lie in the same memory
            if arrays is not None:
                return self._perform(arrays, args)
            arrays = tuple(check_arguments(self.traced, args))
            return self._laid_out_like(arrays)._perform(arrays, args)

    def _laid_out_like(self, arrays: tuple[Any, ...]) -> StraightLine:
        """The step for arguments that lie as these do, in the same memory."""
        key = layouts(arrays)
        found = self.otherwise.get(key)
        if found is None:
            traced = as_given(self.traced, self.schedule, arrays)
            if traced is self.traced:
                return self
            found = StraightLine(traced, self.schedule, self.whole, self._memory)
            if len(self.otherwise) >= LAYOUTS:
                del self.otherwise[next(iter(self.otherwise))]
            self.otherwise[key] = found
        return found

    def _perform(self, arrays: tuple[Any, ...], args: tuple[Any, ...]) -> Any:
        self._draws.begin(args)
        if self._guard is None:
            return self._run(*arrays)
        self._guard.begin(arrays)
        result = self._run(*arrays)
        self._guard.end()
        return result


class _Text:
    """The code's text, and the names in it: functions, constants, and arrays in the arena."""

    def __init__(self, traced: Traced, code: Code, memory: Any) -> None:
        self.traced = traced
        self.code = code
        self.memory = memory
        self.names: dict[str, Any] = {}
        self.functions: dict[Any, str] = {}
        self.arrays: dict[Var, Any] = {}
        """Those that lie in the arena."""
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
            body.append(f"    {self._statement(at, line)}")
            dead = self._dead(at, line)
            if dead:
                body.append(f"    del {', '.join(dead)}")
        parameters = ", ".join(var.name for var in self.code.arguments)
        return "\n".join([f"def step({parameters}):", *body, f"    return {self._outcome()}\n"])

    def _bound(self, line: Line) -> bool:
        """Bind a result that lies in the arena; True for a view, which is then made for good."""
        result = line.result
        if result is None or not result.root.placed:
            return False
        if result.root is result:
            shape, dtype, strides = result.array.shape, result.array.dtype, result.array.strides
            array = np.ndarray(shape, dtype, self.memory, result.offset, strides)
        elif line.kind == "over":
            array = self.arrays[line.target]
        else:
            array = line.function(self.arrays[line.sources[0]], **(line.params or {}))
        self.arrays[result] = array
        result.name = self._constant(array)
        return line.kind == "view"

    def _statement(self, at: int, line: Line) -> str:
        sources = [self._use(_as_array(line, source)) for source in line.sources]
        options = [f"**{self._constant(line.params)}"] if line.params else []
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
            positional = isinstance(writes, np.ufunc) and writes not in KEYWORD_OUT
            out = result.name if positional else f"out={result.name}"
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

    def _use(self, source: Any) -> str:
        if isinstance(source, Var):
            return source.name
        if isinstance(source, (tuple, list)) and any(isinstance(v, Var) for v in source):
            return "(" + "".join(f"{self._use(v)}, " for v in source) + ")"
        return self._constant(source)

    def _constant(self, value: Any) -> str:
        name = f"k{len(self.names)}"
        self.names[name] = value
        return name

    def _function(self, function: Any) -> str:
        if function not in self.functions:
            self.functions[function] = self._constant(function)
        return self.functions[function]

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
    """A Python number beside arrays of the result's dtype as one of them: NumPy would convert it
    at each call."""
    function = line.function if line.kind == "over" else line.writes
    if type(source) not in (int, float) or function not in ARITHMETIC or line.result is None:
        return source
    dtype = line.result.array.dtype
    others = [s for s in line.sources if s is not source]
    if dtype.kind != "f" or not all(isinstance(s, Var) and s.dtype == dtype for s in others):
        return source
    with np.errstate(over="ignore"):
        number = np.array(source, dtype)
    return number if others and np.isfinite(number) else source


def _by_dot(line: Line) -> bool:
    """Is it a product of matrices that ``x.dot(w)`` hands to BLAS as `np.matmul` does? Of one row
    or column they make other calls."""
    if line.kind != "call" or line.function is not NUMPY[np.matmul].forward or line.params:
        return False
    assert line.result is not None
    if not all(isinstance(s, Var) for s in line.sources):
        return False
    *operands, product = [s.array for s in (*line.sources, line.result)]
    return (
        product.dtype.char in "fdFD"
        and _is_dense(product, None)
        and all(
            a.dtype == product.dtype
            and len(a.shape) == 2
            and min(a.shape) > 1
            and (_is_dense(a, None) or _is_dense(a, (1, 0)))
            for a in operands
        )
    )


def _is_dense(array: Any, order: tuple[int, ...] | None) -> bool:
    return bool(array.strides == contiguous(array.shape, array.itemsize, order))
