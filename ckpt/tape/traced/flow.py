"""A trace's backward on abstract cotangents: what each rule costs, and what it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ckpt.tape.core.abstract import AbstractArray, AbstractParts, fresh
from ckpt.tape.core.node import TapeNode
from ckpt.tape.traced.derived import rule_kernel


@dataclass(frozen=True, slots=True)
class Edge:
    """One contribution of a Backward: its kind (see `ckpt.graph.COTANGENTS`), cost, and kernel."""

    kind: str
    flops: int
    workspace: int
    kernel: Any
    spread_nbytes: int = 0


@dataclass(slots=True)
class _Cotangent:
    array: AbstractArray
    own: bool


def pull_back(
    entries: list[Any], positions: dict[TapeNode, int], loss: int
) -> list[tuple[Edge | None, ...]]:
    """For each node, an Edge an input (None where no cotangent flows), as the interpreter goes."""
    edges: list[tuple[Edge | None, ...]] = [()] * len(entries)
    waiting: dict[int, _Cotangent] = {loss: _Cotangent(_ones(entries[loss].node), True)}
    for position in range(len(entries) - 1, -1, -1):
        node = entries[position].node
        inputs = node.inputs
        row: list[Edge | None] = [None] * len(inputs)
        found = waiting.pop(position, None)
        if found is not None and node.op is not None:
            for k, rule in enumerate(node.op.rules(len(inputs))):
                dep = inputs[k]
                if rule is None or type(dep) is not TapeNode or not dep.requires_grad:
                    continue
                at = positions[dep]
                current = waiting.get(at)
                if rule.into is not None:
                    target = _zeros(dep) if current is None else current.array
                    flops, workspace = node.op.into_cost(target, found.array, node)
                    row[k] = Edge("part", flops, workspace, None)
                    waiting[at] = _Cotangent(target, True)
                    continue
                kernel = rule_kernel(entries[position].kernel, k, node, found.array)
                kind, made = _kind(kernel)
                flops = kernel.flops
                if current is None:
                    own = kind == "fresh" or dep.op is None
                    waiting[at] = _Cotangent(made, own)
                else:
                    flops += made.size
                    waiting[at] = _sum(current, made, kind == "fresh")
                spread = kernel.nbytes if kind == "spread" else 0
                row[k] = Edge(kind, flops, kernel.workspace, kernel, spread)
        edges[position] = tuple(row)
    return edges


def _zeros(node: TapeNode) -> Any:
    """What parts of the node's cotangent are added into; see `interpreter.zeros_like`."""
    if type(node.dtype) is tuple:
        shapes: tuple[Any, ...] = node.shape
        return AbstractParts(AbstractArray(s, d) for s, d in zip(shapes, node.dtype, strict=True))
    return AbstractArray(node.shape, node.dtype)


def _ones(node: TapeNode) -> AbstractArray:
    return AbstractArray(node.shape, node.dtype)


def _kind(kernel: Any) -> tuple[str, AbstractArray]:
    """What kind of array a rule's kernel gives; g is the first argument of every rule."""
    if kernel.is_fresh:
        return ("spread" if kernel.nbytes < kernel.array.nbytes else "fresh"), kernel.array
    return ("handed" if kernel.result == kernel.root else "view"), kernel.array


def _sum(current: _Cotangent, made: AbstractArray, made_is_own: bool) -> _Cotangent:
    """The layout that the interpreter's sum of two cotangents has."""
    if current.own:
        return current
    if made_is_own:
        return _Cotangent(made, True)
    return _Cotangent(sum_layout(current.array, made), True)


def sum_layout(x: AbstractArray, y: AbstractArray) -> AbstractArray:
    """The layout of ``x + y``."""
    return fresh(np.add, x.shape, x, y)
