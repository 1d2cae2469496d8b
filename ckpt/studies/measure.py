"""Run a schedule for real, and see what it costs."""

from __future__ import annotations

import statistics
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ckpt.errors import UsageError
from ckpt.program import Execution, Program, execute
from ckpt.schedule import Schedule
from ckpt.timeline import Timeline
from ckpt.units import KIB, format_bytes
from ckpt.witness import WITNESSES, available


class Seconds(NamedTuple):
    """What a run took: by the clock, and of CPU time, in which no other process has a part."""

    clock: float
    cpu: float


def seconds_of(run: Callable[[], Any]) -> Seconds:
    start, cpu = time.perf_counter(), time.process_time()
    run()
    return Seconds(time.perf_counter() - start, time.process_time() - cpu)


def witnesses(program: Program, name: str | None) -> list[Any]:
    """Those that ``name`` asks for (`ckpt.witness`): one, ``"all"`` there are here, or with None
    the program's own; each found to count a filled array right, and none for a program whose
    framework has its own.

    UsageError for one that there isn't, VerificationError where one is broken.
    """
    own: Any = program.witness
    if own is None:
        if name not in (None, "tracemalloc", "all"):
            raise UsageError(
                f"this program's arrays are seen by its framework's own witness, not by {name}"
            )
        return []
    chosen = [own] if name in (None, own.name) else available(str(name), own.sample)
    for witness in chosen:
        witness.check()
    return chosen


def peaks(
    program: Program, schedule: Schedule, args: tuple[Any, ...], seeing: Sequence[Any]
) -> dict[str, int]:
    """The peak of a run of the schedule under each witness, by its name."""
    return {
        witness.name: execute(program, schedule, *args, witness=witness).timeline.peak
        for witness in seeing
    }


def measured(
    program: Program,
    schedule: Schedule,
    args: tuple[Any, ...],
    *,
    repeats: int = 1,
    witness: Any = None,
) -> tuple[Execution, Seconds]:
    """The run under ``witness``, by default the program's, and the median seconds of ``repeats``
    runs without."""
    taken = [seconds_of(lambda: program.execute(schedule, *args)) for _ in range(repeats)]
    seconds = Seconds(*map(statistics.median, zip(*taken, strict=True)))
    run = execute(program, schedule, *args, trace_memory=True, witness=witness)
    if program.witness is None:  # it is seen how high the run came, and not when
        high = run.timeline.columns["high"]
        peak, _ = measured_peak(program, schedule, args)
        at = run.timeline.peak_position
        columns = {**run.timeline.columns, "high": array("q", [*high[:at], peak, *high[at + 1 :]])}
        run = replace(run, timeline=replace(run.timeline, columns=columns))
    return run, seconds


def measured_peak(
    program: Program, schedule: Schedule, args: tuple[Any, ...]
) -> tuple[int, str | None]:
    """What the program's witness sees of a run of the schedule: instruction by instruction, or
    where it sees whole runs alone, of the compiled step; and why it may not be the run's own."""
    if program.witness is None:
        return program.measure(program.compile(schedule), *args)[1], None
    timeline = execute(program, schedule, *args, trace_memory=True).timeline
    return timeline.peak, timeline.measured.get("untrusted")


def judged(predicted: Timeline, peaks: Mapping[str, int]) -> list[tuple[int, int]]:
    """Each witness's peak, and the most that it may be but for headers: what is predicted for what
    it sees, and what it can't resolve."""
    found = []
    for name, peak in peaks.items():
        kind: Any = WITNESSES[name]
        expected = predicted.peak_with_scratch if kind.sees_scratch else predicted.peak
        found.append((peak, expected + kind.resolution * kind.sees_scratch))
    return found


def compared(predicted: Timeline, peaks: Mapping[str, int]) -> list[str]:
    """A line a witness: what it measured, how far that is from what is predicted for it (in bytes
    where headers are most of it), and what it can't see."""
    lines = []
    for name, peak in peaks.items():
        kind: Any = WITNESSES.get(name)
        expected = predicted.peak_with_scratch if kind and kind.sees_scratch else predicted.peak
        off = f" ({100 * (peak / expected - 1):+.2f} %)" if expected >= 64 * KIB else ""
        if 0 < expected < 64 * KIB:
            off = f" ({'+-'[peak < expected]}{format_bytes(abs(peak - expected))})"
        blind = f"; it can't see {kind.blind}" if kind and len(peaks) > 1 else ""
        by = f" by {name}" if kind and (len(peaks) > 1 or kind.sees_scratch) else ""
        lines.append(f"              {format_bytes(peak):>11}  measured{by}{off}{blind}")
    return lines


def tolerance(timeline: Timeline, live_arrays: int, nodes: int) -> int:
    """How far the measured peak may lie from the simulated one: headers, the tape's own objects."""
    return timeline.peak // 100 + 64 * KIB + 256 * live_arrays + 512 * nodes
