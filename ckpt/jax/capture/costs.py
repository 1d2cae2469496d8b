"""What an equation costs: FLOPs, and bytes moved.

A multiply-add is 2 FLOPs, an elementwise function 1 an element, moving data 0.
"""

from __future__ import annotations

import math
from typing import Any

from ckpt.jax.capture.equations import Equation, Listing

MOVES = {
    "reshape", "transpose", "broadcast_in_dim", "squeeze", "expand_dims", "slice", "concatenate",
    "convert_element_type", "split", "iota", "copy", "copy_p", "select_n", "name", "rev", "pad",
    "stop_gradient", "dynamic_slice", "dynamic_update_slice", "gather", "scatter",
    "bitcast_convert_type", "random_wrap", "random_unwrap", "optimization_barrier", "empty",
    "full", "device_put", "sharding_constraint", "create_token", "reduce_precision",
    "split_with_sizes", "real", "imag", "tile",
}  # fmt: skip
"""Primitives that compute nothing. (`select_n` chooses.)"""


def flops_of(equation: Equation, listing: Listing) -> int:
    """FLOPs of one equation, those of a loop's or branch's body included."""
    ins, outs = map(listing.aval, equation.ins), map(listing.aval, equation.outs)
    return flops(equation.name, equation.params, [*ins], [*outs])


def flops(name: str, params: dict[str, Any], ins: list[Any], outs: list[Any]) -> int:
    if name in MOVES:
        return 0
    made = sum(_size(a) for a in outs)
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2 * made * math.prod(ins[0].shape[i] for i in contracted)
    if name == "conv_general_dilated":
        return _convolution(params, ins, made)
    if name == "scan":
        return int(params["length"]) * _body(params["jaxpr"])
    if name == "while":  # trips aren't known: one
        return _body(params["body_jaxpr"]) + _body(params["cond_jaxpr"])
    if name == "cond":
        return max(map(_body, params["branches"]))
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in params:
            return _body(params[key])
    if name.startswith(("reduce_", "arg", "cum", "sort", "reduce_window", "select_and")):
        return sum(_size(a) for a in ins)
    return made


def _body(closed: Any) -> int:
    jaxpr = getattr(closed, "jaxpr", closed)
    return sum(
        flops(e.primitive.name, e.params, [v.aval for v in e.invars], [v.aval for v in e.outvars])
        for e in jaxpr.eqns
    )


def _convolution(params: dict[str, Any], ins: list[Any], made: int) -> int:
    """What XLA counts: a multiply-add for each tap that meets no padding, on average."""
    numbers = params["dimension_numbers"]
    right = ins[1]
    kernel = [right.shape[i] for i in numbers.rhs_spec[2:]]
    taps = math.prod(kernel) * right.shape[numbers.rhs_spec[1]]
    holes = math.prod(params.get("lhs_dilation") or (1,))
    return 2 * made * taps // max(holes, 1)


def moved_by(equation: Equation, listing: Listing) -> int:
    """Bytes that it reads and writes."""
    return sum(map(listing.nbytes, (*equation.reads, *equation.outs)))


def _size(aval: Any) -> int:
    return math.prod(getattr(aval, "shape", ()))
