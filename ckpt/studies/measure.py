"""Run a schedule and an eager step for real, and see what they cost."""

from __future__ import annotations

import gc
import hashlib
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt.schedule import Schedule
from ckpt.tape.core import tree
from ckpt.tape.core.node import TapeNode
from ckpt.tape.core.value import Value
from ckpt.tape.eager.grad import gradients, value_and_grad
from ckpt.tape.execution.run import Execution, execute
from ckpt.tape.traced.trace import Program
from ckpt.timeline import Timeline


def measured(
    program: Program, schedule: Schedule, args: tuple[Any, ...], *, repeats: int = 1
) -> tuple[Execution, float]:
    """The run under tracemalloc, and the median seconds of ``repeats`` runs without it."""
    seconds = statistics.median(
        execute(program, schedule, args, observe=False).seconds for _ in range(repeats)
    )
    return execute(program, schedule, args, trace_memory=True), seconds


def eager_peak(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
) -> int:
    """Peak bytes of an eager step of ``function``, gradients aside.

    What the caller's own variables hold is real too, and is in this peak.
    """
    numbers = (argnums,) if isinstance(argnums, int) else argnums
    given = list(args)
    for k in numbers:
        given[k] = tree.rebuild(given[k], Value)
    wanted = [leaf for k in numbers for leaf in tree.leaves(given[k])]
    gc.collect()
    tracemalloc.start()
    try:
        meter = _EagerMeter()
        result = function(*given)
        meter.note(0)
        loss = result[0] if has_aux else result
        del result
        gradients(loss, wanted, observer=meter)
    finally:
        tracemalloc.stop()
    return meter.peak


def eager_seconds(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
) -> float:
    """Seconds of an eager step of ``function``."""
    step = value_and_grad(function, argnums, has_aux=has_aux)
    start = time.perf_counter()
    step(*args)
    return time.perf_counter() - start


class _EagerMeter:
    """Sees the peak of each Backward, less the gradients that rest by then."""

    def __init__(self) -> None:
        self.base = tracemalloc.get_traced_memory()[0]
        self.peak = 0
        self.gradients = 0
        self.waiting: list[TapeNode] = []

    def note(self, gradient_nbytes: int) -> None:
        self.gradients += gradient_nbytes
        high = tracemalloc.get_traced_memory()[1] - self.base - self.gradients
        self.peak = max(self.peak, high)
        tracemalloc.reset_peak()

    def before(self, kind: int, node: TapeNode) -> None:
        self.waiting = [
            dep
            for dep in node.inputs or ()
            if type(dep) is TapeNode and dep.op is None and dep.requires_grad
            and dep.cotangent is None
        ]  # fmt: skip

    def after(self, kind: int, node: TapeNode) -> None:
        reached = [dep.cotangent.nbytes for dep in self.waiting if dep.cotangent is not None]
        self.waiting = []
        self.note(sum(reached))


def peak_of(make: Callable[[], Callable[..., Any]], args: tuple[Any, ...]) -> tuple[Any, int]:
    """What a step returns, and the whole peak in bytes of its buffers and of running it."""
    step = make()
    step_nbytes = step.memory.nbytes if hasattr(step, "memory") else 0
    gc.collect()
    tracemalloc.start()
    try:
        base = tracemalloc.get_traced_memory()[0]
        result = step(*args)
        peak = tracemalloc.get_traced_memory()[1] - base
    finally:
        tracemalloc.stop()
    return result, step_nbytes + peak


def generators(args: tuple[Any, ...]) -> list[np.random.Generator]:
    """The random generators among a call's arguments."""
    return [leaf for leaf in tree.leaves(args) if isinstance(leaf, np.random.Generator)]


def digest(grads: Any) -> str:
    """A hash of gradients' bits: equal only for gradients equal bit for bit."""
    made = hashlib.sha256()
    for g in tree.leaves(grads):
        g = np.asarray(g.data if isinstance(g, Value) else g)
        made.update(f"{g.shape}{g.dtype}".encode())
        made.update(np.ascontiguousarray(g).tobytes())
    return made.hexdigest()[:16]


def tolerance(timeline: Timeline, live_arrays: int, nodes: int) -> int:
    """How far the measured peak may lie from the simulated one: headers, the tape's own objects."""
    return timeline.peak // 100 + 64 * 1024 + 256 * live_arrays + 512 * nodes
