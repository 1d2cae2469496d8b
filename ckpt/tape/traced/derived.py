"""A trace's kernels: what each forward and rule does, remembered by layout and options."""

from __future__ import annotations

from typing import Any

import numpy as np

from ckpt.errors import UnsupportedError
from ckpt.tape.core.abstract import AbstractArray, AbstractParts, abstract, remember
from ckpt.tape.core.cotangents import fit
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import Op
from ckpt.tape.core.rules import rules_of
from ckpt.tape.traced.kernel import Kernel, cost, infer, moved, trace_kernel


def forward_kernel(
    op: Op,
    arrays: tuple[Any, ...],
    params: dict[str, Any] | None,
    kernels: dict[Any, Kernel] | None = None,
) -> Kernel:
    """What the op's forward does on such operands; remembered by their shapes and strides, in
    ``kernels`` or on the op."""
    kernels = op.kernels if kernels is None else kernels
    key = _key(arrays, params)
    try:
        kernel = kernels.get(key)
    except TypeError:  # an option that can't be hashed
        kernel, key = None, None
    if kernel is None:
        if op.infer is None:
            kernel = _composite(op, arrays, params)
        else:
            kernel = _primitive(op, arrays, params)
        if key is not None:
            remember(kernels, key, kernel)
    return kernel


def _composite(op: Op, arrays: tuple[Any, ...], params: dict[str, Any] | None) -> Kernel:
    try:
        return trace_kernel(lambda *operands: op.forward(*operands, **(params or {})), arrays)
    except RecursionError:
        raise UnsupportedError(
            f"{op.name} stands for a function that its own forward calls, so its shape isn't known "
            "while tracing; declare it: @ckpt.op(..., infer=lambda x: ckpt.spec(x.shape, x.dtype))"
        ) from None


def _primitive(op: Op, arrays: tuple[Any, ...], params: dict[str, Any] | None) -> Kernel:
    made, shared = infer(op, list(arrays), params)
    flops, workspace, scratch = cost(op, made, list(arrays), params)
    places = [k for k, a in enumerate(arrays) if isinstance(a, (AbstractArray, AbstractParts))]
    return Kernel(
        signature=arrays,
        arguments=tuple(arrays[k] for k in places),
        calls=(),
        result=0,
        array=made,
        flops=flops,
        moved=0 if shared else moved(made, *arrays),
        workspace=workspace,
        scratch=scratch,
        root=0 if shared else len(places),
        nbytes=0 if shared else made.nbytes,
    )


def rule_kernel(forward: Kernel, k: int, node: TapeNode, g: AbstractArray) -> Kernel:
    """What the rule of operand k does, the sum over broadcast axes and the cast included.

    ``forward`` is the kernel of the node's own forward, which remembers those of its rules.
    """
    key = (k, node.mask, g)
    kernel = forward.rules.get(key)
    if kernel is None:
        kernel = remember(forward.rules, key, _rule_kernel(k, node, g))
    return kernel


def _rule_kernel(k: int, node: TapeNode, g: AbstractArray) -> Kernel:
    assert node.op is not None and node.inputs is not None
    rule = rules_of(node.op, len(node.inputs))[k]
    assert rule is not None
    function = rule.function
    dep = node.inputs[k]
    g = AbstractArray(g.shape, g.dtype, g.strides) if type(g) is AbstractArray else g
    given = rule.arguments(g, node)  # this g is like no other, and so known among them
    arguments = tuple(abstract(a) if isinstance(a, np.generic) else a for a in given)

    def fitted(*given: Any) -> Any:
        made = function(*given)
        if made.shape != dep.shape or made.dtype != dep.dtype:
            made = fit(made, dep.shape, dep.dtype)
        return made

    kernel = trace_kernel(fitted, arguments)
    if kernel.is_fresh:
        copied = kernel.nbytes > kernel.array.nbytes
    else:
        root = kernel.arguments[kernel.root]
        copied = root is not g or type(root) is not type(kernel.array)
    if copied:
        # It holds more than it shows, is one of several, or a residual, which a sum would write to.
        kernel = trace_kernel(lambda *given: np.positive(fitted(*given)), arguments)
    kernel.cotangent = next((k for k, a in enumerate(kernel.arguments) if a is g), None)
    return kernel


def _key(arrays: tuple[Any, ...], params: dict[str, Any] | None) -> Any:
    """A key for such operands and options; it can't be hashed where some option can't."""
    operands = [
        a if type(a) is AbstractArray or not isinstance(a, (bool, int, float, complex))
        else (type(a), a)
        for a in arrays
    ]  # fmt: skip
    if not params:
        return tuple(operands)
    return (*operands, None, *[(n, _frozen(v)) for n, v in params.items()])


def _frozen(value: Any) -> Any:
    if isinstance(value, slice):
        return ("slice", value.start, value.stop, value.step)
    if isinstance(value, (tuple, list)):
        return tuple(map(_frozen, value))
    if isinstance(value, np.random.Generator):
        return np.random.Generator  # which one changes no shape, and a key would keep it alive
    if isinstance(value, (bool, int, float)):
        return (type(value), value)
    return value
