"""The calls of a planned step, each by itself: what its step takes at least."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from time import perf_counter
from typing import Any

import ckpt
from ckpt.tape.execution.arena import block, place
from ckpt.tape.execution.arguments import check_arguments
from ckpt.tape.execution.draws import Draws
from ckpt.tape.execution.lines import Code, Line, write
from ckpt.tape.execution.source import Assembled, _Text
from ckpt.tape.execution.tiling import tiled


def code_of(step: Any) -> Code:
    """The lines that a planned step is compiled from."""
    traced, schedule = step.program.traced, step.schedule
    promised = ckpt.simulate(step.graph, schedule).peak
    return tiled(write(traced, schedule, Draws(traced, schedule)), promised)


class CallsAlone:
    """A planned step whose calls are timed one by one, each in its place, by the clock: CPU time
    takes longer to read than a small call."""

    def __init__(self, step: Any, args: Sequence[Any]) -> None:
        self.taken: defaultdict[int, list[float]] = defaultdict(list)
        self._arrays = check_arguments(step.program.traced, args)
        code = code_of(step)
        memory = block(place(code))
        writer = _Timed(step.program.traced, code)
        writer.taken = self.taken
        names: dict[str, Any] = {}
        exec(compile(writer.text(), "<calls alone>", "exec"), names)
        self._made = Assembled(names["step"], writer.values)
        self._made.bind(memory)
        self._clock = min(-perf_counter() + perf_counter() for _ in range(1000))

    def __call__(self) -> Any:
        return self._made.run(*self._arrays)

    @property
    def seconds(self) -> float:
        """The sum of the median times of all calls, the clock's own aside."""
        return sum(max(0.0, median(found) - self._clock) for found in self.taken.values())


class _Timed(_Text):
    taken: defaultdict[int, list[float]]

    def _statement(self, at: int, line: Line) -> str:
        text = super()._statement(at, line)
        clock, note = self._constant(perf_counter, "clock"), self._constant(self._note, "note")
        return f"t = {clock}(); {text}; {note}({at}, {clock}() - t)"

    def _note(self, at: int, seconds: float) -> None:
        self.taken[at].append(seconds)
