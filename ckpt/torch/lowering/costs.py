"""What a call costs: FLOPs, and bytes moved."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import flop_registry

from ckpt.torch.capture.kernels import UNREAD, Ref
from ckpt.torch.capture.record import AtenCall, Version

_MOVES = {
    "clone", "copy_", "_to_copy", "cat", "stack", "empty", "filled", "zero_", "fill_", "embedding",
    "index_select", "gather", "slice_backward", "select_backward", "constant_pad_nd", "settled",
    "arange", "_unsafe_view", "split_with_sizes_copy", "repeat", "roll", "flip",
}  # fmt: skip
"""Calls that compute nothing."""


def flops_of(call: AtenCall) -> int:
    """A multiply-add is 2, an elementwise function 1 an element, moving data 0."""
    packet = getattr(call.function, "_overloadpacket", None)
    if packet in flop_registry:
        outs = [_meta(o) for o in call.outs]
        out = outs[0] if len(outs) == 1 else tuple(outs)
        args, kwargs = tree_map(_meta, call.args), tree_map(_meta, call.kwargs)
        try:
            return int(flop_registry[packet](*args, **kwargs, out_val=out))
        except (TypeError, ValueError, AssertionError, RuntimeError, IndexError):
            pass  # a formula for other arguments than these
    if call.name in _MOVES:
        return 0
    sizes = [torch.Size(o.size).numel() for o in (*call.outs, *_refs(call.args)) if o is not None]
    return max(sizes, default=0)


def moved_by(call: AtenCall, versions: list[Version]) -> int:
    """Bytes that it reads and writes."""
    read = sum(_nbytes(r, versions) for r in _refs(call.args))
    written = sum(versions[v].nbytes for v in call.makes)
    return read + written + sum(versions[after].nbytes for _, after in call.writes)


def _meta(value: Any) -> Any:
    if not isinstance(value, Ref):
        return value
    return torch.empty_strided(value.size, value.stride, dtype=value.dtype, device="meta")


def _refs(args: Any) -> list[Ref]:
    if isinstance(args, Ref):
        return [args]
    if isinstance(args, (list, tuple)):
        return [ref for value in args for ref in _refs(value)]
    return []


def _nbytes(ref: Ref, versions: list[Version]) -> int:
    """Bytes that are seen: an expanded dimension is read once."""
    if ref.version == UNREAD:
        return 0
    count = 1
    for size, stride in zip(ref.size, ref.stride, strict=True):
        count *= size if stride else min(size, 1)
    return min(count * ref.dtype.itemsize, versions[ref.version].nbytes)
