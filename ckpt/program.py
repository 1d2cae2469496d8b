"""What a front end owes: a function with its graph, and the means to run any schedule of it.

Studies and the command line take a Program, whichever framework is behind it, or a Graph alone
where nothing is run.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from sys import getsizeof
from typing import Any, Protocol, assert_never, runtime_checkable

from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.schedule import Backward, Compute, Free, Schedule
from ckpt.timeline import BACKWARD, FORWARD, FREE, KINDS, RECOMPUTE, Timeline
from ckpt.witness import Witness


class Observer(Protocol):
    """Sees each instruction of an execution before and after it is performed."""

    def before(self, position: int) -> None: ...

    def after(self, position: int, count: Callable[[], tuple[Sequence[int], int]]) -> None:
        """``count()`` gives the bytes by `timeline.KINDS` of the arrays that are held now, counted
        on the arrays themselves, and how many of them were there before the run."""


def code_nbytes(function: Any) -> int:
    """Bytes of a generated function's code and of the names in it."""
    code = function.__code__
    names = (*code.co_varnames, *code.co_names)
    return sum(map(getsizeof, (code, code.co_linetable, code.co_varnames, code.co_names, *names)))


class Compiled(Protocol):
    """A schedule as a callable of the user's arguments, to be called again and again."""

    nbytes: int
    """What its buffers hold between calls; the first one allocates them."""
    code_nbytes: int
    """What it holds itself, beside them and from the start."""

    def __call__(self, *args: Any) -> Any: ...

    def release(self) -> None:
        """Let go of the buffers; the next call allocates them anew."""


@runtime_checkable
class Program(Protocol):
    """A function with its graph and the means to run it.

    A *result* is whatever the function's step gives: the loss and its gradients, say. Nobody but
    the program looks inside.
    """

    @property
    def graph(self) -> Graph: ...

    @property
    def witness(self) -> Witness | None:
        """What sees the bytes of its arrays instruction by instruction; None: `measure` alone."""

    def plain(self, *args: Any) -> Any:
        """The user's own step, as it is."""

    def execute(self, schedule: Schedule, *args: Any, observe: Observer | None = None) -> Any:
        """Perform the schedule instruction by instruction and return the result."""

    def compile(self, schedule: Schedule) -> Compiled:
        """The schedule as a callable: the same calls in the same order, without the looking."""

    def measure(self, step: Any, *args: Any) -> tuple[Any, int]:
        """The result of ``step(*args)`` - `plain`, or a compiled step - and its peak in bytes as
        the framework's own witness sees it, gradients that exist beforehand left out."""

    def restored(self, *args: Any) -> AbstractContextManager[Any]:
        """Put back, at its end, what a run changes beside its result: random generators, say."""

    def digest(self, result: Any) -> str:
        """A hash of a result's bits: equal only for results equal bit for bit."""


@dataclass(frozen=True)
class Execution:
    """What a run gave: the function's result, and a Timeline of what was really held."""

    result: Any
    timeline: Timeline
    seconds: float

    @property
    def value(self) -> Any:
        """The first half of a result ``(value, grads)``, which is that of `value_and_grad`."""
        return self.result[0]

    @property
    def grads(self) -> Any:
        return self.result[1]


def execute(
    program: Program,
    schedule: Schedule,
    *args: Any,
    trace_memory: bool = False,
    witness: Witness | None = None,
) -> Execution:
    """Perform ``schedule`` of ``program`` on ``args``, and count what is held meanwhile.

    The Timeline has the live bytes of the real arrays after each instruction; with
    ``trace_memory`` its ``high`` is the peak that the program's witness saw during each; or
    ``witness``, which of a whole run has one high alone.
    """
    seeing = witness or (program.witness if trace_memory else None)
    chronicle = Chronicle(program.graph, schedule, seeing)
    with chronicle:
        start = time.perf_counter()
        result = program.execute(schedule, *args, observe=chronicle)
        seconds = time.perf_counter() - start
    return Execution(result, chronicle.timeline(seconds), seconds)


class Chronicle:
    """An Observer that fills the columns of a Timeline. It allocates nothing while it watches."""

    def __init__(self, graph: Graph, schedule: Schedule, witness: Witness | None = None) -> None:
        self.graph = graph
        self.schedule = schedule
        self.witness = witness
        blank = [0] * len(schedule)
        self.live = [array("q", blank) for _ in KINDS]
        self.high = array("q", blank)
        self.unseen = array("q", blank)
        """Bytes that were there before the run."""
        self.own = 0
        """Bytes that the counting itself has allocated, which are nobody's."""

    def __enter__(self) -> Chronicle:
        self._seeing = ExitStack()
        return self

    def __exit__(self, *error: Any) -> None:
        self._seeing.close()

    def before(self, position: int) -> None:
        if self.witness is not None:
            if not position:  # what a program prepares isn't part of the run
                self._seeing.enter_context(self.witness)
            if not self.witness.whole:
                self.witness.reset()

    def after(self, position: int, count: Callable[[], tuple[Sequence[int], int]]) -> None:
        if self.witness is None or self.witness.whole:
            live, self.unseen[position] = count()
        else:
            peak, held = self.witness.peak() - self.own, self.witness.held()
            live, unseen = count()
            self.own += self.witness.held() - held
            beside = 0 if self.graph.counts_gradients else live[-1]
            self.high[position] = peak + unseen - beside
        for column, nbytes in zip(self.live, live, strict=True):
            column[position] = nbytes

    def timeline(self, seconds: float) -> Timeline:
        """What was seen. FLOPs are the graph's; a recomputation is seen as a second Compute."""
        graph = self.graph
        counts = [0] * len(graph)
        flops, phases = [], []
        for instruction in self.schedule:
            match instruction:
                case Compute(node):
                    flops.append(graph[node].flops)
                    phases.append(RECOMPUTE if counts[node] else FORWARD)
                    counts[node] += 1
                case Backward(step):
                    flops.append(graph.steps[step].flops)
                    phases.append(BACKWARD)
                case Free():
                    flops.append(0)
                    phases.append(FREE)
                case _:
                    assert_never(instruction)
        counted = self.live if graph.counts_gradients else self.live[:-1]
        live = [sum(row) for row in zip(*counted, strict=True)]
        high = array("q", live)
        if self.witness is not None:
            high = self._highest(high) if self.witness.whole else self.high
        return Timeline(
            schedule=self.schedule,
            columns={
                **dict(zip(KINDS, self.live, strict=True)),
                "live": array("q", live),
                "workspace": array("q", [max(h - v, 0) for h, v in zip(high, live, strict=True)]),
                "high": high,
                "scratch": array("q", [0] * len(self.schedule)),
                "flops": array("q", flops),
                "phase": array("q", phases),
            },
            counts=array("q", counts),
            resident=graph.resident_nbytes,
            gradients_beside=graph.gradient_nbytes,
            source="execute",
            measured={
                "seconds": seconds,
                "witness": self.witness.name if self.witness else None,
                "untrusted": self.witness.untrusted if self.witness else None,
            },
        )

    def _highest(self, live: array[int]) -> array[int]:
        """The one high of a whole run, where it is predicted: what rests there or was there before
        the run belongs to it or not as in any other."""
        assert self.witness is not None
        predicted = simulate(self.graph, self.schedule).columns
        beside = [-n for n in self.unseen]
        if not self.graph.counts_gradients:
            beside = [n + g for n, g in zip(beside, self.live[-1], strict=True)]
        held = zip(predicted["high"], predicted["scratch"], beside, strict=True)
        _, at = max((sum(row), -k) for k, row in enumerate(held))
        live[-at] = self.witness.peak() - beside[-at]
        return live
