"""A schedule as calls: each instruction's own, in order, and the arrays that they read and make.

`execute` performs them one by one, as they stand; `compile` puts them behind each other in one
function, over buffers that are used again and again. So both run the same lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, assert_never

import numpy as np

from ckpt.machine import simulate
from ckpt.schedule import Backward, Compute, Free, Schedule
from ckpt.tape.core.abstract import AbstractArray, AbstractParts
from ckpt.tape.core.cotangents import copy, zeros_like
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import NUMPY, Op
from ckpt.tape.core.rules import Stand, rules_of
from ckpt.tape.execution.draws import Draws
from ckpt.tape.execution.guard import Guard
from ckpt.tape.ops.parts import item
from ckpt.tape.traced.flow import Edge, copied, sum_layout, zeros
from ckpt.tape.traced.joined import At
from ckpt.tape.traced.kernel import Account, Kernel, cost
from ckpt.tape.traced.trace import Traced
from ckpt.timeline import KINDS

ACTIVATIONS, CAPTURED, _STATES, COTANGENTS, GRADIENTS = KINDS


class Var:
    """One array or number of the code; ``root`` is the variable whose buffer it lies in."""

    __slots__ = ("_root", "array", "first", "last", "name", "offset", "placed", "taken_from")

    def __init__(self, array: Any, root: Var | None = None) -> None:
        self.array = array
        self._root = root.root if root is not None else None
        self.taken_from: Var | None = None
        """Of one of several results: the tuple of all."""
        self.first = self.last = -1
        self.offset = 0
        self.placed = False
        """Does the buffer lie in the arena?"""
        self.name = ""

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)

    @property
    def root(self) -> Var:
        return self if self._root is None else self._root


@dataclass(slots=True)
class Line:
    """``result = function(*sources, **params)``, by kind:

    ``call`` makes an array, or with ``writes`` writes it into its place; ``over`` writes over one
    of its sources; ``view`` makes a view of the first; ``do`` has no result; ``drop`` does nothing:
    the schedule lets go of its source.
    """

    kind: str
    function: Callable[..., Any]
    sources: Sequence[Any]
    result: Var | None = None
    params: dict[str, Any] | None = None
    writes: Callable[..., Any] | None = None
    workspace: int = 0
    """Bytes that the call itself allocates and lets go of."""
    op: Op | None = None
    """Whose call it is."""

    def variables(self) -> Iterator[Var]:
        """The variables that it reads and makes."""
        for found in (*self.sources, self.result):
            if isinstance(found, Var):
                yield found
            elif isinstance(found, (tuple, list)):
                yield from (v for v in found if isinstance(v, Var))

    @property
    def target(self) -> Var:
        """The source that an ``over`` line writes over."""
        assert self.result is not None
        root, array = self.result.root, self.result.array
        return next(
            s for s in self.sources if isinstance(s, Var) and s.root is root and s.array == array
        )


class Change:
    """What a schedule holds in one place - a node's value, or its cotangent - from now on."""

    __slots__ = ("kind", "node", "var")

    def __init__(self, kind: str, node: int, var: Var | None) -> None:
        self.kind = kind
        self.node = node
        self.var = var


@dataclass
class Code:
    """The lines of a schedule, and the variables that go in and out."""

    lines: list[Line] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """For each instruction, where its lines end."""
    changes: list[list[Change]] = field(default_factory=list)
    """For each instruction, what is held otherwise after it."""
    held: list[Var] = field(default_factory=list)
    """Values that the schedule doesn't let go of."""
    arguments: list[Var] = field(default_factory=list)
    loss: Var | None = None
    gradients: list[Var | None] = field(default_factory=list)
    aux: list[Var] = field(default_factory=list)

    @property
    def results(self) -> list[Var]:
        """The variables that leave with the step's result."""
        return [v for v in (self.loss, *self.gradients, *self.aux) if v is not None]


def write(traced: Traced, schedule: Schedule, draws: Draws, guard: Guard | None = None) -> Code:
    """The calls that ``schedule`` takes, in its order."""
    return _Writer(traced, draws, guard).write(schedule)


class _Writer:
    """Goes through a schedule as the interpreter does, and writes down the calls."""

    def __init__(self, traced: Traced, draws: Draws, guard: Guard | None) -> None:
        self.traced = traced
        self.draws = draws
        self.guard = guard
        self.nodes = [entry.node for entry in traced.entries]
        self.positions = {node: i for i, node in enumerate(self.nodes)}
        self.code = Code()
        self.values: dict[int, Var] = {}
        self.cotangents: dict[int, Var] = {}
        self.changes: list[Change] = []

    def write(self, schedule: Schedule) -> Code:
        traced, code = self.traced, self.code
        takeovers = simulate(traced.graph, schedule).takeovers
        for _, position in traced.leaves:
            self.values[position] = Var(self.nodes[position].value)
            code.arguments.append(self.values[position])
        for position, instruction in enumerate(schedule):
            match instruction:
                case Compute(i):
                    self.values[i] = self._compute(i)
                    captured = traced.graph[i].captured
                    self._hold(CAPTURED if captured else ACTIVATIONS, i, self.values[i])
                case Free(i):
                    self._drop(self.values.pop(i))
                    captured = traced.graph[i].captured
                    self._hold(CAPTURED if captured else ACTIVATIONS, i, None)
                case Backward(k):
                    if not k:
                        self._seed()
                    self._backward(traced.flow.order[k], takeovers.get(position))
                case _:
                    assert_never(instruction)
            code.ends.append(len(code.lines))
            code.changes.append(self.changes)
            self.changes = []
        code.loss = self.values[traced.loss]
        code.gradients = [self.cotangents.get(p) for p in traced.parameters]
        code.held = list(self.values.values())
        code.aux = [self._copy(self.values[p]) for p in traced.aux_nodes]
        return code

    def _hold(self, kind: str, node: int, var: Var | None) -> None:
        self.changes.append(Change(kind, node, var))

    def _drop(self, var: Var) -> None:
        self.code.lines.append(Line("drop", _nothing, [var]))

    # -- instructions ------------------------------------------------------------------------------

    def _compute(self, i: int) -> Var:
        entry, node = self.traced.entries[i], self.nodes[i]
        if node.op is None:
            array: Any = entry.captured
            read = self.guard.captured(i) if self.guard else lambda: array[...]
            return self._make(read, [], node.value)
        if node.op is item:
            return self._take(i)
        sources = self._inputs(node)
        if node.op.random:
            return self._make(self.draws.forward(i), sources, node.value)
        assert entry.kernel is not None
        if node.op.infer is None:
            return self._kernel(entry.kernel, sources, entry.kernel.account())
        if i in self.traced.results:
            return self._several(i, node, sources, entry.kernel)
        shared = None
        if not entry.kernel.is_fresh:
            shared = next(s for s in sources if isinstance(s, Var))
        return self._primitive(node.op, sources, node.params, entry.kernel.array, shared, None)

    def _several(self, i: int, node: TapeNode, sources: list[Any], kernel: Kernel) -> Var:
        """All results of one op; of those that are live from before, the second one is let go."""
        assert node.op is not None
        live = [self.values.get(result) for result in self.traced.results[i]]
        given = [var for var in live if var is not None]
        there = [var is not None for var in live]
        function, count = node.op.forward, len(given)

        def call(*arrays: Any, **params: Any) -> list[Any]:
            made = function(*arrays[count:], **params)
            old = iter(arrays[:count])
            return [
                next(old) if known else _own(part) for known, part in zip(there, made, strict=True)
            ]

        result = Var(kernel.array)
        line = Line("call", call, [*given, *sources], result, node.params)
        line.workspace = kernel.workspace
        self.code.lines.append(line)
        return result

    def _take(self, i: int) -> Var:
        """One of several results."""
        node = self.nodes[i]
        assert node.inputs is not None and node.params is not None
        whole = self.values[self.positions[node.inputs[0]]]
        k = node.params["k"]
        result = Var(node.value)
        result.taken_from = whole
        self.code.lines.append(Line("take", lambda parts: parts[k], [whole], result))
        return result

    def _seed(self) -> None:
        loss = self.traced.loss
        node = self.nodes[loss]
        seed = self._make(partial(node.dtype.type, 1), [], node.value)
        self.cotangents[loss] = seed

    def _backward(self, i: int, taken: int | None) -> None:
        """One step, which may write over the value ``taken``."""
        node = self.nodes[i]
        assert node.op is not None and node.inputs is not None
        g = self.cotangents.pop(i)
        self._hold(COTANGENTS, i, None)
        stand = Stand(node, self._input)
        rules = rules_of(node.op, len(node.inputs))
        for k, edge in enumerate(self.traced.flow.edges[i]):
            rule = rules[k]
            if edge is None or rule is None:
                continue
            dep = self.positions[node.inputs[k]]
            if edge.kernel is None:
                assert rule.accumulator is not None
                self.cotangents[dep] = target = self._own(dep, edge)
                given = rule.accumulator.arguments(g, stand)
                cost = node.op.into_workspace
                workspace = cost(target.array, g.array, node) if cost else 0
                add = rule.accumulator.function
                self.code.lines.append(Line("do", add, [target, *given], workspace=workspace))
            else:
                account = edge.account if taken is None else edge.over.get(taken, edge.account)
                new = self._kernel(edge.kernel, rule.arguments(g, stand), account)
                self.cotangents[dep] = self._sum(dep, new, edge)
            leaf = self.nodes[dep].op is None
            self._hold(GRADIENTS if leaf else COTANGENTS, dep, self.cotangents[dep])
        self._drop(g)
        if taken is not None:
            self._hold(ACTIVATIONS, taken, None)

    def _sum(self, dep: int, new: Var, edge: Edge) -> Var:
        """The dep's cotangent with ``new`` added, as the trace found that it will be."""
        match edge.merge:
            case "first":
                if self.nodes[dep].op is None and edge.kind != "fresh":
                    return self._copy(new)  # a gradient owns its array
                return new
            case "into old":
                return self._add(self.cotangents[dep], new)
            case "into new":
                return self._add(new, self.cotangents[dep])
            case "anew":
                old = self.cotangents[dep]
                total = Var(sum_layout(old.array, new.array))
                self.code.lines.append(
                    Line("call", np.add, [old, new], total, None, np.add, op=NUMPY[np.add])
                )
                return total
            case _:
                assert_never(edge.merge)

    # -- calls -------------------------------------------------------------------------------------

    def _inputs(self, node: TapeNode) -> list[Any]:
        return [self._input(s) if type(s) is TapeNode else s for s in node.inputs or ()]

    def _input(self, source: TapeNode) -> Any:
        found = self._value(self.positions[source])
        return source if found is None else found

    def _value(self, i: int) -> Any:
        """The node's variable - of several results a tuple of theirs -, or None."""
        if i in self.traced.results:
            return tuple(map(self.values.get, self.traced.results[i]))
        return self.values.get(i)

    def _kernel(self, kernel: Kernel, given: Any, account: Account) -> Var:
        flat = kernel.flat(given)
        count = len(flat)
        for j, call in enumerate(kernel.calls):
            sources = [flat[s] if isinstance(s, At) else s for s in call.sources]
            if call.op is item and call.params and not isinstance(sources[0], Var):
                flat.append(sources[0][call.params["k"]])  # each result has a variable already
                continue
            shared = sources[0] if call.root != count + j else None
            over = account.overwrites[j]
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
            assert op.writes is not None
            result = Var(array, over)
            line = Line("over", op.writes, sources, result, params, op=op)
            line.workspace = _workspace(op, array, sources, params, sources.index(over))
        else:
            result = Var(array)
            function = _apart(op.forward, sources[0], array) if op.view else op.forward
            workspace = _workspace(op, array, sources, params)
            line = Line("call", function, sources, result, params, op.writes, workspace, op)
        self.code.lines.append(line)
        return result

    def _make(self, function: Callable[..., Any], sources: list[Any], array: Any) -> Var:
        result = Var(array)
        self.code.lines.append(Line("call", function, sources, result))
        return result

    def _copy(self, var: Var) -> Var:
        """A copy, which is dense, in the order of the axes."""
        array = var.array
        return self._make(copy, [var], copied(array) if isinstance(array, AbstractArray) else array)

    def _add(self, target: Var, other: Var) -> Var:
        """Add in place where ``target`` is an array; a number is replaced."""
        if not target.shape:
            return self._make(np.add, [target, other], target.array)
        result = Var(target.array, target)
        self.code.lines.append(Line("over", np.add, [target, other], result, op=NUMPY[np.add]))
        return result

    def _own(self, dep: int, edge: Edge) -> Var:
        """The dep's cotangent as an array of its own, to add a part into."""
        if edge.merge == "into old":
            return self.cotangents[dep]
        if edge.merge != "first":
            return self._copy(self.cotangents[dep])
        node = self.nodes[dep]
        array = zeros(node)
        if isinstance(array, AbstractParts) or not array.shape:
            return self._make(lambda: zeros_like(node), [], array)
        result = Var(array)
        line = Line("call", lambda: zeros_like(node), [], result, None, lambda out: out.fill(0))
        self.code.lines.append(line)
        return result


def _nothing() -> None: ...


def _workspace(op: Op, array: Any, sources: list[Any], params: Any, over: int | None = None) -> int:
    """Bytes that a primitive allocates and lets go of, if it writes over that operand."""
    if op.infer is None:
        return 0
    given = [s.array if isinstance(s, Var) else s for s in sources]
    nbytes = cost(op, array, given, params)[1]
    if over is not None and op.over is not None:
        nbytes += op.over(over, array, *given, **(params or {})) or 0
    return nbytes


def _apart(function: Callable[..., Any], first: Any, made: Any) -> Callable[..., Any]:
    """A function that gives views, where its result is a buffer of its own: to and from a number,
    and of a constant."""
    if not made.shape:
        return number_of(function)
    return function if isinstance(first, Var) and first.shape else of_a_copy(function)


@cache
def of_a_copy(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a copy for its first argument."""
    return lambda first, *others, **params: function(np.array(first), *others, **params)


@cache
def number_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a number for a result where it gives a view without axes."""
    return lambda *arrays, **params: function(*arrays, **params)[()]


def _own(part: Any) -> Any:
    """A result as an array that holds its own bytes and no more; a number as it is."""
    if not isinstance(part, np.ndarray) or not part.ndim:
        return part[()] if isinstance(part, np.ndarray) else part
    return part if part.base is None or part.base.nbytes == part.nbytes else part.copy(order="K")
