"""What kernels allocate beside their results: run once on real tensors, for each op and shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch.utils._pytree import tree_map

from ckpt.errors import UnsupportedError
from ckpt.torch.capture.kernels import UNREAD, Layout, Ref, Seen, arguments_key, is_dense
from ckpt.torch.capture.record import AtenCall, Captured, Version
from ckpt.torch.capture.witness import cuda_among, memory_events, peak_of
from ckpt.torch.lowering.backward import stand_in

_CLEAN = {
    "mm", "addmm", "bmm", "baddbmm", "t", "clone", "copy_", "_to_copy", "cat", "empty", "filled",
    "settled", "embedding", "sum", "mean", "select_backward", "slice_backward", "_softmax",
    "_softmax_backward_data", "_log_softmax", "_log_softmax_backward_data", "nll_loss_forward",
    "nll_loss_backward", "arange", "fill_", "zero_", "scalar_tensor",
}  # fmt: skip
"""In float32 and float64 these allocate nothing but their results, where what they read is dense:
matrix products copy a matrix that is one row many times."""

_MARK, _AGAIN = 12_347, 12_343
"""An allocation of so many bytes stands between two probes, or behind one that is tried again."""

_INTEGERS = (0, 1)
"""What is tried for integers: most are an index, some a pivot."""


class Probed:
    """What runs of kernels showed: bytes of workspace, by call as `lower` asks for them, and in
    `seen` how they lay out results, where torch's own shapes say otherwise."""

    def __init__(self) -> None:
        self.versions: list[Version] = []
        self.gpu: torch.device | None = None
        self.nbytes: dict[Any, int] = {}
        self.seen: Seen = {}
        self.failures: list[UnsupportedError] = []
        """Of kernels that couldn't be run: maybe for shapes that weren't known better yet."""

    def probe(self, captured: Captured, calls: Iterable[AtenCall]) -> bool:
        """Run those that weren't yet, each once. Was any result laid out otherwise than torch's own
        shapes say? Then what was captured with them is wrong."""
        self.versions = captured.versions
        self.gpu = cuda_among(self.versions)
        found: dict[Any, AtenCall] = {}
        for call in calls:
            self._hold(call)
            if _may_allocate(call, self.gpu is None) and (key := _key(call)) not in self.nbytes:
                found.setdefault(key, call)
        if not found:
            return False
        self.failures.clear()
        before = sum(map(len, self.seen.values()))
        with torch.random.fork_rng([] if self.gpu is None else [self.gpu]), torch.no_grad(), (
            torch._C._DisableAutocast()
        ):  # fmt: skip
            probes = self._on_gpu(found) if self.gpu is not None else self._on_cpu(found)
            for key, (peak, kept) in zip(found, probes, strict=True):
                self.nbytes[key] = max(peak - kept, 0)
        otherwise = sum(map(len, self.seen.values())) > before
        if self.failures and not otherwise:
            raise self.failures[0]
        return otherwise

    def __call__(self, call: AtenCall) -> int:
        return self.nbytes.get(_key(call), 0) if _may_allocate(call, self.gpu is None) else 0

    def _on_cpu(self, found: dict[Any, AtenCall]) -> Iterable[tuple[int, int]]:
        """The peak of each call, and the bytes of what it returned."""
        kept: list[int] = []

        def probe() -> None:
            for call in found.values():
                kept.append(0)
                for integer in _INTEGERS:
                    held, run = self._prepared(call, integer)
                    torch.empty(_MARK, dtype=torch.uint8)
                    result = _tried(call, run)
                    torch.empty(_MARK, dtype=torch.uint8)
                    if not isinstance(result, UnsupportedError):
                        kept[-1] = self._look_at(call, held, result)
                        break
                    if integer != _INTEGERS[-1]:
                        torch.empty(_AGAIN, dtype=torch.uint8)
                else:
                    self.failures.append(result)
                del held, run, result

        return zip(_peaks(memory_events(probe)[1]), kept, strict=True)

    def _on_gpu(self, found: dict[Any, AtenCall]) -> Iterable[tuple[int, int]]:
        """The same, of the second run of each: the first one allocates what its library keeps."""
        for call in found.values():
            for integer in _INTEGERS:
                held, run = self._prepared(call, integer)
                first = _tried(call, run)
                if not isinstance(first, UnsupportedError):
                    result, peak = peak_of(run, self.gpu)
                    yield peak, self._look_at(call, held, result)
                    break
            else:
                self.failures.append(first)
                yield 0, 0

    # -- tensors like those of a call --------------------------------------------------------------

    def _prepared(
        self, call: AtenCall, integer: int
    ) -> tuple[dict[int, torch.Tensor], Callable[[], Any]]:
        """The call on tensors like those that it reads, and their storages by version."""
        held: dict[int, torch.Tensor] = {}
        real = partial(self._real, held, integer)
        args, kwargs = tree_map(real, call.args), tree_map(real, call.kwargs)
        return held, partial(call.function, *args, **kwargs)

    def _real(self, held: dict[int, torch.Tensor], integer: int, value: Any) -> Any:
        """A tensor like the one that is read; those of one version share their storage."""
        if not isinstance(value, Ref):
            return value
        if value.version == UNREAD:
            return stand_in(value.dtype, value.size, value.stride)
        version = self.versions[value.version]
        if value.version not in held:
            count = -(-version.nbytes // value.dtype.itemsize)
            made = torch.empty(count, dtype=value.dtype, device=version.device)
            held[value.version] = made.fill_(1 if value.dtype.is_floating_point else integer)
        base = held[value.version]
        if base.dtype != value.dtype:
            base = base.view(value.dtype)
        seen = base.as_strided(value.size, value.stride, value.offset)
        seen = torch._conj(seen) if value.conj else seen
        return torch._neg_view(seen) if value.neg else seen

    # -- results -----------------------------------------------------------------------------------

    def _look_at(self, call: AtenCall, held: dict[int, torch.Tensor], result: Any) -> int:
        """The bytes of the storages of what a kernel made. What torch's own shapes say otherwise is
        remembered; UnsupportedError where even size or storage differ."""
        results = result if isinstance(result, (tuple, list)) else (result,)
        given = {t.untyped_storage().data_ptr() for t in held.values()}
        storages: dict[int, int] = {}
        layouts: list[Layout | None] = []
        for out, made in zip(call.outs, results, strict=True):
            layouts.append(None)
            if out is None or out.version not in call.makes or not isinstance(made, torch.Tensor):
                continue
            if made._is_zerotensor():
                raise UnsupportedError(
                    f"{_where(call)}: {call.name} makes zeros without memory, as forward-mode "
                    "derivatives (torch.func.jvp) do: it can't be planned"
                )
            storage = made.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            if self.gpu is not None and not made.dtype.is_floating_point:
                continue  # attention's seeds are of other sizes there
            shared = storage.nbytes() and storage.data_ptr() in given
            if out.size != tuple(made.shape) or made.storage_offset() != out.offset or shared:
                raise _other(call, f"a result of shape {tuple(made.shape)}, maybe a view")
            found = Layout(made.dtype, out.size, made.stride(), storage.nbytes())
            if not found.same(self._said(out)):
                layouts[-1] = found
        if any(layouts):
            known = self.seen.setdefault(call.function, {})
            known[arguments_key((call.args, call.kwargs))] = tuple(layouts)
        return sum(storages.values())

    def _said(self, out: Ref) -> Layout:
        return Layout(out.dtype, out.size, out.stride, self.versions[out.version].nbytes)

    def _hold(self, call: AtenCall) -> None:
        """UnsupportedError where a kernel is known to lay out otherwise than was captured."""
        known = self.seen.get(call.function)
        layouts = known.get(arguments_key((call.args, call.kwargs))) if known else None
        for out, layout in zip(call.outs, layouts or (), strict=False):
            if out is not None and layout is not None and not layout.same(self._said(out)):
                raise _other(call, f"strides {layout.stride} in {layout.nbytes} bytes")


def _other(call: AtenCall, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"{_where(call)}: {call.name} gives {what}, and torch's own shapes say otherwise: it can't "
        "be planned"
    )


def _tried(call: AtenCall, run: Callable[[], Any]) -> Any:
    """The result, or the error of a kernel that doesn't take such tensors."""
    try:
        return run()
    except (RuntimeError, IndexError) as error:
        return UnsupportedError(
            f"{_where(call)}: {call.name} can't be run on made-up values, to see what it "
            f"allocates: {error}"
        )


def _where(call: AtenCall) -> str:
    return call.source or "the backward"


def _key(call: AtenCall) -> Any:
    return call.function, arguments_key((call.args, call.kwargs))


def _may_allocate(call: AtenCall, on_cpu: bool) -> bool:
    function = call.function
    if not hasattr(function, "tags"):
        return False
    if torch.Tag.pointwise in function.tags:  # casts come first, and conjugates that are marked
        refs = [a for a in call.args if isinstance(a, Ref)]
        dtypes = {o.dtype for o in call.outs if o is not None} - {torch.bool}
        dtypes |= {r.dtype for r in refs}
        complexes = any(dtype.is_complex for dtype in dtypes)
        return complexes or len(dtypes) > 1 or any(r.neg for r in refs)
    if call.kwargs.get("generator") is not None:
        return False
    wide = all(
        o is None or o.dtype in (torch.float32, torch.float64, torch.bool, torch.int64)
        for o in call.outs
    )
    dense = all(is_dense(a.size, a.stride) for a in call.args if isinstance(a, Ref))
    return not (on_cpu and wide and dense and call.name in _CLEAN)


def _peaks(events: list[int]) -> list[int]:
    """The most bytes between the marks of each probe."""
    found: list[int] = []
    inside, live, high = False, 0, 0
    for nbytes in events:
        if nbytes == _MARK:
            if inside:
                found.append(high)
            inside = not inside
            live = high = 0
        elif nbytes == _AGAIN:
            found.pop()
        elif nbytes in (-_MARK, -_AGAIN):
            continue
        elif inside:
            live += nbytes
            high = max(high, live)
    return found
