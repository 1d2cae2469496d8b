"""Equations in a row: nested jaxprs are laid open where that changes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jax.extend import core

from ckpt.jax.capture.sources import scope_of, source_of, written_elsewhere

Operand = Any
"""The number of a variable; a `core.Literal`; or an Equation without variables whose result is made
anew wherever it is read, as XLA does: zeros, say, which JAX makes once for all layers."""

FILLS = ("broadcast_in_dim", "iota", "convert_element_type", "full")
"""Primitives that make such a result."""

INLINED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
}
"""Primitives that only call, and the parameter in which their jaxpr is. What is laid open has been
differentiated already, so custom rules have done their work; and a plan takes the place of the
user's own `jax.checkpoint`."""


@dataclass(slots=True, eq=False)
class Equation:
    """One primitive applied to variables."""

    primitive: Any
    params: dict[str, Any]
    ins: tuple[Operand, ...]
    outs: tuple[int, ...]
    source: str
    scope: str
    info: Any
    """JAX's own source information, under which it is bound again."""

    @property
    def name(self) -> str:
        return str(self.primitive.name)

    @property
    def reads(self) -> list[int]:
        """The variables among its operands."""
        return [v for v in self.ins if isinstance(v, int)]

    def results(self, values: Mapping[int, Any]) -> list[Any]:
        """What it makes of the variables' ``values``."""
        ins = [value_of(operand, values) for operand in self.ins]
        made = self.primitive.bind(*ins, **self.primitive.get_bind_params(self.params))
        return list(made) if self.primitive.multiple_results else [made]


def value_of(operand: Operand, values: Mapping[int, Any]) -> Any:
    if isinstance(operand, int):
        return values[operand]
    return operand.results({})[0] if isinstance(operand, Equation) else operand.val


@dataclass(slots=True)
class Listing:
    """Variables by number, and the equations that make them."""

    avals: list[Any] = field(default_factory=list)
    equations: list[Equation] = field(default_factory=list)
    constants: dict[int, Any] = field(default_factory=dict)
    """Variables that are arrays which the function closed over."""
    _known: dict[int, int] = field(default_factory=dict)

    def variable(self, aval: Any) -> int:
        self.avals.append(aval)
        return len(self.avals) - 1

    def constant(self, value: Any, aval: Any) -> int:
        if id(value) not in self._known:
            self._known[id(value)] = number = self.variable(aval)
            self.constants[number] = value
        return self._known[id(value)]

    def add(
        self, jaxpr: Any, consts: list[Any], args: list[Operand], outer: tuple[str, str] | None
    ) -> list[Operand]:
        """The equations of a jaxpr; what its outputs are. ``outer``: source and scope of the call
        whose body it is, where the body is a library's."""
        here: dict[Any, Operand] = dict(zip(jaxpr.invars, args, strict=True))
        for var, value in zip(jaxpr.constvars, consts, strict=True):
            here[var] = self.constant(value, var.aval)

        def read(v: Any) -> Operand:
            return v if isinstance(v, core.Literal) else here[v]

        for eqn in jaxpr.eqns:
            ins = [read(v) for v in eqn.invars]
            source, scope = outer or (source_of(eqn.source_info), scope_of(eqn.source_info))
            body = inner(eqn)
            if body is not None:
                around = (source, scope) if outer or written_elsewhere(body.jaxpr) else None
                results = self.add(body.jaxpr, body.consts, ins, around)
                here.update(zip(eqn.outvars, results, strict=True))
                continue
            outs = tuple(self.variable(v.aval) for v in eqn.outvars)
            equation = Equation(
                eqn.primitive, eqn.params, tuple(ins), outs, source, scope, eqn.source_info
            )
            if eqn.primitive.name in FILLS and not equation.reads:
                here[eqn.outvars[0]] = equation
                continue
            here.update(zip(eqn.outvars, outs, strict=True))
            self.equations.append(equation)
        return [read(v) for v in jaxpr.outvars]

    def aval(self, operand: Operand) -> Any:
        if isinstance(operand, Equation):
            operand = operand.outs[0]
        return self.avals[operand] if isinstance(operand, int) else operand.aval

    def nbytes(self, number: int) -> int:
        return nbytes_of(self.avals[number])


def inner(eqn: Any) -> Any:
    """The jaxpr that an equation only calls; None where it does more."""
    key = INLINED.get(eqn.primitive.name)
    if key is None or key not in eqn.params:
        return None
    params = eqn.params
    asked = [*params.get("in_shardings", ()), *params.get("out_shardings", ())]
    if any(type(s).__name__ != "UnspecifiedValue" for s in asked):
        return None
    if params.get("compiler_options_kvs"):
        return None
    body = params[key]
    return body if isinstance(body, core.ClosedJaxpr) else core.ClosedJaxpr(body, ())


def bodies(params: Mapping[str, Any]) -> list[Any]:
    """The jaxprs among an equation's parameters."""
    values = [v for p in params.values() for v in (p if isinstance(p, (tuple, list)) else (p,))]
    found = [v.jaxpr if isinstance(v, core.ClosedJaxpr) else v for v in values]
    return [v for v in found if isinstance(v, core.Jaxpr)]


def nbytes_of(aval: Any) -> int:
    shape = getattr(aval, "shape", None)
    if shape is None:
        return 0
    return math.prod(shape) * int(aval.dtype.itemsize)


def live_only(equations: list[Equation], outputs: list[Operand]) -> list[Equation]:
    """The equations that some output depends on."""
    wanted = {v for v in outputs if isinstance(v, int)}
    kept = []
    for equation in reversed(equations):
        if not wanted.isdisjoint(equation.outs):
            wanted.update(equation.reads)
            kept.append(equation)
    return kept[::-1]
