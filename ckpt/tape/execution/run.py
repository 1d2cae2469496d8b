"""Perform a Schedule of a traced Program on real arrays, and measure it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from ckpt.errors import TapeError
from ckpt.schedule import Backward, Compute, Free, Schedule
from ckpt.tape.core import tree
from ckpt.tape.core.apply import random_state
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import Op
from ckpt.tape.core.value import Value
from ckpt.tape.eager.interpreter import BACKWARD, COMPUTE, FREE, Observer, copy, interpret
from ckpt.tape.execution.meter import Meter
from ckpt.tape.traced.trace import Entry, Program
from ckpt.timeline import Timeline

_KIND = {Compute: COMPUTE, Free: FREE, Backward: BACKWARD}


@dataclass
class Execution:
    """What a run gave: loss, gradients (in the structure of the parameters), aux, and Timeline."""

    value: Any
    grads: Any
    aux: Any
    timeline: Timeline | None
    seconds: float


class _BoundOp:
    """An op for operands of known layout: its forward and its rules are compiled kernels."""

    __slots__ = ("_rules", "forward", "name", "random", "view")

    def __init__(self, op: Op, forward: Any, rules: tuple[Any, ...]) -> None:
        self.name = op.name
        self.random = op.random
        self.view = op.view
        self.forward = forward
        self._rules = rules

    def rules(self, count: int) -> tuple[Any, ...]:
        return self._rules


class _CapturedOp:
    """Computing a captured array takes the array that was met while tracing."""

    __slots__ = ("array",)
    name = "captured"
    random = False
    view = False

    def __init__(self, array: Any) -> None:
        self.array = array

    def forward(self) -> Any:
        return self.array[...]


def execute(
    program: Program,
    schedule: Schedule,
    args: tuple[Any, ...],
    *,
    observe: bool = True,
    trace_memory: bool = False,
    observer: Observer | None = None,
) -> Execution:
    """Perform ``schedule`` on ``args`` (as given to `trace`, with real arrays).

    With ``observe``, the Timeline counts the bytes of the arrays that are really held after each
    instruction, by owner. With ``trace_memory`` its ``high`` is the peak that `tracemalloc` saw
    during each instruction. An ``observer`` of one's own takes their place. Raises TapeError where
    an argument's shape or dtype isn't what was
    traced.
    """
    nodes = _instantiate(program, args)
    steps = [(_KIND[type(s)], nodes[s.node]) for s in schedule.instructions]
    _draw_in_order(nodes, steps)
    meter = None
    if observe and observer is None:
        meter = Meter(program.graph, nodes, len(steps), trace_memory)
    loss = nodes[program.loss]
    start = time.perf_counter()
    if meter:
        with meter:
            interpret(_seeded(steps, loss), observer=meter)
    else:
        interpret(_seeded(steps, loss), observer=observer)
    seconds = time.perf_counter() - start
    gradients = [nodes[position].cotangent for position in program.parameters]
    aux_values = [copy(nodes[position].value) for position in program.aux_nodes]
    value, grads = gather(program, loss.value, gradients, aux_values)
    value, aux = value if program.has_aux else (value, None)
    return Execution(
        value=value,
        grads=grads,
        aux=aux,
        timeline=meter.timeline(schedule, seconds) if meter else None,
        seconds=seconds,
    )


def _seeded(steps: list[tuple[int, TapeNode]], loss: TapeNode) -> Iterator[tuple[int, TapeNode]]:
    """The steps, the loss's cotangent put in place just before the first Backward."""
    waiting = iter(steps)
    for step in waiting:
        if step[0] == BACKWARD:
            loss.cotangent = np.ones(loss.shape, loss.dtype)[()]
            loss.own = True
            yield step
            break
        yield step
    yield from waiting


def _instantiate(program: Program, args: tuple[Any, ...]) -> list[TapeNode]:
    """Fresh tape nodes for one run, the arguments' arrays in their leaves."""
    nodes: list[TapeNode] = []
    ops = bound_ops(program)
    generators = generators_given(program, args)
    positions = {entry.node: i for i, entry in enumerate(program.entries)}
    for entry, bound in zip(program.entries, ops, strict=True):
        pattern = entry.node
        inputs = tuple(
            nodes[positions[s]] if type(s) is TapeNode else s for s in pattern.inputs or ()
        )
        params = pattern.params
        if bound is not None and bound.random:
            assert params is not None
            params = {**params, "rng": generators.get(params["rng"], params["rng"])}
        node = TapeNode(bound, inputs, params, pattern.mask, pattern)
        node.requires_grad = pattern.requires_grad
        nodes.append(node)
    for position, array in zip(
        [position for _, position in program.leaves], check_arguments(program, args), strict=True
    ):
        nodes[position].value = array
    return nodes


def generators_given(program: Program, args: tuple[Any, ...]) -> dict[Any, Any]:
    """For each generator among the traced arguments, the one that was given in its place."""
    return {t: g for _, g, t in _matched(program, args) if isinstance(t, np.random.Generator)}


def _draw_in_order(nodes: list[TapeNode], steps: list[tuple[int, TapeNode]]) -> None:
    """Where the steps don't draw in the program's order, settle beforehand what each will draw.

    So every schedule draws what an eager run does, and leaves the generators where it does.
    """
    program = [node for node in nodes if node.op is not None and node.op.random]
    first = dict.fromkeys(
        node for kind, node in steps if kind == COMPUTE and node.op and node.op.random
    )
    if list(first) == program:
        return
    for node in program:
        assert node.params is not None and node.op is not None
        node.extra = random_state(node.params)
        node.op.forward(**node.params)


def check_arguments(program: Program, args: tuple[Any, ...]) -> list[Any]:
    """The argument arrays, one a leaf; TapeError if they aren't as they were when traced."""
    matched = _matched(program, args)
    places = dict(program.leaves)
    for at, (path, given, expected) in enumerate(matched):
        draws = isinstance(given, np.random.Generator) and type(given) is type(expected)
        if at not in places and given != expected and not draws:
            raise TapeError(
                f"argument {path} was {expected!r} when traced and is {given!r} now: trace it again"
            )
    arrays = []
    for at, _ in program.leaves:
        path, array, expected = matched[at]
        if isinstance(array, Value):
            array = array.data
        weak = isinstance(array, (bool, int, float)) and not expected.shape
        array = np.asarray(array, expected.dtype if weak else None)
        if array.shape != expected.shape or array.dtype != expected.dtype:
            raise TapeError(
                f"argument {path} is {array.dtype}{list(array.shape)}, but {expected.dtype}"
                f"{list(expected.shape)} was traced: trace it again for other shapes and dtypes"
            )
        arrays.append(_with_strides(array, expected))
    return arrays


def _matched(program: Program, args: tuple[Any, ...]) -> list[tuple[str, Any, Any]]:
    """Each leaf of the arguments: its place in words, what is given, what was traced."""
    traced = program.arguments
    if len(args) != len(traced):
        raise TapeError(f"traced with {len(traced)} arguments, called with {len(args)}")
    return [leaf for k, like in enumerate(traced) for leaf in tree.paired(args[k], like, str(k))]


def _with_strides(array: Any, traced: Any) -> Any:
    """The array in the memory order that was traced, which decides the bits of sums over it."""
    if array.ndim == 0:
        return array[()]
    if array.strides == traced.strides or array.size <= 1:
        return array
    made = np.lib.stride_tricks.as_strided(
        np.empty(_room(traced), array.dtype), traced.shape, traced.strides
    )
    made[...] = array
    return made


def _room(traced: Any) -> int:
    reach = sum((n - 1) * s for n, s in zip(traced.shape, traced.strides, strict=True))
    return int(reach // traced.itemsize + 1)


def bound_ops(program: Program) -> list[Any]:
    """The compiled op of each node; one for all nodes that do the same."""
    found: dict[Any, _BoundOp] = {}
    return [
        _bound(entry, edges, found)
        for entry, edges in zip(program.entries, program.edges, strict=True)
    ]


def _bound(entry: Entry, edges: tuple[Any, ...], found: dict[Any, _BoundOp]) -> Any:
    node = entry.node
    if node.op is None:
        return _CapturedOp(entry.array) if entry.role == "captured" else None
    assert entry.kernel is not None and node.inputs is not None
    op, count = node.op, len(node.inputs)
    key = (op, id(entry.kernel), *(id(e.kernel) if e else None for e in edges))
    if key not in found:
        rules = []
        for k, edge in enumerate(edges):
            rule = op.rules(count)[k] if edge else None
            if rule is not None and edge.kernel is not None:
                function = edge.kernel.function()
                rule = op.rule(k, count, function, like=rule.function)
            rules.append(rule)
        found[key] = _BoundOp(op, forward_function(op, entry.kernel), tuple(rules))
    return found[key]


def forward_function(op: Op, kernel: Any) -> Any:
    """The op's own forward if it is a primitive; the compiled kernel if it is composite."""
    if op.infer is not None:
        return op.forward
    function = kernel.function()
    return lambda *arrays, **params: function(*arrays)


def gather(program: Program, value: Any, gradients: list[Any], aux: list[Any]) -> Any:
    """A step's results as `value_and_grad` returns them: gradients in the parameters' structure."""
    found = {}
    for position, g in zip(program.parameters, gradients, strict=True):
        node = program.graph[position]
        found[position] = np.zeros(node.shape, node.dtype)[()] if g is None else g
    by_place = {at: found.get(position) for at, position in program.leaves}
    place = count()
    trees = [
        tree.rebuild(argument, lambda _: by_place.get(next(place)))
        for argument in program.arguments
    ]
    chosen = [trees[k] for k in program.argnums]
    grads = chosen[0] if program.single else tuple(chosen)
    if not program.has_aux:
        return value, grads
    waiting = iter(aux)
    filled = tree.rebuild(program.aux, lambda v: next(waiting) if isinstance(v, Value) else v)
    return (value, filled), grads
