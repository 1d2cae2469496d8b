"""What kernels allocate beside their results: run once on real tensors, for each op and shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_map

from ckpt.errors import UnsupportedError
from ckpt.torch.capture.record import UNREAD, AtenCall, Ref, Version
from ckpt.torch.capture.witness import memory_events, peak_of
from ckpt.torch.lowering.backward import stand_in

_CLEAN = {
    "mm", "addmm", "bmm", "baddbmm", "t", "clone", "copy_", "_to_copy", "cat", "empty", "filled",
    "settled", "embedding", "sum", "mean", "select_backward", "slice_backward", "_softmax",
    "_softmax_backward_data", "_log_softmax", "_log_softmax_backward_data", "nll_loss_forward",
    "nll_loss_backward", "arange", "fill_", "zero_", "scalar_tensor",
}  # fmt: skip
"""In float32 and float64 these allocate nothing but their results."""

_SEEDS = 64
"""A GPU's attention returns seeds of its generator, of other sizes than torch's shapes say."""

_MARK = 12_347
"""An allocation of so many bytes stands between two probes."""


class Probed:
    """Bytes of workspace by call, as `lower` asks for them."""

    def __init__(self, versions: list[Version], gpu: torch.device | None = None) -> None:
        self.versions = versions
        self.gpu = gpu
        self.nbytes: dict[Any, int] = {}

    def probe(self, calls: Iterable[AtenCall]) -> None:
        """Run those that weren't yet, each once."""
        found: dict[Any, AtenCall] = {}
        for call in calls:
            if (
                _may_allocate(call, self.gpu is None)
                and (key := self._key(call)) not in self.nbytes
            ):
                found.setdefault(key, call)
        if found:
            self._run(found)

    def __call__(self, call: AtenCall) -> int:
        return self.nbytes.get(self._key(call), 0) if _may_allocate(call, self.gpu is None) else 0

    def _key(self, call: AtenCall) -> Any:
        return call.function, repr(tree_map(_shape, (call.args, sorted(call.kwargs.items()))))

    def _run(self, found: dict[Any, AtenCall]) -> None:
        with torch.random.fork_rng([] if self.gpu is None else [self.gpu]), torch.no_grad(), (
            torch._C._DisableAutocast()
        ):  # fmt: skip
            peaks, counts = self._on_gpu(found) if self.gpu is not None else self._on_cpu(found)
        for (key, call), peak, kept in zip(found.items(), peaks, counts, strict=True):
            expected = sum(self.versions[v].nbytes for v in call.makes)
            if abs(kept - expected) > (0 if self.gpu is None else _SEEDS):
                raise UnsupportedError(
                    f"{call.source or 'the backward'}: {call.name} makes {kept} bytes, and torch's "
                    f"own shapes say {expected}: it can't be planned"
                )
            self.nbytes[key] = max(peak - kept, 0)

    def _on_cpu(self, found: dict[Any, AtenCall]) -> tuple[list[int], list[int]]:
        """The peak of each call, and the bytes of what it returned."""
        counts: list[int] = []

        def probe() -> None:
            for call in found.values():
                held, run = self._prepared(call)
                torch.empty(_MARK, dtype=torch.uint8)
                result = run()
                torch.empty(_MARK, dtype=torch.uint8)
                _refuse_other_strides(call, result)
                counts.append(_kept(held, result))
                del held, run, result

        events = memory_events(probe)[1]
        return _peaks(events, len(found)), counts

    def _on_gpu(self, found: dict[Any, AtenCall]) -> tuple[list[int], list[int]]:
        """The same, of the second run of each: the first one allocates what its library keeps."""
        peaks, counts = [], []
        for call in found.values():
            held, run = self._prepared(call)
            run()
            result, peak = peak_of(run, self.gpu)
            _refuse_other_strides(call, result)
            peaks.append(peak)
            counts.append(_kept(held, result))
        return peaks, counts

    def _prepared(self, call: AtenCall) -> tuple[dict[int, torch.Tensor], Callable[[], Any]]:
        """The call on tensors like those that it reads, and their storages by version."""
        held: dict[int, torch.Tensor] = {}
        real = partial(self._real, held)
        args, kwargs = tree_map(real, call.args), tree_map(real, call.kwargs)
        return held, partial(call.function, *args, **kwargs)

    def _real(self, held: dict[int, torch.Tensor], value: Any) -> Any:
        """A tensor like the one that is read; those of one version share their storage."""
        if not isinstance(value, Ref):
            return value
        if value.version == UNREAD:
            return stand_in(value.dtype, value.size, value.stride)
        version = self.versions[value.version]
        if value.version not in held:
            count = -(-version.nbytes // value.dtype.itemsize)
            made = torch.empty(count, dtype=value.dtype, device=version.device)
            held[value.version] = made.fill_(1) if value.dtype.is_floating_point else made.zero_()
        base = held[value.version]
        if base.dtype != value.dtype:
            base = base.view(value.dtype)
        seen = base.as_strided(value.size, value.stride, value.offset)
        seen = torch._conj(seen) if value.conj else seen
        return torch._neg_view(seen) if value.neg else seen


def _refuse_other_strides(call: AtenCall, result: Any) -> None:
    """UnsupportedError where a kernel lays a result out otherwise than torch's own shapes say: who
    reads it would read other elements."""
    results = result if isinstance(result, (tuple, list)) else (result,)
    for out, made in zip(call.outs, results, strict=False):
        if out is None or not isinstance(made, torch.Tensor) or out.version not in call.makes:
            continue
        for size, said, found in zip(out.size, out.stride, made.stride(), strict=True):
            if size > 1 and said != found and made.numel():
                raise UnsupportedError(
                    f"{call.source or 'the backward'}: {call.name} gives strides "
                    f"{tuple(made.stride())}, and torch's own shapes say {out.stride}: it can't be "
                    "planned; make its input contiguous"
                )


def _kept(held: dict[int, torch.Tensor], result: Any) -> int:
    """Bytes of results in storages of their own."""
    results = result if isinstance(result, (tuple, list)) else (result,)
    storages = {
        r.untyped_storage().data_ptr(): r.untyped_storage().nbytes()
        for r in results if isinstance(r, torch.Tensor)
    }  # fmt: skip
    given = {t.untyped_storage().data_ptr() for t in held.values()}
    return sum(n for p, n in storages.items() if p not in given)


def _may_allocate(call: AtenCall, on_cpu: bool) -> bool:
    function = call.function
    if not hasattr(function, "tags") or torch.Tag.pointwise in function.tags:
        return False
    if call.kwargs.get("generator") is not None:
        return False
    wide = all(
        o is None or o.dtype in (torch.float32, torch.float64, torch.bool, torch.int64)
        for o in call.outs
    )
    return not (on_cpu and wide and call.name in _CLEAN)


def _shape(value: Any) -> Any:
    if isinstance(value, Ref):
        return ("ref", *map(str, value.geometry), value.conj, value.neg)
    return value


def _peaks(events: list[int], count: int) -> list[int]:
    """The most bytes between the marks of each probe."""
    found: list[int] = []
    inside, live, high = False, 0, 0
    for nbytes in events:
        if nbytes == _MARK:
            if inside:
                found.append(high)
            inside = not inside
            live = high = 0
        elif nbytes == -_MARK:
            continue
        elif inside:
            live += nbytes
            high = max(high, live)
    assert len(found) == count
    return found
