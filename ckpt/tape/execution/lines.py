"""A schedule of a program as straight-line code over buffers that are used again and again.

Because the schedule is known, so is every array's lifetime. Each array that a call can write into
gets a place in one arena (see `arena`), the views of it are made beforehand, and what remains is a
Python function of nothing but NumPy calls. The loss, the gradients, and results of functions that
can't write into a given array are allocated by their calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ckpt.schedule import Backward, Compute, Schedule
from ckpt.tape.core.abstract import AbstractArray, AbstractParts
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import Op
from ckpt.tape.eager.interpreter import copy, zeros_like
from ckpt.tape.execution.draws import Draws
from ckpt.tape.traced.flow import sum_layout
from ckpt.tape.traced.kernel import At, Kernel, cost, is_array
from ckpt.tape.traced.trace import Program


class Var:
    """One array or number of the code; ``root`` is the variable whose buffer it lies in."""

    __slots__ = ("array", "first", "last", "name", "offset", "placed", "root")

    def __init__(self, array: Any, root: Var | None = None) -> None:
        self.array = array
        self.root: Var = root.root if root is not None else self
        self.first = self.last = -1
        self.offset = 0
        self.placed = False
        """Does the buffer lie in the arena?"""
        self.name = ""

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)


@dataclass(slots=True)
class Line:
    """``result = function(*sources, **params)``, by kind:

    ``call`` makes an array, or with ``writes`` writes it into its place; ``over`` writes over one
    of its sources; ``view`` makes a view of the first; ``do`` has no result.
    """

    kind: str
    function: Callable[..., Any]
    sources: list[Any]
    result: Var | None = None
    params: dict[str, Any] | None = None
    writes: Callable[..., Any] | None = None
    workspace: int = 0
    """Bytes that the call itself allocates and lets go of."""


@dataclass(slots=True)
class _Stand:
    """A tape node as a rule's sources see it, with variables for arrays."""

    value: Any
    inputs: list[Any]
    params: Any
    shape: Any
    dtype: Any


@dataclass
class Code:
    """The lines of a schedule, and the variables that go in and out."""

    lines: list[Line] = field(default_factory=list)
    arguments: list[Var] = field(default_factory=list)
    loss: Var | None = None
    gradients: list[Var | None] = field(default_factory=list)
    aux: list[Var] = field(default_factory=list)

    @property
    def returned(self) -> set[Var]:
        """The buffers that leave with the step's result."""
        return {v.root for v in (self.loss, *self.gradients, *self.aux) if v is not None}


def write_code(program: Program, schedule: Schedule, draws: Draws) -> Code:
    """The calls that the interpreter would make for ``schedule``, in its order."""
    return _Writer(program, draws).write(schedule)


class _Writer:
    """Goes through a schedule as the interpreter does, and writes down the calls."""

    def __init__(self, program: Program, draws: Draws) -> None:
        self.program = program
        self.draws = draws
        self.nodes = [entry.node for entry in program.entries]
        self.positions = {node: i for i, node in enumerate(self.nodes)}
        self.code = Code()
        self.values: dict[int, Var] = {}
        self.cotangents: dict[int, tuple[Var, bool]] = {}

    def write(self, schedule: Schedule) -> Code:
        program, code = self.program, self.code
        for _, position in program.leaves:
            self.values[position] = Var(self.nodes[position].value)
            code.arguments.append(self.values[position])
        started = False
        for step in schedule.instructions:
            if isinstance(step, Compute):
                self._compute(step.node)
            elif isinstance(step, Backward):
                if not started:
                    started = True
                    node = self.nodes[program.loss]
                    seed = partial(node.dtype.type, 1)
                    self.cotangents[program.loss] = self._make(seed, [], node.value), True
                self._backward(step.node)
            else:
                del self.values[step.node]
        code.loss = self.values[program.loss]
        code.gradients = [
            self.cotangents[p][0] if p in self.cotangents else None for p in program.parameters
        ]
        code.aux = [
            self._make(copy, [self.values[p]], self.nodes[p].value) for p in program.aux_nodes
        ]
        return code

    # -- instructions ------------------------------------------------------------------------------

    def _compute(self, i: int) -> None:
        entry, node = self.program.entries[i], self.nodes[i]
        if node.op is None:
            self.values[i] = self._make(lambda array=entry.array: array, [], node.value)
        elif node.op.random:
            self.values[i] = self._make(self.draws.forward(i), self._inputs(node), node.value)
        else:
            assert entry.kernel is not None
            sources = self._inputs(node)
            if node.op.infer is None:
                self.values[i] = self._kernel(entry.kernel, sources)
            else:
                shared = None
                if not entry.kernel.is_fresh:
                    shared = next(s for s in sources if isinstance(s, Var))
                self.values[i] = self._primitive(
                    node.op, sources, node.params, entry.kernel.array, shared, None
                )

    def _backward(self, i: int) -> None:
        node = self.nodes[i]
        assert node.op is not None
        assert node.inputs is not None
        g, _ = self.cotangents.pop(i)
        stand = _Stand(self.values.get(i), self._inputs(node), node.params, node.shape, node.dtype)
        rules = node.op.rules(len(node.inputs))
        for k, edge in enumerate(self.program.edges[i]):
            rule = rules[k]
            if edge is None or rule is None:
                continue
            dep = self.positions[node.inputs[k]]
            current = self.cotangents.get(dep)
            if edge.kernel is None:
                assert rule.accumulator is not None
                target = self._own(dep, current)
                given = rule.accumulator.arguments(g, stand, k)
                self.code.lines.append(Line("do", rule.accumulator.function, [target, *given]))
                self.cotangents[dep] = target, True
                continue
            new = self._kernel(edge.kernel, rule.arguments(g, stand, k))
            own = edge.kind == "fresh"
            if current is None:
                if self.nodes[dep].op is None and not own:
                    new, own = self._make(copy, [new], new.array), True
                self.cotangents[dep] = new, own
            elif current[1]:
                self.cotangents[dep] = self._add(current[0], new), True
            elif own:
                self.cotangents[dep] = self._add(new, current[0]), True
            else:
                total = Var(sum_layout(current[0].array, new.array))
                line = Line("call", np.add, [current[0], new], total, None, np.add)
                self.code.lines.append(line)
                self.cotangents[dep] = total, True

    # -- calls -------------------------------------------------------------------------------------

    def _inputs(self, node: TapeNode) -> list[Any]:
        return [
            self.values.get(self.positions[s], s) if type(s) is TapeNode else s
            for s in node.inputs or ()
        ]

    def _kernel(self, kernel: Kernel, given: Any) -> Var:
        flat: list[Any] = []
        for pattern, value in zip(kernel.signature, given, strict=True):
            if is_array(pattern):
                flat.append(value)
            elif type(pattern) is tuple:
                flat.extend(v for p, v in zip(pattern, value, strict=True) if is_array(p))
        count = len(flat)
        for j, call in enumerate(kernel.calls):
            sources = [flat[s] if isinstance(s, At) else s for s in call.sources]
            shared = flat[call.root] if call.root != count + j else None
            over = kernel.overwrites[j]
            flat.append(
                self._primitive(
                    call.op, sources, call.params, call.array, shared,
                    None if over is None else flat[over],
                )
            )  # fmt: skip
        return flat[kernel.result]  # type: ignore[no-any-return]

    def _primitive(
        self,
        op: Op,
        sources: list[Any],
        params: Any,
        array: Any,
        shared: Var | None,
        over: Var | None,
    ) -> Var:
        if shared is not None:
            result = Var(array, shared)
            line = Line("view", op.forward, sources, result, params)
        elif over is not None:
            assert op.ufunc is not None
            result = Var(array, over)
            line = Line("over", op.ufunc, sources, result)
        else:
            result = Var(array)
            given = [s.array if isinstance(s, Var) else s for s in sources]
            workspace = cost(op, array, given, params)[1] if op.infer is not None else 0
            line = Line(
                "call", op.forward, sources, result, params, op.writes or op.ufunc, workspace
            )
        self.code.lines.append(line)
        return result

    def _make(self, function: Callable[..., Any], sources: list[Any], array: Any) -> Var:
        result = Var(array)
        self.code.lines.append(Line("call", function, sources, result))
        return result

    def _add(self, target: Var, other: Var) -> Var:
        """Add in place where ``target`` is an array; a number is replaced."""
        if not target.shape:
            return self._make(np.add, [target, other], target.array)
        result = Var(target.array, target)
        self.code.lines.append(Line("over", np.add, [target, other], result))
        return result

    def _own(self, dep: int, current: tuple[Var, bool] | None) -> Var:
        """The dep's cotangent as an array of its own, to add a part into."""
        node = self.nodes[dep]
        if current is not None:
            if current[1]:
                return current[0]
            return self._make(copy, [current[0]], current[0].array)
        array = node.value
        if isinstance(array, AbstractParts) or not array.shape:
            return self._make(lambda: zeros_like(node), [], array)
        result = Var(AbstractArray(array.shape, array.dtype))
        line = Line("call", lambda: zeros_like(node), [], result, None, lambda out: out.fill(0))
        self.code.lines.append(line)
        return result
