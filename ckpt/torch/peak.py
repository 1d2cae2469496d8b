"""A step's peak, seen by torch's allocator and by the kernel."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_flatten

from ckpt.errors import UsageError
from ckpt.torch.capture.modules import behind, modules_among
from ckpt.torch.capture.witness import cuda_among, differentiate, peak_of
from ckpt.units import format_bytes


@dataclass(frozen=True)
class PeakMeasurement:
    """Bytes."""

    allocated: int
    """The most that torch's allocator had handed out beyond what was live before."""
    resident: int
    """By how much the process's own peak (RSS) rose: 0 where it had been higher before."""

    def __str__(self) -> str:
        return (
            f"peak {format_bytes(self.allocated)} allocated ({self.allocated} bytes, torch's own "
            f"memory events); the process's RSS rose by {format_bytes(self.resident)}\n"
            "RSS hides what fits into pages that the process had before, and shows pages that the "
            "C library keeps after a free; MALLOC_MMAP_THRESHOLD_=262144 makes it follow better"
        )


def measure_peak(
    step: Callable[..., Any], *args: Any, kwargs: dict[str, Any] | None = None
) -> PeakMeasurement:
    """Run ``step`` - a loss function or a planned step - and its backward, and see the peak.

    Gradients that it makes are dropped: every ``.grad`` is put back as it was.
    """
    tensors = [
        *(t for t in tree_flatten((args, kwargs or {}))[0] if isinstance(t, torch.Tensor)),
        *(p for module in modules_among(behind(step)).values() for p in module.parameters()),
    ]
    leaves = [t for t in tensors if t.is_leaf and t.requires_grad]
    gradients = [t.grad for t in leaves]

    def run() -> None:
        outputs = tree_flatten(step(*args, **(kwargs or {})))[0]
        losses = [o for o in outputs if isinstance(o, torch.Tensor) and o.requires_grad]
        losses = [o for o in losses if o.numel() == 1] or losses
        if not losses:
            raise UsageError("nothing that the step returns needs a gradient")
        differentiate(losses)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, allocated = peak_of(run, cuda_among(tensors))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for leaf, gradient in zip(leaves, gradients, strict=True):
        leaf.grad = gradient
    return PeakMeasurement(allocated, (after - before) * 1024)
