"""The Backward of an op's calls as one Python function, written from what its rules name.

A loop over rules with general getters costs more than a rule on a small array. So for each op,
number of operands and mask of those that need a gradient there is a function with that loop
unrolled: what a rule reads is an expression, and the usual cases of `contribute` - a number, an
array of the rule's own, the incoming one handed on - are spelt out. All others are left to it.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from typing import Any

import numpy as np

from ckpt.tape.core.cotangents import contribute, fit, own_cotangent
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import Op, Source
from ckpt.tape.core.rules import Rule, read, rules_of, shape_of

Backward = Callable[[TapeNode, Any, Any, Any, list[TapeNode]], None]
"""``backward(node, inputs, g, heap, leaves)``: contribute to the cotangents of the inputs; those
that get their first one go to the heap, or to the leaves."""

_REACH = """
    dep = inputs[{k}]
    if dep.requires_grad:
        old = dep.cotangent
        if old is None:
            if dep.op is None:
                leaves.append(dep)
            else:
                push(heap, (-dep.position, dep))
"""

_ADD = """
        new = {cotangent}
        if type(new) is float64 and dep.dtype is double and not dep.shape:
            dep.cotangent = new if old is None else old + new
            dep.own = True
        elif type(new) is ndarray and dep.shape:
            if new.shape != dep.shape or new.dtype is not dep.dtype:
                new = fit(new, dep.shape, dep.dtype)
            if new is g and old is None and dep.op is not None:
                dep.cotangent = g
                dep.own = False
            elif new is g or new.base is not None:
                contribute(dep, new, g)
            else:
                if old is None:
                    dep.cotangent = new
                elif dep.own:
                    old += new
                else:
                    new += old
                    dep.cotangent = new
                dep.own = True
        else:
            contribute(dep, new, g)
        new = old = None
"""

_ADD_PART = """
        old = None
        part{k}.function(own_cotangent(dep), *part{k}.arguments(g, node))
"""


def backward_of(op: Op, count: int, mask: int) -> Backward:
    """The function for calls of ``op`` with so many operands; bit k of ``mask``: operand k is a
    node that may need a gradient."""
    key = mask | 1 << count
    found = op.backwards.get(key)
    if found is None:
        made = _written(op, count, mask) if count <= FEW else _looped(op, count)
        found = op.backwards[key] = made
    return found


FEW = 8
"""Up to so many operands; a loop is as quick for more, and needs no compiling."""


def _looped(op: Op, count: int) -> Backward:
    """The same for many operands."""
    rules = rules_of(op, count)

    def backward(node: Any, inputs: Any, g: Any, heap: Any, leaves: list[TapeNode]) -> None:
        for k, rule in enumerate(rules):
            dep = inputs[k]
            if rule is None or type(dep) is not TapeNode or not dep.requires_grad:
                continue
            if dep.cotangent is None:
                if dep.op is None:
                    leaves.append(dep)
                else:
                    heappush(heap, (-dep.position, dep))
            part = rule.accumulator
            if part is None:
                contribute(dep, rule.call(g, node), g)
            else:
                part.function(own_cotangent(dep), *part.arguments(g, node))

    return backward


def _written(op: Op, count: int, mask: int) -> Backward:
    names: dict[str, Any] = {
        "float64": np.float64, "double": np.dtype(np.float64), "ndarray": np.ndarray,
        "TapeNode": TapeNode, "push": heappush, "read": read, "shape_of": shape_of,
        "fit": fit, "contribute": contribute, "own_cotangent": own_cotangent,
    }  # fmt: skip
    text = ["def backward(node, inputs, g, heap, leaves):"]
    for k, rule in enumerate(rules_of(op, count)):
        if rule is None or not mask >> k & 1:
            continue
        text.append(_REACH.format(k=k))
        if rule.accumulator is not None:
            names[f"part{k}"] = rule.accumulator
            text.append(_ADD_PART.format(k=k))
        else:
            text.append(_ADD.format(cotangent=_cotangent(rule, k, names)))
    text.append("    return")
    exec(compile("".join(text), f"{__file__}:{op.name}", "exec"), names)
    return names["backward"]  # type: ignore[no-any-return]


def _cotangent(rule: Rule, k: int, names: dict[str, Any]) -> str:
    """The expression for what the rule gives."""
    arguments = [_argument(source) for source in rule.sources]
    if rule.is_guarded or None in arguments:
        names[f"rule{k}"] = rule.call
        return f"rule{k}(g, node)"
    if arguments == ["g"] and _code(rule.function) == _code(lambda g: g):
        return "g"
    names[f"rule{k}"] = rule.function
    return f"rule{k}({', '.join(map(str, arguments))})"


def _code(function: Callable[..., Any]) -> bytes | None:
    """The byte code of a Python function."""
    return getattr(getattr(function, "__code__", None), "co_code", None)


def _argument(source: Source) -> str | None:
    """The expression for what a rule names, or None for what is rare."""
    match source:
        case Source("g"):
            return "g"
        case Source("out"):
            return "node.value"
        case Source("out_shape"):
            return "node.shape"
        case Source("out_dtype"):
            return "node.dtype"
        case Source("option", name):
            return f"node.params[{name!r}]"
        case Source("operand", k):
            return (
                f"(s if type(s := inputs[{k}]) is not TapeNode "
                "else s.value if s.value is not None else read(s))"
            )
        case Source("shape", k):
            return f"(s.shape if type(s := inputs[{k}]) is TapeNode else shape_of(s))"
    return None
