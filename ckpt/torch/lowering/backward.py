"""The backward's calls as steps: who takes over whose buffer, where gradients come to rest."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ckpt.errors import UnsupportedError
from ckpt.torch.capture.kernels import UNREAD, Ref, is_dense
from ckpt.torch.capture.record import AtenCall, Captured, Version

aten = torch.ops.aten

DELIVERIES = 64
"""Gradients that are added to ones that exist are handed over in at most about so many parts: a new
one lives until then."""

FEW, LEAST = 8, 1 << 16
"""Those that stay are handed over in fewer, of so many bytes at least: a part costs time."""

_IN_PLACE = {
    aten.add.Tensor: aten.add_.Tensor,
    aten.sub.Tensor: aten.sub_.Tensor,
    aten.mul.Tensor: aten.mul_.Tensor,
    aten.mul.Scalar: aten.mul_.Scalar,
    aten.div.Tensor: aten.div_.Tensor,
    aten.div.Scalar: aten.div_.Scalar,
    aten.neg.default: aten.neg_.default,
    aten.masked_fill.Scalar: aten.masked_fill_.Scalar,
}
_COMMUTE = (aten.add.Tensor, aten.mul.Tensor)
_INTO = {
    getattr(aten, name).default: aten_out.grad_input
    for name in (
        "threshold_backward", "tanh_backward", "sigmoid_backward", "gelu_backward",
        "silu_backward", "leaky_relu_backward", "elu_backward", "hardtanh_backward",
        "softplus_backward",
    )
    if hasattr(aten_out := getattr(aten, name), "grad_input")
}  # fmt: skip
"""Functions of a cotangent, element by element, with the overload that writes where it is told."""


def settled(source: torch.Tensor, size: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
    """A gradient in a buffer of its own, laid out as its parameter is."""
    made = torch.empty_strided(size, stride, dtype=source.dtype, device=source.device)
    return made.copy_(source)


def stand_in(dtype: torch.dtype, size: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
    """A tensor on CPU that takes addresses and, unless it is written to, no memory."""
    count = 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    zeros = torch.from_numpy(np.zeros(max(count, 0) * dtype.itemsize, np.uint8))
    return zeros.view(dtype).as_strided(size, stride)


def parted(call: AtenCall, dying: Container[int]) -> list[AtenCall]:
    """A convolution's backward on CPU as two calls, as its kernels are two: the weight's gradient,
    and, once the input is gone, the input's, which asks for the input's shape alone.

    As one where the input isn't among what dies with it, or is no larger than the weight, whose
    gradient would lie there meanwhile.
    """
    if call.function is not aten.convolution_backward.default:
        return [call]
    gradient, operand, weight, *rest, (to_input, to_weight, to_bias) = call.args
    if not to_input or operand.version == gradient.version or operand.version == weight.version:
        return [call]
    outs = call.outs
    shape = replace(operand, version=UNREAD, offset=0, conj=False, neg=False)
    last = replace(
        call, args=(gradient, shape, weight, *rest, [True, False, False]),
        reads=(gradient.version, weight.version), outs=(outs[0], None, None),
        makes=tuple(r.version for r in outs[:1] if r is not None),
    )  # fmt: skip
    if not (to_weight or to_bias):
        return [last]
    if (
        operand.version not in dying
        or torch.Size(operand.size).numel() <= torch.Size(weight.size).numel()
    ):
        return [call]
    first = replace(
        call, args=(gradient, operand, weight, *rest, [False, to_weight, to_bias]),
        outs=(None, *outs[1:]), makes=tuple(r.version for r in outs[1:] if r is not None),
    )  # fmt: skip
    return [first, last]


def calls_of(captured: Captured) -> list[AtenCall]:
    """Those of the backward, as they are run."""
    calls = captured.calls[captured.forward :]
    if any(version.device.type != "cpu" for version in captured.versions):
        return calls
    last = {version: k for k, call in enumerate(calls) for version in call.reads}
    dying: list[set[int]] = [set() for _ in calls]
    for version, k in last.items():
        dying[k].add(version)
    return [part for call, some in zip(calls, dying, strict=True) for part in parted(call, some)]


@dataclass(slots=True)
class StepCode:
    """One call of the backward, and what dies with it."""

    call: AtenCall
    dies: list[int] = field(default_factory=list)
    """Buffers."""
    delivers: list[int] = field(default_factory=list)
    """Which gradients are handed over behind it; numbers of the captured's targets."""


class Backwards:
    """The steps in running order; buffers by the number of the storage that was first in each."""

    def __init__(self, captured: Captured, accumulate: bool = False) -> None:
        self.captured = captured
        self.accumulate = accumulate
        self.versions = list(captured.versions)
        self.calls = calls_of(captured)
        self.gradients = list(captured.gradients)
        self._settle()
        self.home: dict[int, int] = {}
        """Storage -> the buffer in which it lies, if it isn't its own."""
        self.resting = {self.versions[r.version].storage for r in self.gradients}
        self._take_over()
        self.resting = {self.buffer(r.version) for r in self.gradients}
        self.steps = [StepCode(call) for call in self.calls]
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self.nbytes: dict[int, int] = {}
        self._lifetimes()
        self._deliver()

    def buffer(self, version: int) -> int:
        storage = self.versions[version].storage
        while storage in self.home:
            storage = self.home[storage]
        return storage

    def is_own(self, version: int) -> bool:
        """Is it made by the backward?"""
        found = self.versions[version]
        return found.made_by >= self.captured.forward

    # -- gradients ---------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Give each gradient a buffer of its own, as the engine would: there it is taken, not
        copied."""
        taken: set[int] = set()
        added: list[tuple[int, AtenCall]] = []
        made_at = {
            version: k
            for k, call in enumerate(self.calls)
            for version in (*call.makes, *(after for _, after in call.writes))
        }
        for k in reversed(range(len(self.gradients))):  # the last one takes what they share
            ref, leaf = self.gradients[k], self.captured.targets[k]
            storage = self.versions[ref.version].storage
            stride = _contract(leaf.tensor, ref)
            fits = self.is_own(ref.version) and storage not in taken and not (ref.conj or ref.neg)
            if leaf.tensor.is_leaf:
                fits &= stride == ref.stride
            if fits:
                taken.add(storage)
                continue
            number = 1 + max(v.storage for v in self.versions)
            count = torch.Size(ref.size).numel()
            made = len(self.versions)
            device = self.versions[ref.version].device
            at = FOREVER_LATER
            self.versions.append(Version(number, count * ref.dtype.itemsize, device, at))
            out = Ref(made, ref.dtype, ref.size, stride, 0)
            ready = made_at.get(ref.version, 0)
            call = AtenCall(
                settled, (ref, ref.size, stride), {}, (ref.version,), (made,), (), (out,)
            )
            added.append((ready, call))
            self.gradients[k] = out
        for ready, call in sorted(added, key=lambda pair: -pair[0]):
            self.calls.insert(min(ready + 1, len(self.calls)), call)

    # -- buffers -----------------------------------------------------------------------------------

    def _take_over(self) -> None:
        """An elementwise call writes over an operand that dies with it: same bits, less memory."""
        last: dict[int, int] = {}
        base: dict[int, Ref] = {}
        for k, call in enumerate(self.calls):
            for version in (*call.reads, *call.makes):
                last[self.versions[version].storage] = k
            for out in call.outs:
                if out is not None and out.version in call.makes:
                    base.setdefault(self.versions[out.version].storage, out)
        for k, call in enumerate(self.calls):
            place = self._operand(k, call, last, base)
            if place is None:
                continue
            operand, out = call.args[place], call.outs[0]
            assert out is not None
            old, new = self.versions[operand.version].storage, self.versions[out.version].storage
            others = call.args[:place] + call.args[place + 1 :]
            if call.function in _INTO:
                made = replace(call, function=_INTO[call.function],
                               kwargs={**call.kwargs, "grad_input": operand})  # fmt: skip
            else:
                made = replace(
                    call, function=_IN_PLACE[call.function], args=(operand, *others), kwargs={}
                )
            made.makes, made.writes = (), ((operand.version, out.version),)
            self.calls[k] = made
            self.home[new] = self.home.get(old, old)
            base[new] = base[old]

    def _operand(
        self, k: int, call: AtenCall, last: dict[int, int], base: dict[int, Ref]
    ) -> int | None:
        """Which operand dies with call k and can hold its result."""
        into = call.function in _INTO
        if len(call.makes) != 1 or not (into or (call.function in _IN_PLACE and not call.kwargs)):
            return None
        out = call.outs[0]
        if out is None or out.version not in call.makes:
            return None
        for place in range(2 if call.function in _COMMUTE else 1):
            operand = call.args[place]
            if not isinstance(operand, Ref) or not self.is_own(operand.version):
                continue
            storage = self.versions[operand.version].storage
            seen = base.get(storage)
            same = self.versions[operand.version].nbytes == self.versions[out.version].nbytes
            alone = sum(
                isinstance(a, Ref) and self.versions[a.version].storage == storage
                for a in call.args
            )
            if (
                last.get(storage) == k and storage not in self.resting and same and alone == 1
                and seen is not None and seen.geometry == operand.geometry == out.geometry
                and not (operand.conj or operand.neg)
            ):  # fmt: skip
                return place
        return None

    def _lifetimes(self) -> None:
        for k, step in enumerate(self.steps):
            call = step.call
            for version in (*call.reads, *call.makes, *(after for _, after in call.writes)):
                if version in call.makes or self.is_own(version):
                    buffer = self.buffer(version)
                    self.first.setdefault(buffer, k)
                    self.last[buffer] = k
                    self.nbytes[buffer] = self.versions[version].nbytes
            for before, _ in call.writes:
                if not self.is_own(before):
                    raise UnsupportedError(
                        f"the backward of {call.name} changes a tensor of the forward in place"
                    )
        for buffer, k in self.last.items():
            if buffer not in self.resting:
                self.steps[k].dies.append(buffer)

    def _deliver(self) -> None:
        """Hand gradients over as they come to rest, once there are enough of them."""
        ready: dict[int, list[int]] = {}
        read = {
            id(leaf.tensor): k
            for k, call in enumerate(self.calls)
            for version in call.reads
            if (leaf := self.versions[version].leaf) is not None
        }
        for number, ref in enumerate(self.gradients):
            # Who has the gradient may change the parameter: an optimizer in a hook.
            last_read = read.get(id(self.captured.targets[number].tensor), 0)
            at = max(self.last[self.buffer(ref.version)], last_read)
            ready.setdefault(at, []).append(number)
        total = sum(self.nbytes[b] for b in self.resting)
        pending: list[int] = []
        waiting, end = 0, max(ready, default=0)
        for k in sorted(ready):
            pending += ready[k]
            waiting += sum(self.nbytes[self.buffer(self.gradients[n].version)] for n in ready[k])
            enough = waiting * FEW >= total and waiting >= LEAST
            if self.accumulate:
                enough = waiting * DELIVERIES >= total
            if enough or k == end:
                self.steps[k].delivers, pending, waiting = pending, [], 0


FOREVER_LATER = 1 << 50
"""Who makes a version that was added after the capture: some step of the backward."""


def _contract(leaf: torch.Tensor, ref: Ref) -> tuple[int, ...]:
    """The strides that the engine gives a gradient: its parameter's, if that is dense."""
    sizes = ref.size
    dense = is_dense(leaf.shape, leaf.stride())
    want = tuple(leaf.stride()) if dense else _contiguous(sizes)
    if all(s == w for s, w, n in zip(ref.stride, want, sizes, strict=True) if n != 1):
        return ref.stride
    return want


def _contiguous(sizes: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(sizes):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))
