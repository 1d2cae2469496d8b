"""`plan`: make a backward pass fit a number of bytes, and know how far that is from the best."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ckpt.errors import StepMemoryError, TapeError, UnitError, UsageError, VerificationError
from ckpt.graph import Graph, check_format
from ckpt.planners import make_schedule, resolve_budget
from ckpt.planners.bounds.certificate import Certificate, certify
from ckpt.reports.exports import dumps
from ckpt.reports.files import write_text
from ckpt.reports.words import in_words
from ckpt.schedule import Schedule
from ckpt.simulate import simulate
from ckpt.studies.measure import digest, generators, peak_of
from ckpt.tape.eager.grad import value_and_grad
from ckpt.tape.execution.compiled import BoundStep
from ckpt.tape.execution.run import execute
from ckpt.tape.traced.trace import Program, trace
from ckpt.timeline import Timeline
from ckpt.units import format_bytes, parse_bytes

FORMAT = "ckpt-plan"
VERSION = 1


@dataclass(eq=False, repr=False)
class Plan:
    """A graph, a schedule of it within a budget, what that costs, and how good it is."""

    graph: Graph
    schedule: Schedule
    certificate: Certificate

    @cached_property
    def timeline(self) -> Timeline:
        """The schedule, simulated."""
        return simulate(self.graph, self.schedule)

    def __str__(self) -> str:
        return "\n".join([*in_words(self.graph, self.timeline), str(self.certificate)])

    def __repr__(self) -> str:
        graph, schedule = self.graph, self.schedule
        return (
            f"<{type(self).__name__} of {graph.name or 'a program'} by {schedule.planner}: "
            f"{len(graph)} nodes, {len(schedule.instructions)} instructions, peak "
            f"{format_bytes(self.timeline.peak)}>"
        )

    def plot(self, path: Any) -> Any:
        """Draw the schedule - instructions across, nodes up, live bytes below - into ``path``."""
        from ckpt.reports.figure import save, schedule_figure

        return save(schedule_figure(self.timeline, lambda i: self.graph[i].name), path)

    def save(self, path: Any) -> None:
        """Write the plan as JSON, for `load_plan`; whole or not at all."""
        data = {
            "format": FORMAT,
            "version": VERSION,
            "graph": self.graph.to_json(),
            "schedule": self.schedule.to_json(),
            "certificate": self.certificate.to_json(),
        }
        write_text(path, dumps(data, indent=None))

    def bind(
        self,
        function: Callable[..., Any],
        *args: Any,
        argnums: int | tuple[int, ...] = 0,
        has_aux: bool = False,
    ) -> Step:
        """The plan as a callable step of ``function``, which must be the program it was made for.

        Raises UsageError where its trace on ``args`` isn't this plan's graph.
        """
        program = _traced(function, args, argnums, has_aux, self.graph.name)
        if program.graph.digest != self.schedule.graph:
            raise UsageError(
                f"this plan was made for another program or other shapes: its graph is "
                f"{self.schedule.graph} ({len(self.graph)} nodes), this one's is "
                f"{program.graph.digest} ({len(program.graph)} nodes); plan again"
            )
        return Step(program.graph, self.schedule, self.certificate, program, function)


@dataclass(eq=False, repr=False)
class Step(Plan):
    """A plan that runs: ``value, grads = step(*args)``, again and again, as it was planned.

    The buffers are allocated at the first call and used again by the next; what is returned never
    lies in them. Equal to plain backward bit for bit. Not to be called from two threads at once.
    """

    program: Program
    function: Callable[..., Any]

    @cached_property
    def bound(self) -> BoundStep:
        return BoundStep(self.program, self.schedule)

    def __call__(self, *args: Any) -> Any:
        """The loss and its gradients, as `value_and_grad` gives them.

        Raises TapeError for arguments unlike the traced ones; StepMemoryError where memory runs
        out, with nothing of the caller's changed.
        """
        try:
            return self.bound(*args)
        except MemoryError:
            self.__dict__.pop("bound", None)
            raise StepMemoryError(
                f"out of memory in a step that needs {format_bytes(self.timeline.peak)} beside "
                f"{format_bytes(self.timeline.resident)} of inputs and parameters and "
                f"{format_bytes(self.timeline.gradients_total)} of gradients; no schedule needs "
                f"less than {format_bytes(self.certificate.floor)}: plan it with a smaller budget"
            ) from None

    @property
    def captured(self) -> list[str]:
        """The plain arrays met while tracing, frozen into the plan, in words."""
        return [self.graph.describe(i) for i, node in enumerate(self.graph) if node.captured]

    def verify(self, *args: Any) -> Verification:
        """Run the step on ``args`` and hold it to its promises.

        Raises VerificationError if the peak that tracemalloc sees exceeds the promised one (by more
        than array headers), or if loss or gradients differ from plain backward in a single bit.
        """
        program = self.program
        argnums = program.argnums[0] if program.single else program.argnums
        plain = value_and_grad(self.function, argnums, has_aux=program.has_aux)
        states = [(g, g.bit_generator.state) for g in generators(args)]

        def again(run: Callable[..., Any]) -> Any:
            for generator, state in states:
                generator.bit_generator.state = state
            return run()

        expected = digest(again(lambda: plain(*args)))
        run = again(lambda: execute(program, self.schedule, args, trace_memory=True))
        assert run.timeline is not None
        self.__dict__.pop("bound", None)
        result, whole = again(lambda: peak_of(lambda: self.bound, args))
        found = Verification(
            promised=self.timeline.peak,
            measured=run.timeline.peak,
            reused=self.bound.arena_nbytes + self.bound.beside_nbytes,
            equal=digest(result) == expected == digest((run.value, run.grads)),
        )
        if not found.equal and not program.has_aux:
            raise VerificationError("the planned step's gradients differ from plain backward's")
        allowed = found.promised + found.promised // 100 + 64 * 1024 + 768 * len(self.graph)
        # What is returned is the caller's: gradients, and copies of what aux holds.
        whole -= self.timeline.gradients_total
        whole -= sum(self.graph[i].nbytes for i in program.aux_nodes)
        for peak in (found.measured, found.reused, whole):
            if peak > allowed:
                raise VerificationError(
                    f"the measured peak, {format_bytes(peak)}, exceeds the promised "
                    f"{format_bytes(found.promised)}"
                )
        return found


@dataclass(frozen=True)
class Verification:
    """What a real run of a plan showed. Bytes."""

    promised: int
    measured: int
    """Peak that tracemalloc saw while the schedule was executed instruction by instruction."""
    reused: int
    """Peak of the compiled step: its buffers, and what it allocates beside them."""
    equal: bool
    """Loss and gradients are plain backward's, bit for bit."""

    def __str__(self) -> str:
        return (
            f"verified: predicted peak {format_bytes(self.promised)}, measured "
            f"{format_bytes(self.measured)}; gradients equal plain backward's bit for bit"
        )


def plan(
    function: Callable[..., Any],
    *args: Any,
    budget: int | str | None = None,
    planner: str = "auto",
    whole: bool = False,
    cost: str = "flops",
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    name: str = "",
    **options: Any,
) -> Step:
    """Plan one step (loss and gradients) of ``function(*args)`` within ``budget``.

    ``budget`` bounds the peak: bytes, ``"64MiB"``, ``"25%"`` of what store-all needs; with
    ``whole`` it bounds the whole peak, inputs, parameters and gradients included. ``args`` are
    arrays or `ckpt.spec` stand-ins: planning allocates nothing of their size. ``cost="seconds"``
    weighs recomputation by seconds measured on ``args``. ``options`` go to the planner.

    Raises BudgetError where no schedule of the planner fits, UnitError for a budget that can't be
    read, TapeError for a program that can't be traced or that makes its arrays anew at every call.
    """
    if not isinstance(planner, str):
        raise UsageError(f"planner is the name of one, such as 'auto', not {planner!r}")
    program = _traced(function, args, argnums, has_aux, name)
    graph = program.graph
    limit = _limit(graph, budget, whole)
    weighed = graph
    if cost == "seconds":
        from ckpt.studies.seconds import with_seconds

        weighed = with_seconds(program, args)
    elif cost != "flops":
        raise UsageError(f"cost is 'flops' or 'seconds', not {cost!r}")
    schedule = replace(
        make_schedule(weighed, planner, limit, **options), graph=graph.digest, budget=limit
    )
    return Step(graph, schedule, certify(graph, schedule, limit), program, function)


def load_plan(path: Any) -> Plan:
    """Read what `Plan.save` wrote; `Plan.bind` makes it run. UsageError for anything else."""
    try:
        data = json.loads(Path(path).read_text())
    except OSError as error:
        raise UsageError(f"can't read {path}: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:
        raise UsageError(f"{path} is no JSON document, or is cut off: {error}") from None
    check_format(data, FORMAT, VERSION, UsageError)
    try:
        graph = Graph.from_json(data["graph"])
        schedule = Schedule.from_json(data["schedule"])
        certificate = Certificate.from_json(data["certificate"])
    except KeyError as error:
        raise UsageError(f"{path} is damaged: it has no {error}") from None
    if graph.digest != schedule.graph:
        raise UsageError(f"{path} is damaged: its schedule is for another graph than its own")
    found = Plan(graph, schedule, certificate)
    try:
        whole = found.timeline.peak == certificate.peak and str(found)
    except (TypeError, IndexError, AttributeError):
        whole = ""
    if not whole:
        raise UsageError(f"{path} is damaged: its certificate is not that of its schedule")
    return found


def _limit(graph: Graph, budget: int | str | None, whole: bool) -> int | None:
    """The bound on the peak in bytes."""
    if budget is None or not whole:
        return resolve_budget(graph, budget)[0]
    beside = graph.resident_nbytes + graph.gradient_nbytes
    limit = parse_bytes(budget, of=resolve_budget(graph, None)[2] + beside) - beside
    if limit <= 0:
        raise UnitError(
            f"inputs, parameters and gradients alone hold {format_bytes(beside)}, so nothing is "
            f"left of {budget!r} for the step"
        )
    return limit


def _traced(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    argnums: int | tuple[int, ...],
    has_aux: bool,
    name: str,
) -> Program:
    """The program, once it is sure that what it captures doesn't change from call to call."""
    program = trace(function, *args, argnums=argnums, has_aux=has_aux, name=name)
    captured = [e for e in program.entries if e.role == "captured"]
    if captured:
        again = trace(function, *args, argnums=argnums, has_aux=has_aux, name=name)
        others = [e for e in again.entries if e.role == "captured"]
        for a, b in zip(captured, others, strict=False):
            if a.array.shape != b.array.shape or not np.array_equal(
                a.array, b.array, equal_nan=a.array.dtype.kind in "fc"
            ):
                raise TapeError(
                    f"{a.source}: the program makes a {list(a.array.shape)} {a.array.dtype} array "
                    "that differs from call to call, and a plan would freeze it; draw random masks "
                    "with ckpt.nn.dropout, or pass the array as an argument"
                )
        if len(captured) != len(others) or program.graph.digest != again.graph.digest:
            raise TapeError(
                "two traces of the program differ: it depends on something that changes from call "
                "to call; pass that as an argument"
            )
    return program
