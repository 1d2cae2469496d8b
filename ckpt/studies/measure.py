"""Run a schedule for real, and see what it costs."""

from __future__ import annotations

import statistics
import time
from array import array
from collections.abc import Callable
from dataclasses import replace
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
    run = execute(program, schedule, *args, trace_memory=True)
    if program.witness is None:  # it is seen how high the run came, and not when
        high = run.timeline.columns["high"]
        peak = measured_peak(program, schedule, args)
        at = run.timeline.peak_position
        columns = {**run.timeline.columns, "high": array("q", [*high[:at], peak, *high[at + 1 :]])}
        run = replace(run, timeline=replace(run.timeline, columns=columns))
    return run, seconds


def measured_peak(program: Program, schedule: Schedule, args: tuple[Any, ...]) -> int:
    """What the program's witness sees of a run of the schedule: instruction by instruction, or
    where it sees whole runs alone, of the compiled step."""
    if program.witness is None:
        return program.measure(program.compile(schedule), *args)[1]
    return execute(program, schedule, *args, trace_memory=True).timeline.peak


def tolerance(timeline: Timeline, live_arrays: int, nodes: int) -> int:
    """How far the measured peak may lie from the simulated one: headers, the tape's own objects."""
    return timeline.peak // 100 + 64 * KIB + 256 * live_arrays + 512 * nodes
