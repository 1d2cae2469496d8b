"""What a forward or a rule does, step by step, and so what it costs.

Forwards and rules are NumPy functions. Run once on abstract Values, such a function leaves the list
of primitives that it calls: a Kernel. FLOPs, workspace and the kind of result are read off that
list; nothing of it is declared twice. `execute` performs it, and a temporary that dies is
overwritten by the next result of its shape: NumPy does the same in expressions, but only above some
size and only on some platforms, and a promise can't rest on that. So is an argument, if the caller
says that it dies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from ckpt.errors import UnsupportedError
from ckpt.tape.core.abstract import AbstractArray, AbstractParts, Shared, abstract
from ckpt.tape.core.context import CURRENT, Context
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.op import Op
from ckpt.tape.core.value import Value, constant
from ckpt.tape.traced.joined import At, Call, joined


@dataclass(frozen=True, slots=True)
class Account:
    """What a kernel takes while it runs, and what it writes over."""

    overwrites: tuple[int | None, ...]
    """For each call, the position that its result is written over: one that dies with it."""
    workspace: int
    """Bytes held beyond arguments and result."""
    scratch: int
    """Bytes beyond those, where libraries allocate by themselves."""
    lies_in: int | None
    """The argument in whose buffer the result is written."""


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
    moved: int = 0
    """Bytes that its primitives read and write."""
    workspace: int = 0
    """Bytes held while it runs, beyond arguments and result."""
    scratch: int = 0
    """Bytes beyond ``workspace`` that are held with what libraries allocate by themselves."""
    root: int = 0
    """The argument whose buffer the result shares, or a position past the arguments."""
    nbytes: int = 0
    """Bytes of the buffer that the result lies in."""
    overwrites: bool = False
    """May some call write over an operand?"""
    rules: dict[Any, Kernel] = field(default_factory=dict)
    """Of a node's forward: the kernels of its rules (see `derived.rule_kernel`)."""
    cotangent: int | None = None
    """Of a rule's: which of the arguments is the incoming cotangent."""
    accounts: dict[frozenset[int], Account] = field(default_factory=dict)

    @property
    def is_fresh(self) -> bool:
        return self.root >= len(self.arguments)

    def account(self, dying: frozenset[int] = frozenset()) -> Account:
        """What it takes if these arguments die with it, and so may be written over."""
        found = self.accounts.get(dying)
        if found is None:
            found = self.accounts[dying] = _account(self, dying)
        return found

    def flat(self, given: Any) -> list[Any]:
        """Of what stands for the signature's arguments, what stands for arrays."""
        found: list[Any] = []
        for pattern, value in zip(self.signature, given, strict=True):
            if is_array(pattern):
                found.append(value)
            elif type(pattern) is tuple and any(map(is_array, pattern)):
                found.extend(v for p, v in zip(pattern, value, strict=True) if is_array(p))
        return found


class _KernelRecorder:
    """Stands in for a trace while a kernel is made: primitives are listed, the rest is run."""

    kernel_of = None

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
        flops, workspace, scratch = cost(op, made, arrays, params)
        nbytes = made.itemsize if op.view and not arrays[0].shape else made.nbytes
        self.calls.append(
            Call(
                op, sources, tuple(arrays), params, made, root, nbytes, flops, workspace, scratch
            )
        )  # fmt: skip
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


def cost(op: Op, made: Any, arrays: list[Any], params: Any) -> tuple[int, int, int]:
    """FLOPs, and bytes of workspace and of scratch, of a primitive."""
    flops = op.flops(made, *arrays, **(params or {})) if op.flops else 0
    workspace = op.workspace(made, *arrays, **(params or {})) if op.workspace else 0
    scratch = op.scratch(made, *arrays, **(params or {})) if op.scratch else 0
    return int(flops), int(workspace), int(scratch)


def trace_kernel(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Kernel:
    """List what ``function`` does with AbstractArrays, tuples of them, and constants."""
    flat = [a for a in _flatten(arguments) if is_array(a)]
    recorder = _KernelRecorder(flat)
    places = iter(range(len(flat)))

    def wrap(argument: Any) -> Any:
        if is_array(argument):
            return recorder.argument(next(places), argument)
        return tuple(map(wrap, argument)) if type(argument) is tuple else argument

    before = CURRENT.get()
    try:
        CURRENT.set(Context(recorder=recorder))
        result = function(*map(wrap, arguments))
    finally:
        CURRENT.set(before)
    if isinstance(result, tuple) and all(isinstance(part, Value) for part in result):
        raise UnsupportedError(
            "a composite op returns one array; declare one with several results with infer="
        )
    if not isinstance(result, Value) or result._node not in recorder.positions:
        # The result doesn't depend on the arrays: a constant, copied to be the caller's own.
        data = np.asarray(result._array if isinstance(result, Value) else result)
        result = recorder.record(_constant_op(data), [], [], None, 0)
    calls, place = joined(recorder.calls, len(flat), recorder.positions[result._node])
    kernel = Kernel(
        tuple(arguments),
        tuple(flat),
        tuple(calls),
        place,
        result._array,
        flops=sum(call.flops for call in calls),
        overwrites=any(call.op.over is not None for call in calls),
    )
    for j, call in enumerate(kernel.calls):
        if call.root == len(flat) + j:
            kernel.moved += moved(call.array, *call.given)
    kernel.root = _root(kernel, kernel.result)
    if kernel.is_fresh:
        kernel.nbytes = kernel.calls[kernel.root - len(flat)].nbytes
    account = kernel.account()
    kernel.workspace, kernel.scratch = account.workspace, account.scratch
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


def _root(kernel: Kernel, position: int) -> int:
    """The position in whose buffer this one lies."""
    count = len(kernel.arguments)
    return position if position < count else kernel.calls[position - count].root


def _account(kernel: Kernel, dying: frozenset[int]) -> Account:
    """Go through the calls: what is live, and what each may write over."""
    count, calls = len(kernel.arguments), kernel.calls
    reads = [{_root(kernel, s) for s in call.sources if isinstance(s, At)} for call in calls]
    last_use = {root: j for j, roots in enumerate(reads) for root in roots}
    last_use[kernel.root] = len(calls)
    viewed = {call.root for j, call in enumerate(calls) if call.root != count + j}
    own = dict.fromkeys(dying, 0)
    """Position -> bytes of the buffer that was made for it, or 0 if it lies in an argument's."""
    lies_in: dict[int, int] = {k: k for k in dying}
    overwrites: list[int | None] = []
    live = high = whole = 0

    def first_given(pair: tuple[int, Any]) -> int:
        """Rather over what was given, the incoming cotangent first, than over a temporary."""
        _, source = pair
        return lies_in.get(source, count) if isinstance(source, At) else count

    for j, call in enumerate(calls):
        position, price, over = count + j, 0, None
        if call.root == position:
            for k, source in sorted(enumerate(call.sources), key=first_given):
                if not isinstance(source, At) or source not in own or source in viewed:
                    continue
                cost = _over(kernel, call, k) if last_use[source] == j else None
                if cost is not None:
                    price, over = cost, int(source)
                    break
            if over is None:
                own[position] = call.nbytes
                live += call.nbytes
            else:
                own[position] = own.pop(over)
                if over in lies_in:
                    lies_in[position] = lies_in[over]
        overwrites.append(over)
        high = max(high, live + call.workspace + price)
        whole = max(whole, live + call.workspace + price + call.scratch)
        for root in {*reads[j], call.root}:
            if root in own and last_use.get(root, j) <= j and root >= count:
                live -= own.pop(root)
    kept = own.get(kernel.root, 0) if kernel.root >= count else 0
    workspace = max(high - kept, 0)
    scratch = max(whole - kept - workspace, 0)
    return Account(tuple(overwrites), workspace, scratch, lies_in.get(kernel.root))


def _over(kernel: Kernel, call: Call, k: int) -> int | None:
    """What it costs to write the call's result over its operand k, in bytes; None: it can't be.

    Not over a single complex number: NumPy multiplies it in another loop then, with other bits.
    """
    made = call.array
    if call.op.over is None or not made.shape or (made.dtype.kind == "c" and made.size == 1):
        return None
    if call.given[k] != made:
        return None
    return call.op.over(k, made, *call.given, **(call.params or {}))


def moved(*arrays: Any) -> int:
    """Bytes of these arrays, each element that is broadcast once."""
    return sum(
        prod(n for n, s in zip(a.shape, a.strides, strict=True) if s) * a.itemsize
        if isinstance(a, AbstractArray) else sum(map(moved, a))
        for a in arrays if is_array(a)
    )  # fmt: skip


def is_array(argument: Any) -> bool:
    return isinstance(argument, (AbstractArray, AbstractParts))
