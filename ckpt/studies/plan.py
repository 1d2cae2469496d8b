"""`plan`: make a backward pass fit a number of bytes, and know how far that is from the best."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, overload

from ckpt.errors import StepMemoryError, UnitError, UsageError, VerificationError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners import make_schedule, resolve_budget
from ckpt.planners.base.cost import Cost, moved, roofline
from ckpt.planners.bounds.certificate import Certificate, certify
from ckpt.program import Compiled, Program, execute
from ckpt.reading import check_format
from ckpt.reports import documents
from ckpt.reports.exports import dumps, plain, to_html
from ckpt.reports.files import write_text
from ckpt.reports.formats.shown import Shown
from ckpt.reports.ledger import ledger, step_rows
from ckpt.reports.pages import Reel, as_text, page
from ckpt.reports.reproduce import environment
from ckpt.reports.words import in_words, source_lines
from ckpt.schedule import Schedule
from ckpt.studies.given import graph_of, program_of
from ckpt.studies.measure import judged, peaks, witnesses
from ckpt.text import filled, pairs, printable
from ckpt.timeline import Timeline
from ckpt.units import KIB, format_bytes, parse_bytes, part

FORMAT = "ckpt-plan"
VERSION = 3

COSTS = ("flops", "bytes", "roofline", "seconds")
"""What a plan may minimise."""


@dataclass(eq=False, repr=False)
class Plan(Shown):
    """A graph, a schedule of it within a budget, what that costs, and how good it is."""

    graph: Graph
    schedule: Schedule
    certificate: Certificate
    environment: dict[str, Any] = field(default_factory=environment, kw_only=True)
    """Where it was made; in the document, and not in its digest."""

    plan_document: ClassVar[str] = FORMAT

    @property
    def title(self) -> str:
        return f"A plan of {self.graph.name or 'the program'}"

    @cached_property
    def timeline(self) -> Timeline:
        """The schedule, simulated."""
        return simulate(self.graph, self.schedule)

    def __str__(self) -> str:
        lines = [self.verdict, *in_words(self.graph, self.timeline)]
        if reason := self.schedule.notes.get("stopped_early"):
            lines.append(f"stopped early ({reason}): more time may find a cheaper plan")
        return filled([*lines, *self.certificate.details])

    @property
    def verdict(self) -> str:
        """What it holds, beside what store-all does; for how much recompute; whether less would do.

        ``holds 31.4 of 126 MiB (4.0 times less; whole 44 of 139 MiB) for 35.0 % of a forward, 12.0
        % of a step. No schedule within this budget does with less than 34.1 %.``
        """
        t, found = self.timeline, self.certificate
        kept = simulate(self.graph, make_schedule(self.graph, "store_all"))
        text = f"holds {part(t.peak, kept.peak)}"
        less = [f"{kept.peak / t.peak:.1f} times less"] if 0 < t.peak < kept.peak else []
        if t.whole_peak > t.peak:
            less.append(f"whole {part(t.whole_peak, kept.whole_peak)}")
        if less:
            text += f" ({'; '.join(less)})"
        return f"{text} {found.price}. {found.proven}".rstrip()

    def __repr__(self) -> str:
        graph, schedule = self.graph, self.schedule
        return printable(
            f"<{type(self).__name__} of {graph.name or 'a program'} by {schedule.planner}: "
            f"{len(graph)} nodes, {len(schedule.instructions)} instructions, peak "
            f"{format_bytes(self.timeline.peak)}>"
        )

    def _reel(self) -> Reel:
        kept = simulate(self.graph, make_schedule(self.graph, "store_all"))
        return Reel(self.graph, self.timeline, ghost=kept)

    def summary(self) -> str:
        return f"{printable(self.title)} {printable(self.verdict)}"

    def rows(self) -> list[dict[str, Any]]:
        """A row a node, as in a profile: its bytes, its FLOPs, and how often it is computed."""
        return step_rows(self.graph, self.timeline)

    def records(self) -> list[dict[str, Any]]:
        return self.rows()

    def table(self) -> str:
        columns = ("what", "source", "shape", "dtype", "nbytes", "recompute_flops", "computed")
        return to_html(ledger(self.rows(), sort="nbytes", top=15, by="alike"), columns)

    def figure(self) -> Any:
        """The schedule: instructions across, nodes up, live bytes below."""
        from ckpt.reports.figure import schedule_figure

        kept = simulate(self.graph, make_schedule(self.graph, "store_all"))
        return schedule_figure(self.graph, self.timeline, against=kept)

    def page(self) -> str:
        """One HTML file, in which the plan plays beside store-all."""
        return page(
            self.title,
            [self._reel()],
            verdict=printable(self.verdict[:1].upper() + self.verdict[1:]),
            parts={"In words": as_text(str(self))},
        )

    def as_json(self) -> dict[str, Any]:
        """The whole plan, as `save` writes it."""
        data = {
            "format": FORMAT,
            "version": VERSION,
            "graph": {**self.graph.to_json(), "lines": source_lines(self.graph)},
            "schedule": self.schedule.to_json(),
            "certificate": self.certificate.to_json(),
        }
        return {**data, "digest": _digest(data), "environment": self.environment}

    def save(self, path: Any) -> None:
        """Write the plan as JSON, for `load_plan`; whole or not at all."""
        write_text(path, dumps(self.as_json(), indent=None))

    @classmethod
    def from_json(cls, data: Any) -> Plan:
        """Read what `save` wrote; UsageError for anything else."""
        check_format(data, FORMAT, VERSION, UsageError)
        try:
            graph = Graph.from_json(data["graph"])
            schedule = Schedule.from_json(data["schedule"])
            certificate = Certificate.from_json(data["certificate"])
        except KeyError as error:
            raise UsageError(f"this {FORMAT} document is damaged: {error!r}") from None
        if graph.digest != schedule.graph:
            raise UsageError(
                f"this {FORMAT} document is damaged: its schedule is for another graph than its own"
            )
        where = data.get("environment", {})
        if not isinstance(where, dict):
            raise UsageError(f"this {FORMAT} document is damaged: its environment is no object")
        found = Plan(graph, schedule, certificate, environment=where)
        if found.timeline.peak != certificate.peak:
            raise UsageError(
                f"this {FORMAT} document is damaged: its certificate is not that of its schedule"
            )
        if data.get("digest") != _digest(data):
            raise UsageError(
                f"this {FORMAT} document was changed after it was saved, or is damaged: plan again"
            )
        return found

    def bind(
        self,
        function: Callable[..., Any] | Program,
        *args: Any,
        argnums: int | tuple[int, ...] = 0,
        has_aux: bool = False,
    ) -> Step:
        """The plan as a callable step of ``function``, which must be the program it was made for.

        Raises UsageError where its trace on ``args`` isn't this plan's graph.
        """
        program = program_of(function, args, argnums, has_aux, self.graph.name, frozen=True)
        if program.graph.digest != self.schedule.graph:
            raise UsageError(
                f"this plan was made for another program or other shapes: its graph is "
                f"{self.schedule.graph} ({len(self.graph)} nodes), this one's is "
                f"{program.graph.digest} ({len(program.graph)} nodes); plan again"
            )
        return _step(program, self.schedule, self.certificate)


def _digest(data: dict[str, Any]) -> str:
    """A hash of all that a plan document says, budget and bounds included."""
    said = plain({k: item for k, item in data.items() if k not in ("digest", "environment")})
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


documents.READERS[FORMAT] = Plan.from_json


@dataclass(eq=False, repr=False)
class Step(Plan):
    """A plan that runs: ``value, grads = step(*args)``, again and again, as it was planned.

    It is compiled when it is planned. The buffers are allocated at the first call and used again by
    the next; what is returned never lies in them. Equal to plain backward bit for bit. Not to be
    called from two threads at once.
    """

    program: Program
    compiled: Compiled
    """The schedule as the program runs it."""

    def release(self) -> None:
        """Let go of the buffers; the next call allocates them anew."""
        self.compiled.release()

    def __call__(self, *args: Any) -> Any:
        """The loss and its gradients, as `value_and_grad` gives them.

        Raises TapeError for arguments unlike the traced ones; StepMemoryError where memory runs
        out, with nothing of the caller's changed.
        """
        try:
            return self.compiled(*args)
        except MemoryError:
            self.release()
            raise StepMemoryError(
                f"out of memory in a step that needs {format_bytes(self.timeline.peak)} beside "
                f"{format_bytes(self.timeline.resident)} of inputs and parameters and "
                f"{format_bytes(self.timeline.gradients_beside)} of gradients; no schedule needs "
                f"less than {format_bytes(self.certificate.floor)}: plan it with a smaller budget"
            ) from None

    @property
    def captured(self) -> list[str]:
        """The plain arrays met while tracing, frozen into the plan, in words."""
        return [self.graph.describe(i) for i, node in enumerate(self.graph) if node.captured]

    def verify(self, *args: Any, witness: str | None = None) -> Verification:
        """Run the step on ``args`` and hold it to its promises, by ``witness`` as in `profile`.

        Raises VerificationError if a peak that the program's witness sees exceeds the promised one
        (by more than array headers), or if loss, aux or gradients differ from plain backward in a
        single bit.
        """
        program = self.program
        first, *others = witnesses(program, witness) or [None]
        with program.restored(*args):
            expected = program.digest(program.plain(*args))
        with program.restored(*args):
            run = execute(program, self.schedule, *args, trace_memory=True, witness=first)
            seen = {first.name: run.timeline.peak} if first is not None else {}
            seen |= peaks(program, self.schedule, args, others)
        with program.restored(*args):
            result, reused = program.measure(self.compiled, *args)
        found = Verification(
            promised=self.timeline.peak,
            measured=run.timeline.peak if program.witness is not None else reused,
            reused=reused,
            code=self.compiled.code_nbytes,
            equal=expected == program.digest(run.result) == program.digest(result),
            peaks=seen,
            untrusted=run.timeline.measured.get("untrusted"),
        )
        if not found.equal:
            raise VerificationError("the planned step's results differ from plain backward's")
        for peak, promised in [(reused, found.promised), *judged(self.timeline, seen)]:
            if peak > promised + promised // 100 + 64 * KIB + 768 * len(self.graph):
                why = f" ({found.untrusted})" if found.untrusted else ""
                raise VerificationError(
                    f"the measured peak, {format_bytes(peak)}, exceeds the promised "
                    f"{format_bytes(promised)}{why}"
                )
        return found


@dataclass(frozen=True)
class Verification:
    """What a real run of a plan showed. Bytes."""

    promised: int
    measured: int
    """Peak that the witness saw while the schedule was executed instruction by instruction."""
    reused: int
    """Peak of the compiled step's first call: its buffers, and what it allocates beside them."""
    code: int
    """What the compiled step's code holds, which no peak has."""
    equal: bool
    """Loss, aux and gradients are plain backward's, bit for bit."""
    peaks: dict[str, int] = field(default_factory=dict)
    """The peak of the executed schedule by each witness that was asked."""
    untrusted: str | None = None
    """Why the peaks may not be the step's own."""

    def _repr_html_(self) -> str:
        return pairs(
            {
                "promised peak": format_bytes(self.promised),
                "measured, instruction by instruction": format_bytes(self.measured),
                "measured, as a compiled step": format_bytes(self.reused),
                "the step's code": format_bytes(self.code),
                "loss and gradients": "plain backward's, bit for bit" if self.equal else "DIFFER",
            }
        )

    def __str__(self) -> str:
        by = ", ".join(f"{format_bytes(n)} by {name}" for name, n in self.peaks.items())
        seen = by if len(self.peaks) > 1 else format_bytes(self.measured)
        note = f" (untrusted: {self.untrusted})" if self.untrusted else ""
        return filled(
            [
                f"verified: predicted peak {format_bytes(self.promised)}, measured {seen}{note}, "
                f"{format_bytes(self.code)} of code; gradients equal plain backward's bit for bit"
            ]
        )


@overload
def plan(
    function: Graph,
    *,
    budget: int | str | None = None,
    planner: str = "auto",
    whole: bool = False,
    cost: str = "flops",
    **options: Any,
) -> Plan: ...
@overload
def plan(
    function: Callable[..., Any] | Program,
    *args: Any,
    budget: int | str | None = None,
    planner: str = "auto",
    whole: bool = False,
    cost: str = "flops",
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    name: str = "",
    check: str | None = "default",
    **options: Any,
) -> Step: ...


def plan(
    function: Callable[..., Any] | Program | Graph,
    *args: Any,
    budget: int | str | None = None,
    planner: str = "auto",
    whole: bool = False,
    cost: str = "flops",
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    name: str = "",
    check: str | None = "default",
    **options: Any,
) -> Plan:
    """Plan one step (loss and gradients) of ``function(*args)``, or a Program, within ``budget``.

    Of a Graph alone the result is a Plan, and no Step that runs.

    ``budget`` bounds the peak: bytes, ``"64MiB"``, ``"25%"`` of what store-all needs; with
    ``whole`` it bounds the whole peak, inputs, parameters and gradients included. ``args`` are
    arrays or `ckpt.spec` stand-ins: planning allocates nothing of their size. ``cost`` is what
    recomputation is weighed by: ``"flops"``, ``"bytes"`` moved, a ``"roofline"`` of both, or
    ``"seconds"`` measured on ``args``. ``check`` says how closely arrays that are changed in place
    are looked for, as in `checkpoint`: while tracing, and in each step where an op of yours runs in
    it or with ``"all"``. ``options`` go to the planner; ``jobs``, ``executor`` or ``cluster`` share
    the work of ``auto`` among workers (see `workers.pool`): the plan is the same.

    Raises BudgetError where no schedule of the planner fits, UnitError for a budget that can't be
    read, TapeError for a program that can't be traced or that makes its arrays anew at every call.
    """
    if not isinstance(planner, str):
        raise UsageError(f"planner is the name of one, such as 'auto', not {planner!r}")
    graph, program = graph_of(function, args, argnums, has_aux, name, frozen=True, check=check)
    limit = _limit(graph, budget, whole)
    price = _price(graph, program, args, cost)
    made = make_schedule(graph, planner, limit, price, **options)
    schedule = replace(made, budget=limit)
    certificate = certify(graph, schedule, limit, price)
    if program is None:
        return Plan(graph, schedule, certificate)
    return _step(program, schedule, certificate)


def _step(program: Program, schedule: Schedule, certificate: Certificate) -> Step:
    return Step(program.graph, schedule, certificate, program, program.compile(schedule))


def load_plan(path: Any) -> Plan:
    """Read what `Plan.save` wrote; `Plan.bind` makes it run. UsageError for anything else."""
    found = documents.read(path)
    if not isinstance(found, Plan):
        raise UsageError(f"{path} holds no plan")
    return found


def _price(graph: Graph, program: Program | None, args: tuple[Any, ...], cost: str) -> Cost | None:
    """What the planner minimises; None: FLOPs."""
    if cost not in COSTS:
        raise UsageError(f"cost is {', '.join(map(repr, COSTS))}, not {cost!r}")
    if cost == "seconds":
        if program is None:
            raise UsageError("a Graph alone can't be run, so cost can't be 'seconds'")
        from ckpt.studies.seconds import measured_cost

        with program.restored(*args):
            return measured_cost(program, args)
    return {"bytes": moved, "roofline": roofline}[cost](graph) if cost != "flops" else None


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
