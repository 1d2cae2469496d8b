"""What a forward or a rule does, step by step, and so what it costs.

Forwards and rules are NumPy functions. Run once on abstract Values, such a function leaves the list
of primitives that it calls: a Kernel. FLOPs, workspace and the kind of result are read off that
list; nothing of it is declared twice. `execute` performs it, and a temporary that dies is
overwritten by the next result of its shape: NumPy does the same in expressions, but only above some
size and only on some platforms, and a promise can't rest on that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ckpt.errors import UnsupportedError
from ckpt.tape.core.abstract import AbstractArray, AbstractParts, Shared, abstract
from ckpt.tape.core.context import CURRENT, Context
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import Op
from ckpt.tape.core.value import Value, constant


@dataclass(frozen=True, slots=True)
class Call:
    """One primitive: what it reads (positions in the kernel, or constants) and what it makes."""

    op: Op
    sources: tuple[Any, ...]
    params: dict[str, Any] | None
    array: Any
    """The AbstractArray (or AbstractParts) it makes."""
    root: int
    """The position whose buffer the result lives in: its own, unless it is a view."""
    nbytes: int
    """Bytes of that buffer, if it is its own; a view of a number holds just the number."""
    flops: int
    workspace: int


class At(int):
    """A position in a kernel: the arguments first, then the calls."""


@dataclass(slots=True)
class Kernel:
    """A function as a list of primitives, for arguments of given shapes, dtypes and strides."""

    signature: tuple[Any, ...]
    """The arguments: AbstractArrays, tuples of them, or constants."""
    arguments: tuple[Any, ...]
    """The arrays among them."""
    calls: tuple[Call, ...]
    result: int
    array: Any
    flops: int = 0
    workspace: int = 0
    """Bytes held while it runs, beyond arguments and result."""
    root: int = 0
    """The argument whose buffer the result shares, or a position past the arguments."""
    nbytes: int = 0
    """Bytes of the buffer that the result lives in."""
    overwrites: tuple[int | None, ...] = ()
    """For each call, the position of the dying temporary that its result is written over."""
    rules: dict[Any, Kernel] = field(default_factory=dict)
    """Of a node's forward: the kernels of its rules (see `derived.rule_kernel`)."""

    @property
    def is_fresh(self) -> bool:
        return self.root >= len(self.arguments)


class _KernelRecorder:
    """Stands in for a trace while a kernel is made: primitives are listed, the rest is run."""

    def __init__(self, arguments: list[Any]) -> None:
        self.positions: dict[TapeNode, int] = {}
        self.calls: list[Call] = []
        self.roots: list[int] = []
        self.count = len(arguments)

    def argument(self, position: int, array: Any) -> Value:
        value = constant(array)
        self.positions[value._node] = position
        return value

    def record(self, op: Op, arrays: list[Any], inputs: list[Any], params: Any, mask: int) -> Value:
        if op.infer is None:
            operands = [
                Value(a, s) if type(s) is TapeNode else s
                for a, s in zip(arrays, inputs, strict=True)
            ]
            return op.forward(*operands, **(params or {}))  # type: ignore[no-any-return]
        made, shared = infer(op, arrays, params)
        sources = tuple(
            At(self.positions[s]) if type(s) is TapeNode and s in self.positions
            else a if type(s) is TapeNode else s
            for s, a in zip(inputs, arrays, strict=True)
        )  # fmt: skip
        position = self.count + len(self.calls)
        root = position
        if shared and isinstance(sources[0], At):
            first = sources[0]
            root = first if first < self.count else self.calls[first - self.count].root
        flops, workspace = cost(op, made, arrays, params)
        nbytes = made.itemsize if op.view and not arrays[0].shape else made.nbytes
        self.calls.append(Call(op, sources, params, made, root, nbytes, flops, workspace))
        value = constant(made)
        self.positions[value._node] = position
        return value


def infer(op: Op, arrays: list[Any], params: dict[str, Any] | None) -> tuple[Any, bool]:
    """A primitive's result on abstract operands, and whether it is a view of the first."""
    assert op.infer is not None
    made = op.infer(*arrays, **(params or {}))
    if not isinstance(made, Shared):
        return made, False
    # A number has no memory to share: to or from one, the result is a buffer of its own.
    return made.array, bool(made.array.shape and arrays[0].shape)


def cost(op: Op, made: Any, arrays: list[Any], params: Any) -> tuple[int, int]:
    """FLOPs and workspace bytes of a primitive."""
    flops = op.flops(made, *arrays, **(params or {})) if op.flops else 0
    workspace = op.workspace(made, *arrays, **(params or {})) if op.workspace else 0
    return int(flops), int(workspace)


def trace_kernel(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Kernel:
    """List what ``function`` does with AbstractArrays, tuples of them, and constants."""
    flat = [a for a in _flatten(arguments) if is_array(a)]
    recorder = _KernelRecorder(flat)
    places = iter(range(len(flat)))

    def wrap(argument: Any) -> Any:
        if is_array(argument):
            return recorder.argument(next(places), argument)
        return tuple(map(wrap, argument)) if type(argument) is tuple else argument

    token = CURRENT.set(Context(recorder=recorder))
    try:
        result = function(*map(wrap, arguments))
    finally:
        CURRENT.reset(token)
    if isinstance(result, tuple) and all(isinstance(part, Value) for part in result):
        raise UnsupportedError(
            "a composite op returns one array; declare one with several results with infer="
        )
    if not isinstance(result, Value) or result._node not in recorder.positions:
        # The result doesn't depend on the arrays: a constant, copied to be the caller's own.
        data = np.asarray(result._data if isinstance(result, Value) else result)
        result = recorder.record(_constant_op(data), [], [], None, 0)
    kernel = Kernel(
        tuple(arguments),
        tuple(flat),
        tuple(recorder.calls),
        recorder.positions[result._node],
        result._data,
    )
    _account(kernel)
    return kernel


def _constant_op(data: Any) -> Op:
    return Op(lambda: data.copy()[()], name="constant", infer=lambda: abstract(data))


def _flatten(arguments: tuple[Any, ...]) -> list[Any]:
    flat: list[Any] = []
    for argument in arguments:
        if type(argument) is tuple:
            flat.extend(_flatten(argument))
        else:
            flat.append(argument)
    return flat


def _account(kernel: Kernel) -> None:
    """Fill in FLOPs, workspace and which temporaries are overwritten, from the calls' liveness."""
    count = len(kernel.arguments)
    calls = kernel.calls

    def root_of(position: int) -> int:
        return position if position < count else calls[position - count].root

    last_use: dict[int, int] = {}
    views: dict[int, int] = {}
    for j, call in enumerate(calls):
        for source in call.sources:
            if isinstance(source, At):
                last_use[root_of(source)] = j
        if call.root != count + j:
            views[call.root] = views.get(call.root, 0) + 1
    result_root = root_of(kernel.result)
    last_use[result_root] = len(calls)
    live = 0
    high = 0
    sizes: dict[int, int] = {}
    overwrites: list[int | None] = []
    for j, call in enumerate(calls):
        position = count + j
        over = None
        if call.root == position:
            over = _overwritten(call, j, count, calls, last_use, views)
            if over is None:
                sizes[position] = call.nbytes
                live += call.nbytes
            else:
                sizes[position] = sizes.pop(over)
        overwrites.append(over)
        high = max(high, live + call.workspace)
        for root in {root_of(s) for s in call.sources if isinstance(s, At)} | {call.root}:
            if root in sizes and last_use.get(root, j) <= j:
                live -= sizes.pop(root)
    kernel.root = result_root
    kernel.nbytes = sizes[result_root] if result_root >= count else 0
    kernel.flops = sum(call.flops for call in calls)
    kernel.workspace = max(high - kernel.nbytes, 0)
    kernel.overwrites = tuple(overwrites)


def _overwritten(
    call: Call,
    j: int,
    count: int,
    calls: tuple[Call, ...],
    last_use: dict[int, int],
    views: dict[int, int],
) -> int | None:
    """The dying temporary of the same layout that an elementwise call may write over.

    Not of a single complex number: NumPy multiplies it in another loop then, with other bits.
    """
    if call.op.ufunc is None or not call.array.shape:
        return None
    if call.array.dtype.kind == "c" and call.array.size == 1:
        return None
    for source in call.sources:
        if (
            isinstance(source, At)
            and source >= count
            and calls[source - count].root == source
            and calls[source - count].array == call.array
            and last_use[source] == j
            and source not in views
        ):
            return source
    return None


def is_array(argument: Any) -> bool:
    return isinstance(argument, (AbstractArray, AbstractParts))
