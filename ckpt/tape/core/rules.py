"""An op's rules, each handed what its parameters name: the incoming cotangent, and what a node has.

A *node* here is a tape node, or anything with its ``value``, ``inputs``, ``params``, ``shape`` and
``dtype``: the same rules run on arrays, on Values and on what stands for them in a trace.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.errors import UnsupportedError
from ckpt.tape.core.cotangents import owner
from ckpt.tape.core.node import TapeNode, lost
from ckpt.tape.core.op import Op, Source, reads

Getter = Callable[[Any, Any], Any]
"""``getter(g, node)``: what one parameter of a rule stands for."""


class Stand:
    """A tape node as a rule sees it, with what else stands for its arrays."""

    __slots__ = ("dtype", "inputs", "params", "shape", "value")

    def __init__(self, node: TapeNode, stands_for: Callable[[TapeNode], Any]) -> None:
        self.shape, self.dtype, self.params = node.shape, node.dtype, node.params
        self.value = stands_for(node)
        self.inputs = [stands_for(s) if type(s) is TapeNode else s for s in node.inputs or ()]


class Rule:
    """How an operand's cotangent follows from ``g``, and what it reads beside."""

    __slots__ = ("accumulator", "call", "function", "getters", "is_guarded", "reads", "sources")

    def __init__(self, function: Callable[..., Any], sources: tuple[Source, ...]) -> None:
        self.function = function
        self.sources = sources
        self.reads = reads(sources)
        self.getters = tuple(map(_getter, sources))
        self.call = _caller(function, sources, self.getters)
        """``call(g, node)``: the operand's cotangent."""
        self.is_guarded = False
        """Is ``call`` more than a call of the function (see `unshared`)?"""
        self.accumulator: Rule | None = None
        """A function that adds the cotangent into an array, if the op declares one."""

    def arguments(self, g: Any, node: Any) -> list[Any]:
        """What the function is called with."""
        return [get(g, node) for get in self.getters]


def unshared(call: Getter) -> Getter:
    """The rule of a user's op: what it hands on that is held elsewhere, it copies.

    A residual or a constant, or a view of one, would be written into where cotangents are summed.
    Who holds an array is told by its count of references, which is one where the rule made it.
    """

    def checked(g: Any, node: Any) -> Any:
        made = call(g, node)
        if type(made) is not np.ndarray or made is g:
            return made
        if made.base is None:
            return made if sys.getrefcount(made) == _ALONE else np.positive(made)
        base = owner(made)
        if base is owner(g) or sys.getrefcount(base) == _ALONE + 1:
            return made
        return np.positive(made)

    return checked


def _alone() -> int:
    made = np.empty(1)
    return sys.getrefcount(made)


_ALONE = _alone()


def rules_of(op: Op, count: int) -> tuple[Rule | None, ...]:
    """The rules of a call with ``count`` operands, None where there is none."""
    found = op.rules.get(count)
    if found is None:
        found = op.rules[count] = tuple(_rule(op, k, count) for k in range(count))
    return found


def _rule(op: Op, k: int, count: int) -> Rule | None:
    name = op.operand_name(k)
    function, into = op.functions.get(name, _missing(op, name)), op.accumulators.get(name)
    if function is None:
        return None
    rule = Rule(function, op.sources(function, k, count))
    if not function.__module__.startswith("ckpt."):
        rule.call = unshared(rule.call)
        rule.is_guarded = True
    if into is not None:
        rule.accumulator = Rule(into, op.sources(into, k, count))
    return rule


def _missing(op: Op, name: str) -> Callable[..., Any]:
    """The rule of an operand of which nothing was said: zero would be a wrong gradient."""

    def refuse(g: Any) -> Any:
        raise UnsupportedError(
            f"{op.name} has no rule for its operand {name}, which needs a gradient: declare one "
            f"with {op.name}.vjp({name}=...), or {name}=None if no gradient flows to it"
        )

    return refuse


def read(source: Any) -> Any:
    """The array of a node's input: a tape node's value, or the constant itself."""
    if type(source) is TapeNode:
        if source.value is None:
            raise lost(source)
        return source.value
    return source


def shape_of(source: Any) -> tuple[int, ...]:
    return source.shape if hasattr(source, "shape") else np.shape(source)


def dtype_of(source: Any) -> np.dtype[Any]:
    return source.dtype if hasattr(source, "dtype") else np.asarray(source).dtype


def _getter(source: Source) -> Getter:
    kind, of = source
    match kind:
        case "g":
            return lambda g, node: g
        case "out":
            return lambda g, node: node.value
        case "out_shape":
            return lambda g, node: node.shape
        case "out_dtype":
            return lambda g, node: node.dtype
        case "option":
            return lambda g, node: node.params[of]
        case "operand":
            return lambda g, node: (
                i.value
                if type(i := node.inputs[of]) is TapeNode and i.value is not None
                else read(i)
            )
        case "shape":
            return lambda g, node: (
                i.shape if type(i := node.inputs[of]) is TapeNode else shape_of(i)
            )
        case "dtype":
            return lambda g, node: dtype_of(node.inputs[of])
        case "rest" | "others":
            return lambda g, node: tuple([read(node.inputs[k]) for k in of])
        case "shapes":
            return lambda g, node: [shape_of(i) for i in node.inputs]
        case "which":
            return lambda g, node: of
    raise AssertionError(kind)


def _caller(
    function: Callable[..., Any], sources: tuple[Source, ...], getters: tuple[Getter, ...]
) -> Getter:
    """The rule as a function of g and the node; the three kinds that most rules are, directly."""
    match [source.kind for source in sources]:
        case ["g"]:
            return lambda g, node: function(g)
        case ["g", "out"]:
            return lambda g, node: function(g, node.value)
        case ["g", "operand"]:
            of = sources[1].of

            def call(g: Any, node: Any) -> Any:
                source = node.inputs[of]
                if type(source) is TapeNode and source.value is not None:
                    return function(g, source.value)
                return function(g, read(source))

            return call
        case ["g", _, _]:
            _, first, second = getters
            return lambda g, node: function(g, first(g, node), second(g, node))
    return lambda g, node: function(*[get(g, node) for get in getters])
