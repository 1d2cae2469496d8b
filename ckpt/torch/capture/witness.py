"""What torch's own allocator handed out: the memory events of its profiler."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def memory_events(run: Callable[[], Any]) -> tuple[Any, list[int]]:
    """What ``run()`` returns, and the bytes of each allocation (of each release, below 0) by CPU's
    allocator, in order."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it says on stderr whenever it starts and ends
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        result = run()
    kineto: Any = seen.profiler
    events = [
        (event.start_ns(), event.nbytes())
        for event in kineto.kineto_results.events()
        if event.name() == "[memory]"
    ]
    return result, [nbytes for _, nbytes in sorted(events, key=lambda event: event[0])]


def cuda_among(tensors: Iterable[Any]) -> torch.device | None:
    """The GPU that any of them is on."""
    return next((t.device for t in tensors if t.device.type == "cuda"), None)


def peak_of(run: Callable[[], Any], gpu: torch.device | None = None) -> tuple[Any, int]:
    """What ``run()`` returns, and the most bytes allocated meanwhile beyond those before.

    On CPU, as torch's profiler sees it, kernel workspace included; on a GPU, the bytes requested of
    its caching allocator (what libraries keep for good, cuBLAS's workspace for one, counts in the
    first run there and in no later one).
    """
    if gpu is not None:
        gc.collect()
        torch.cuda.synchronize(gpu)
        torch.cuda.reset_peak_memory_stats(gpu)
        before = torch.cuda.memory_stats(gpu)["requested_bytes.all.current"]
        result = run()
        torch.cuda.synchronize(gpu)
        return result, torch.cuda.memory_stats(gpu)["requested_bytes.all.peak"] - before
    result, events = memory_events(run)
    live = high = 0
    for nbytes in events:
        live += nbytes
        high = max(high, live)
    return result, high


def differentiate(losses: list[torch.Tensor]) -> None:
    """Backward of the sum of all their elements."""
    seeds = [None if loss.numel() == 1 else torch.ones_like(loss) for loss in losses]
    torch.autograd.backward(losses, seeds)
