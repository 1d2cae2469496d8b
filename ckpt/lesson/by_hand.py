"""Reverse mode by hand: a small formula's graph and each step of its backward, read off the tape.

The rules are the ops' own. Scalars only; the tape's `backward` does the same for arrays.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import OUT
from ckpt.tape.core.rules import Rule, rules_of
from ckpt.tape.core.value import Value

SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "power": "**"}
STEP = 1e-6
"""How far a finite difference goes to either side."""


class Hop(NamedTuple):
    """What one rule of one Backward does: from a node's cotangent to a part of an input's."""

    node: TapeNode
    operand: int
    dep: TapeNode
    cotangent: float
    rule: Rule
    handed: float


class Example(NamedTuple):
    """A formula, as text and as a function of numbers or Values, and where to look at it."""

    name: str
    text: str
    function: Callable[..., Any]
    at: dict[str, float]

    def on_tape(self) -> tuple[dict[str, Value], Value]:
        """The leaves by name, and the result."""
        leaves = {name: Value(number) for name, number in self.at.items()}
        return leaves, self.function(*leaves.values())


# -- what the tape knows ---------------------------------------------------------------------------


def topological(result: Value) -> list[TapeNode]:
    """The nodes behind ``result`` and its own, each after its inputs: the order of creation."""
    found: set[TapeNode] = set()
    waiting = [result._node]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [i for i in node.inputs or () if isinstance(i, TapeNode)]
    return sorted(found, key=lambda node: node.position)


def edges(node: TapeNode) -> Iterator[tuple[int, TapeNode, Rule]]:
    """The inputs of a node that a cotangent is handed to, and the rule for each."""
    inputs = node.inputs or ()
    rules = rules_of(node.op, len(inputs)) if node.op else ()
    for operand, (dep, rule) in enumerate(zip(inputs, rules, strict=True)):
        if rule is not None and isinstance(dep, TapeNode) and dep.requires_grad:
            yield operand, dep, rule


def hops(order: list[TapeNode]) -> list[Hop]:
    """Reverse mode: the cotangent 1 of the last node, handed on from reader to input."""
    cotangents = dict.fromkeys(order, 0.0) | {order[-1]: 1.0}
    done = []
    for node in reversed(order):
        for operand, dep, rule in edges(node):
            handed = float(rule.call(np.float64(cotangents[node]), node))
            done.append(Hop(node, operand, dep, cotangents[node], rule, handed))
            cotangents[dep] += handed
    return done


def tangent(order: list[TapeNode], leaf: TapeNode) -> tuple[float, int]:
    """Forward mode: d(last node)/d(leaf) by one pass from the leaf on, and the rules it called.

    Of scalars a rule is multiplication by a number, so the same rules serve either direction.
    """
    tangents = dict.fromkeys(order, 0.0) | {leaf: 1.0}
    calls = 0
    for node in order:
        for _, dep, rule in edges(node):
            tangents[node] += float(rule.call(np.float64(tangents[dep]), node))
            calls += 1
    return tangents[order[-1]], calls


def written_out(order: list[TapeNode]) -> int:
    """How many leaves the last node has when written out as one formula, sharing nothing."""
    sizes: dict[Any, int] = {}
    for node in order:
        sizes[node] = sum(sizes.get(i, 1) for i in node.inputs or ()) if node.op else 1
    return sizes[order[-1]]


def finite_difference(example: Example, name: str) -> float:
    """The central difference of the formula in plain numbers, in the direction of ``name``."""

    def moved(by: float) -> float:
        found = example.function(**example.at | {name: example.at[name] + by})
        return float(found.data if isinstance(found, Value) else found)

    return (moved(STEP) - moved(-STEP)) / (2 * STEP)


def rule_text(hop: Hop) -> str:
    """The rule as its author wrote it: the body of a lambda, or the call of a named function."""
    function = hop.rule.function
    assert hop.node.op is not None
    if function.__name__ != "<lambda>":
        return f"{function.__name__}({', '.join(inspect.signature(function).parameters)})"
    declaration = ast.parse(textwrap.dedent(inspect.getsource(function)))  # op.vjp(x=lambda …)
    rules = {
        part.arg: part.value for part in ast.walk(declaration) if isinstance(part, ast.keyword)
    }
    written = rules[hop.node.op.operands[hop.operand]]
    assert isinstance(written, ast.Lambda)
    return ast.unparse(_OfScalars().visit(written.body))


class _OfScalars(ast.NodeTransformer):
    """Leaves out the sum over the axes along which an operand was broadcast."""

    def visit_Call(self, call: ast.Call) -> ast.AST:
        self.generic_visit(call)
        is_sum = isinstance(call.func, ast.Name) and call.func.id == "_summed"
        return call.args[0] if is_sum else call


# -- in words --------------------------------------------------------------------------------------


def names_of(order: list[TapeNode], leaves: Mapping[str, Value], result: str) -> dict[Any, str]:
    """What we call each node: a leaf by its name or number, others v1, v2, ..."""
    names: dict[Any, str] = {value._node: name for name, value in leaves.items()}
    count = 0
    for node in order[:-1]:
        if node.op is not None:
            count += 1
            names[node] = f"v{count}"
        elif node not in names:
            names[node] = f"({node.value:g})"
    return names | {order[-1]: result}


def shown(source: Any, names: Mapping[Any, str]) -> str:
    return names[source] if isinstance(source, TapeNode) else f"{source:g}"


def graph_lines(
    order: list[TapeNode], leaves: Mapping[str, Value], names: Mapping[Any, str]
) -> Iterator[str]:
    """A line a node: what it is made of, its value, and whether the tape keeps it."""
    values: dict[Any, Any] = {leaf._node: leaf.data for leaf in leaves.values()}
    for node in order:
        if node.op is None:
            values.setdefault(node, node.value)
            yield f"  {names[node]:>4}  leaf{values[node]:>22g}"
            continue
        inputs = node.inputs or ()
        operands = (values[i] if isinstance(i, TapeNode) else i for i in inputs)
        values[node] = node.op.forward(*operands, **(node.params or {}))
        formula = f" {SIGNS[node.op.name]} ".join(shown(i, names) for i in inputs)
        kept = "kept: a backward reads it" if node.value is not None else "let go: none reads it"
        yield f"  {names[node]:>4}  = {formula:<12}{values[node]:>12g}   {kept}"


def hop_lines(steps: list[Hop], names: Mapping[Any, str]) -> Iterator[str]:
    """A line a rule: the node, its cotangent g, the rule, the residuals, what is handed on."""
    yield "  node  op         g     rule                reads             hands on"
    for hop in steps:
        op, inputs = hop.node.op, hop.node.inputs
        assert op is not None
        assert inputs is not None
        reads = []
        for k in hop.rule.reads:
            source, what = (hop.node, "out") if k == OUT else (inputs[k], op.operands[k])
            is_node = isinstance(source, TapeNode)
            value = f"{names[source]} = {source.value:g}" if is_node else f"{source:g}"
            reads.append(f"{what} ({value})")
        yield (
            f"  {names[hop.node]:>4}  {op.name:<9}{hop.cotangent:>3g}     {rule_text(hop):<19} "
            f"{', '.join(reads) or 'nothing':<18}{hop.handed:g} to {names[hop.dep]}"
        )


def gradient_lines(
    example: Example, leaves: Mapping[str, Value], steps: list[Hop]
) -> Iterator[str]:
    """A line a leaf: its gradient, a finite difference, and the cotangents that came together."""
    for name, leaf in leaves.items():
        arrived = " + ".join(f"{hop.handed:g}" for hop in steps if hop.dep is leaf._node)
        yield (
            f"  d{example.name}/d{name} = {leaf.grad:<4g} finite difference "
            f"{finite_difference(example, name):>9.6f}   arrived: {arrived}"
        )


def told(example: Example) -> Iterator[str]:
    """One example, from its graph to its gradients."""
    leaves, result = example.on_tape()
    order = topological(result)
    names = names_of(order, leaves, example.name)
    steps = hops(order)
    yield from ("", f"    {example.name} = {example.text}", "")
    yield from graph_lines(order, leaves, names)
    yield from ("", "  topological order: " + ", ".join(names[node] for node in order), "")
    yield from hop_lines(steps, names)
    named = {h.rule.function for h in steps if h.rule.function.__name__ != "<lambda>"}
    for function in named:
        yield from ("", f"  {function.__name__} knows some cases by heart:", "")
        yield textwrap.indent(inspect.getsource(function).rstrip(), "    ")
    result.backward()
    yield from ("", f"  {example.name} = {result.data:g}, and what .backward() left in .grad:")
    yield from gradient_lines(example, leaves, steps)
