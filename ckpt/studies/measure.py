"""Run a schedule for real, and see what it costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from ckpt.program import Execution, Program, execute
from ckpt.schedule import Schedule
from ckpt.timeline import Timeline
from ckpt.units import KIB


def seconds_of(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measured(
    program: Program, schedule: Schedule, args: tuple[Any, ...], *, repeats: int = 1
) -> tuple[Execution, float]:
    """The run under the program's witness, and the median seconds of ``repeats`` runs without."""
    seconds = statistics.median(
        seconds_of(lambda: program.execute(schedule, *args)) for _ in range(repeats)
    )
    return execute(program, schedule, *args, trace_memory=True), seconds


def tolerance(timeline: Timeline, live_arrays: int, nodes: int) -> int:
    """How far the measured peak may lie from the simulated one: headers, the tape's own objects."""
    return timeline.peak // 100 + 64 * KIB + 256 * live_arrays + 512 * nodes
