"""From compiled code to a callable: the lines as Python source, their arrays bound."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

from ckpt.schedule import Schedule
from ckpt.simulate import simulate
from ckpt.tape.core.value import Value
from ckpt.tape.execution.arena import beside, block, lifetimes, place, variables
from ckpt.tape.execution.arguments import expression, reader
from ckpt.tape.execution.draws import Draws
from ckpt.tape.execution.lines import Code, Line, Var, write_code
from ckpt.tape.execution.run import check_arguments
from ckpt.tape.traced.trace import Program
from ckpt.units import KIB


class BoundStep:
    """``step(*args)``: one forward and backward by a schedule, its buffers used again by the next.

    Holds ``arena_nbytes`` between calls. What it returns is never a part of them. Not to be called
    from two threads at once.
    """

    def __init__(self, program: Program, schedule: Schedule) -> None:
        self.program = program
        self._draws = Draws(program, schedule)
        code = write_code(program, schedule, self._draws)
        self.arena_nbytes = place(code)
        self.beside_nbytes = beside(code)
        promised = simulate(program.graph, schedule).peak
        if self.arena_nbytes + self.beside_nbytes > promised + promised // 100 + KIB * 64:
            # Lifetimes that leave gaps which nothing fits: keep the promise rather than the speed.
            code = write_code(program, schedule, self._draws)
            lifetimes(code)
            self.arena_nbytes = 0
            self.beside_nbytes = beside(code)
        self.memory = block(self.arena_nbytes)
        self.source, names = _source(program, code, self.memory)
        exec(compile(self.source, f"<step of {program.graph.name}>", "exec"), names)
        self._run: Callable[..., Any] = names["step"]
        self._read = reader(program)

    def __call__(self, *args: Any) -> Any:
        if self._draws.nodes:
            self._draws.begin(args)
        arrays = self._read(args)
        if arrays is None:  # an array to be laid out as it was traced, or an error
            return self._run(*check_arguments(self.program, args))
        return self._run(*arrays)


def _source(program: Program, code: Code, memory: Any) -> tuple[str, dict[str, Any]]:
    names: dict[str, Any] = {}
    arrays: dict[Var, Any] = {}
    functions: dict[Any, str] = {}
    for k, var in enumerate(code.arguments):
        var.name = f"a{k}"
    body: list[str] = []
    returned = {v for v in (code.loss, *code.gradients, *code.aux) if v is not None}
    last: dict[Var, int] = {}
    for at, line in enumerate(code.lines):
        for item in variables(line):
            last[item] = at
    taken = iter(range(10**9))

    def constant(value: Any) -> str:
        name = f"k{next(taken)}"
        names[name] = value
        return name

    def function(f: Any) -> str:
        if f not in functions:
            functions[f] = constant(f)
        return functions[f]

    def use(item: Any) -> str:
        if isinstance(item, Var):
            return item.name
        if isinstance(item, (tuple, list)) and any(isinstance(v, Var) for v in item):
            return "(" + "".join(f"{use(v)}, " for v in item) + ")"
        return constant(item)

    def bind(var: Var, array: Any) -> None:
        arrays[var] = array
        var.name = constant(array)

    for at, line in enumerate(code.lines):
        result = line.result
        if result is not None and result.root.placed:
            if result.root is result:
                bind(result, _at(memory, result))
            elif line.kind == "over":
                bind(result, arrays[_overwritten(line)])
            else:
                bind(result, line.function(arrays[line.sources[0]], **(line.params or {})))
                continue  # a view of a place in the arena, made once and for all
        body.extend(_statement(line, at, use, function, constant))
        if result is not None and not result.root.placed and line.kind == "over":
            result.name = _overwritten(line).name
        dead = [
            v.name
            for v in dict.fromkeys(s for s in variables(line) if s is not result)
            if not v.root.placed and last[v] == at and v not in returned and v.name[0] == "v"
            and not (result is not None and result.name == v.name)
        ]  # fmt: skip
        if dead:
            body.append(f"    del {', '.join(dead)}")
    parameters = ", ".join(v.name for v in code.arguments)
    outcome = _result(program, code, constant)
    return "\n".join([f"def step({parameters}):", *body, f"    return {outcome}\n"]), names


def _result(program: Program, code: Code, constant: Any) -> str:
    """What the step returns: loss (and aux) and gradients, in the structure of the arguments."""
    by_position = dict(zip(program.parameters, code.gradients, strict=True))
    at_place = dict(program.leaves)
    place = count()

    def gradient(_: Any) -> str:
        position = at_place.get(next(place), -1)
        if position not in by_position:
            return "None"
        found = by_position[position]
        if found is not None:
            return found.name
        node = program.graph[position]
        return f"{constant(np.zeros)}({constant(node.shape)}, {constant(np.dtype(node.dtype))})[()]"

    trees = [expression(argument, gradient, constant) for argument in program.arguments]
    chosen = [trees[k] for k in program.argnums]
    gradients = chosen[0] if program.single else f"({', '.join(chosen)},)"
    assert code.loss is not None
    value = code.loss.name
    if program.has_aux:
        waiting = iter(code.aux)

        def leaf(v: Any) -> str:
            return next(waiting).name if isinstance(v, Value) else constant(v)

        value = f"({value}, {expression(program.aux, leaf, constant)})"
    return f"{value}, {gradients}"


def _statement(line: Line, at: int, use: Any, function: Any, constant: Any) -> list[str]:
    """The Python of one line."""
    sources = [use(s) for s in line.sources]
    result = line.result
    options = [f"**{constant(line.params)}"] if line.params else []
    if line.kind == "do":
        return [f"    {function(line.function)}({', '.join(sources)})"]
    assert result is not None
    if line.kind == "over":
        target = _overwritten(line).name
        return [f"    {function(line.function)}({', '.join([*sources, target])})"]
    if result.placed:
        if isinstance(line.writes, np.ufunc):
            arguments = [*sources, result.name]
        else:
            arguments = [*sources, f"out={result.name}", *options]
        return [f"    {function(line.writes)}({', '.join(arguments)})"]
    result.name = f"v{at}"
    if line.kind == "view" and _is_transpose(line):
        return [f"    {result.name} = {sources[0]}.T"]  # an attribute is quicker than a call
    call = f"{function(line.function)}({', '.join([*sources, *options])})"
    return [f"    {result.name} = {call}"]


def _is_transpose(line: Line) -> bool:
    source, result = line.sources[0], line.result
    if result is None or not isinstance(source, Var) or len(result.shape) != 2:
        return False
    x, y = source.array, result.array
    return bool(x.shape == y.shape[::-1] and x.strides == y.strides[::-1])


def _overwritten(line: Line) -> Var:
    """The source that an ``over`` line writes over."""
    assert line.result is not None
    root = line.result.root
    return next(
        s for s in line.sources
        if isinstance(s, Var) and s.root is root and s.array == line.result.array
    )  # fmt: skip


def _at(memory: Any, var: Var) -> Any:
    array = var.array
    return np.ndarray(array.shape, array.dtype, memory, var.offset, array.strides)
