"""Forward and backward of a traced function as a Graph."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any, Literal

from ckpt.graph import BackwardRow, BackwardStep, Graph, Node
from ckpt.jax.capture.costs import flops_of, moved_by
from ckpt.jax.capture.equations import Equation
from ckpt.jax.capture.joint import Joint

VIEWS = ("reshape", "squeeze", "expand_dims", "broadcast_in_dim")
"""Primitives whose result has the elements of their operand, in its order; a broadcast only where
it adds axes of one element."""


@dataclass(slots=True)
class LoweredJoint:
    """The graph, and beside it which equation and which variable each part of it is."""

    joint: Joint
    graph: Graph
    node_of: dict[int, int]
    """Variable of the forward -> node."""
    equation_of: dict[int, Equation]
    """Node -> the equation that computes it: of a call, and of a value that isn't a result."""
    variable_of: dict[int, int] = field(default_factory=dict)
    """Node -> variable; calls have none."""


def lower(joint: Joint, name: str = "") -> LoweredJoint:
    """Gradients are allocated beforehand: XLA's are outputs of the step, beside its temporaries."""
    listing = joint.listing
    nodes: list[Node] = []
    node_of: dict[int, int] = {}
    equation_of: dict[int, Equation] = {}

    def kind(v: int) -> dict[str, Any]:
        aval = listing.avals[v]
        dtype = str(getattr(aval, "dtype", "token"))
        return {"shape": tuple(getattr(aval, "shape", ())), "dtype": dtype}

    def add(node: Node, variable: int | None = None) -> int:
        nodes.append(node)
        if variable is not None:
            node_of[variable] = len(nodes) - 1
        return len(nodes) - 1

    for v, label in zip(joint.inputs, joint.arguments.names, strict=True):
        add(Node(name=label, op="argument", resident=True, nbytes=listing.nbytes(v), **kind(v)), v)
    for v in listing.constants:
        add(Node(name="", op="constant", resident=True, nbytes=listing.nbytes(v), **kind(v)), v)
    read = {v for e in (*joint.forward, *joint.backward) for v in e.reads}
    read.update(v for v in (*joint.outputs, *joint.gradients) if isinstance(v, int))
    for equation in joint.forward:
        deps = tuple(dict.fromkeys(node_of[v] for v in equation.reads))
        cost: dict[str, Any] = {
            "flops": flops_of(equation, listing), "moved_nbytes": moved_by(equation, listing),
        }  # fmt: skip
        origin: dict[str, Any] = {
            "op": equation.name,
            "source": equation.source,
            "scope": equation.scope,
        }
        if len(equation.outs) == 1:
            (v,) = equation.outs
            view = is_view(equation, joint)
            alias = deps[0] if view else None
            size = listing.nbytes(v)
            place = add(
                Node(name="", deps=deps, nbytes=size, alias_of=alias, **kind(v), **cost, **origin),
                v,
            )
            equation_of[place] = equation
            continue
        unread = sum(listing.nbytes(v) for v in equation.outs if v not in read)
        call = add(Node(name="", deps=deps, call=True, nbytes=unread, **cost, **origin))
        equation_of[call] = equation
        for k, v in enumerate(equation.outs):
            if v in read:
                size = listing.nbytes(v)
                add(Node(name=f"result {k}", deps=(call,), nbytes=size, **kind(v), **origin), v)
    rows = _rows(joint, node_of)
    outputs = [v for v in (*joint.outputs, *joint.gradients) if isinstance(v, int)]
    graph = Graph(
        tuple(nodes), tuple(_steps(joint, node_of, nodes, rows)), tuple(rows),
        tuple(node_of[v] for v in outputs if v in node_of and not nodes[node_of[v]].resident),
        name=name,
    )  # fmt: skip
    variables = {place: v for v, place in node_of.items()}
    return LoweredJoint(joint, graph, node_of, equation_of, variables)


def is_view(equation: Equation, joint: Joint) -> bool:
    """Does it only see its operand in another shape? Then it needs no bytes of its own."""
    if equation.name not in VIEWS or len(equation.ins) != 1 or not equation.reads:
        return False
    if equation.params.get("dimensions") is not None and equation.name == "reshape":
        return False
    before, after = joint.listing.avals[equation.reads[0]], joint.listing.avals[equation.outs[0]]
    return math.prod(before.shape) == math.prod(after.shape)


def _rows(joint: Joint, node_of: dict[int, int]) -> list[BackwardRow]:
    """What backward makes, and how long it is there."""
    end = len(joint.backward)
    last: dict[int, int] = {}
    for k, equation in enumerate(joint.backward):
        for v in (*equation.outs, *equation.reads):
            last[v] = k
    whose: dict[int, int] = {}
    for target, v in zip(joint.arguments.targets, joint.gradients, strict=True):
        if isinstance(v, int):
            whose.setdefault(v, node_of[joint.inputs[target]])
    results = {v for v in joint.outputs if isinstance(v, int)}

    def row(kind: Literal["seed", "cotangent"], v: int, first: int) -> BackwardRow:
        size = joint.listing.nbytes(v)
        if v in whose:
            return BackwardRow(kind="gradient", nbytes=size, first=first, last=end, whose=whose[v])
        gone = end if v in results else last.get(v, first)
        return BackwardRow(kind=kind, nbytes=size, first=first, last=gone)

    rows = [row("seed", v, 0) for v in joint.seeds] if end else []
    for k, equation in enumerate(joint.backward):
        rows += [row("cotangent", v, k) for v in equation.outs]
    return rows


def _steps(
    joint: Joint, node_of: dict[int, int], nodes: list[Node], rows: list[BackwardRow]
) -> list[BackwardStep]:
    count = len(joint.backward)
    born, dies = [0] * (count + 1), [0] * (count + 1)
    for row in rows:
        if row.kind != "gradient":
            born[row.first] += row.nbytes
            dies[row.last] += row.nbytes
    readers: list[list[int]] = [[] for _ in nodes]
    for place, node in enumerate(nodes):
        for dep in node.deps:
            readers[dep].append(place)
    live, steps, at = 0, [], len(nodes) - 1
    for k, equation in enumerate(joint.backward):
        live += born[k]
        found = {node_of[v] for v in equation.reads if v in node_of}
        reads = tuple(sorted(r for r in found if not nodes[r].resident))
        at = _place(reads, readers, at)
        steps.append(
            BackwardStep(
                label=equation.name,
                reads=reads,
                at=at,
                flops=flops_of(equation, joint.listing),
                moved_nbytes=moved_by(equation, joint.listing),
                during=live,
                source=equation.source,
            )
        )
        live -= dies[k]
    return steps


def _place(reads: tuple[int, ...], readers: list[list[int]], before: int) -> int:
    """Where in the forward a step belongs, which JAX doesn't say: at the op of whose derivative it
    is a part, the last one up to the step before that has these operands. What reads nothing of the
    forward stays with the step before: were it put off, its operands would cross the cut instead
    of its result, and XLA would round them apart."""
    places = []
    for read in reads:
        k = bisect_right(readers[read], before)
        places.append(readers[read][k - 1] if k else read)
    return min(max(min(places), *reads), before) if places else before
