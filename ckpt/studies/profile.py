"""`profile`: what one step keeps in memory, what each byte is for, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from ckpt.errors import UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.program import Program
from ckpt.reading import check_format
from ckpt.reports import documents
from ckpt.reports.exports import dumps, to_html
from ckpt.reports.files import write_text
from ckpt.reports.formats.shown import Shown
from ckpt.reports.ledger import ALIKE, BY_LINE, ledger, step_rows, why
from ckpt.reports.pages import Reel, as_text, page
from ckpt.reports.reproduce import environment
from ckpt.reports.words import line_of, source_lines
from ckpt.schedule import Instruction, Schedule, describe_instruction
from ckpt.studies.advice import Advice, advise, futile
from ckpt.studies.given import are_arrays, graph_of
from ckpt.studies.measure import compared, measured, peaks, seconds_of, witnesses
from ckpt.text import filled, printable
from ckpt.timeline import KINDS, Timeline, holdings
from ckpt.units import at_least, format_bytes, format_flops, format_seconds
from ckpt.witness import WITNESSES

FORMAT = "ckpt-profile"
VERSION = 1


@dataclass(eq=False, repr=False)
class Profile(Shown):
    """One step of a program: its graph, a schedule of it, and what that does in memory and time.

    ``simulated`` is predicted from shapes alone; ``measured`` (None where no arrays were given) is
    the same schedule run on arrays under the program's witness. ``seconds`` is of a run without it.
    ``eager_peak_nbytes`` is that of the plain step, in which the caller's own variables hold values
    too.
    """

    graph: Graph
    schedule: Schedule
    simulated: Timeline
    measured: Timeline | None = None
    seconds: float | None = None
    eager_peak_nbytes: int | None = None
    eager_seconds: float | None = None
    peaks: dict[str, int] = field(default_factory=dict)
    """Measured by each witness that was asked, the first one's in ``measured``."""
    environment: dict[str, Any] = field(default_factory=dict)
    """What the measured figures depend on, as ``ckpt env`` has it; empty where there are none."""

    profile_document: ClassVar[str] = FORMAT

    @property
    def title(self) -> str:
        return f"One step of {self.graph.name or 'the program'}"

    @property
    def timeline(self) -> Timeline:
        """The schedule, simulated."""
        return self.simulated

    @property
    def backward_forward_ratio(self) -> float:
        """Backward FLOPs over forward FLOPs: about two where matmuls dominate."""
        forward = self.simulated.forward_flops
        return self.simulated.backward_flops / forward if forward else 0.0

    def why(self, top: int | None = 10) -> list[str]:
        """What is live at the peak, largest first, and who still reads it."""
        found = holdings(self.graph, self.simulated, self.simulated.peak_position)
        return why(self.graph, found, peak=self.simulated.peak, top=top)

    @property
    def advice(self) -> list[str]:
        """Where a `@checkpoint` of the program can't help, and why."""
        return futile(self.graph)

    def rows(self) -> list[dict[str, Any]]:
        """The ledger: a row a node, with bytes, FLOPs by phase, and how often it was computed."""
        return step_rows(self.graph, self.simulated)

    def ledger(
        self, *, sort: str = "kept_nbytes", top: int | None = None, by: str | None = None
    ) -> list[Any]:
        """The rows sorted, cut off and grouped, with a total; see ``ckpt profile --help``.

        Of what the step computes; sorted by ``nbytes`` or in order, inputs and parameters too. Rows
        of one line of source have its ``text``, where that is known.
        """
        rows = self.rows()
        if sort not in ("nbytes", "order"):
            rows = [row for row in rows if row["computed"]]
        texts = source_lines(self.graph)
        return [
            {**row, "text": texts.get(row.get("line") or row.get("source") or "")}
            for row in ledger(rows, sort=sort, top=top, by=by)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values; bytes are ints."""
        s, m = self.simulated, self.measured
        return {
            "name": self.graph.name,
            "planner": self.schedule.planner,
            "nodes": len(self.graph),
            "instructions": len(self.schedule),
            "resident_nbytes": s.resident,
            "gradient_nbytes": s.gradients_beside,
            "predicted_peak_nbytes": s.peak,
            "predicted_whole_peak_nbytes": s.whole_peak,
            "measured_peak_nbytes": m.peak if m else None,
            "measured_whole_peak_nbytes": m.whole_peak if m else None,
            "predicted_scratch_nbytes": s.peak_with_scratch - s.peak,
            "measured_peaks_nbytes": self.peaks,
            "untrusted": m.measured.get("untrusted") if m else None,
            "eager_peak_nbytes": self.eager_peak_nbytes,
            "forward_flops": s.forward_flops,
            "recompute_flops": s.recompute_flops,
            "backward_flops": s.backward_flops,
            "overhead": s.overhead,
            "backward_forward_ratio": self.backward_forward_ratio,
            "seconds": self.seconds,
            "eager_seconds": self.eager_seconds,
            "environment": self.environment,
            "why": self.why(top=None),
            "advice": [*self.advised.sentences, *self.advice],
            "lines": [
                {"source": where, "peak_nbytes": peak, "overhead": overhead}
                for where, peak, overhead in self.advised.lines
            ],
            "ledger": self.rows(),
        }

    def page(self) -> str:
        """One HTML file: the schedule plays beside store-all, and the table stands below."""
        kept = simulate(self.graph, make_schedule(self.graph, "store_all"))
        table = to_html(self.ledger(by="line"), BY_LINE)
        return page(
            self.title,
            [Reel(self.graph, self.simulated, ghost=kept, seen=self.measured)],
            verdict=self.summary(),
            parts={"By line": table, "In words": as_text(str(self))},
        )

    def figure(self) -> Any:
        """Live bytes over the FLOPs done, predicted and measured, before store-all's outline."""
        from ckpt.reports.figure import timeline_figure

        kept = simulate(self.graph, make_schedule(self.graph, "store_all"))
        return timeline_figure(
            self.simulated,
            self.measured,
            graph=self.graph,
            against=kept if self.simulated.recompute_flops else None,
            title=f"Live bytes over one step of {self.graph.name or 'the program'}",
        )

    def summary(self) -> str:
        return "\n".join(map(printable, self.verdict()))

    def records(self) -> list[dict[str, Any]]:
        return self.rows()

    def table(self) -> str:
        return to_html(self.ledger(by="alike", top=15), ALIKE)

    def save(self, path: Any) -> None:
        """Write the profile as JSON, for `load_profile`; whole or not at all."""
        data = {
            "format": FORMAT,
            "version": VERSION,
            "graph": {**self.graph.to_json(), "lines": source_lines(self.graph)},
            "schedule": self.schedule.to_json(),
            "measured": None if self.measured is None else self.measured.to_json(),
            "peaks": self.peaks,
            "environment": self.environment,
            **{name: getattr(self, name) for name in _FIGURES},
        }
        write_text(path, dumps(data, indent=None))

    @classmethod
    def from_json(cls, data: Any) -> Profile:
        """Read what `save` wrote; UsageError for anything else."""
        check_format(data, FORMAT, VERSION, UsageError)
        try:
            graph = Graph.from_json(data["graph"])
            schedule = Schedule.from_json(data["schedule"])
            seen = data["measured"]
            measured = None if seen is None else Timeline.from_json(seen)
            peaks = data.get("peaks", {})
            if not isinstance(peaks, dict) or not peaks.keys() <= WITNESSES.keys():
                raise UsageError(f"this {FORMAT} document is damaged: its peaks are {peaks!r:.80}")
            where = data.get("environment", {})
            if not isinstance(where, dict):
                raise UsageError(f"this {FORMAT} document is damaged: its environment is no object")
            peaks = {name: _figure("peaks", (int,), peak) for name, peak in peaks.items()}
            figures: dict[str, Any] = {
                name: None if data[name] is None else _figure(name, kinds, data[name])
                for name, kinds in _FIGURES.items()
            }
        except KeyError as error:
            raise UsageError(f"this {FORMAT} document is damaged: {error!r}") from None
        if graph.digest != schedule.graph or (
            measured is not None and measured.schedule.instructions != schedule.instructions
        ):
            raise UsageError(
                f"this {FORMAT} document is damaged: its parts are of different programs"
            )
        return cls(
            graph, schedule, simulate(graph, schedule), measured,
            peaks=peaks, environment=where, **figures,
        )  # fmt: skip

    def __str__(self) -> str:
        return filled([*self.verdict(), *self.details()])

    def verdict(self) -> list[str]:
        """What it peaks at, where, what that is made of, and what it would save to plan it."""
        s, m = self.simulated, self.measured
        name, at = self.graph.name or "the program", s.peak_position
        seen = f", measured {format_bytes(m.peak)}" if m is not None else ""
        peak = self.schedule.instructions[at] if len(s) else None
        found = holdings(self.graph, s, at) if len(s) else []
        parts = [(sum(h.nbytes for h in found if h.kind == kind), kind) for kind in KINDS]
        parts.append((s.peak - sum(n for n, _ in parts), "workspace"))
        made = ", ".join(f"{format_bytes(n)} {kind}" for n, kind in parts if n > 0)
        again = (
            f"It recomputes {100 * s.overhead:.1f} % of a forward ({s.recomputations} values)."
            if s.recompute_flops
            else "Nothing is recomputed."
        )
        return [
            f"One step of {name} peaks at {format_bytes(s.peak)}{seen},",
            *(["and does nothing."] if peak is None else _placed(peak, self.graph)),
            f"{made or '0 B'}. {again}",
            *self.advised.sentences,
        ]

    @cached_property
    def advised(self) -> Advice:
        """What to try next: plans beside it, and its lines; see `studies.advice`."""
        return advise(self.graph, self.simulated)

    def details(self) -> list[str]:
        """The figures, what is live at the peak, and advice."""
        s, m = self.simulated, self.measured
        lines = [
            f"{len(self.graph)} nodes, {len(self.schedule)} instructions ({self.schedule.planner})",
            f"  peak        {format_bytes(s.peak):>11}  predicted",
        ]
        if s.peak_with_scratch > s.peak:
            lines.append(
                f"              {format_bytes(s.peak_with_scratch):>11}  with what libraries "
                "allocate meanwhile (scratch)"
            )
        if m is not None:
            lines += compared(s, self.peaks or {"": m.peak})
            if m.measured.get("untrusted"):
                lines.append(f"              untrusted: {m.measured.get('untrusted')}")
        if self.eager_peak_nbytes is not None:
            lines.append(
                f"              {format_bytes(self.eager_peak_nbytes):>11}  in an eager step, "
                "with what the caller's variables hold"
            )
        lines += [
            f"  whole peak  {format_bytes(s.whole_peak):>11}  with inputs, parameters "
            f"{format_bytes(s.resident)}, gradients {format_bytes(s.gradients_beside)}",
            f"  forward     {format_flops(s.forward_flops):>11}",
        ]
        if s.recompute_flops:
            lines.append(f"  recompute   {format_flops(s.recompute_flops):>11}")
        lines.append(
            f"  backward    {format_flops(s.backward_flops):>11}  "
            f"{self.backward_forward_ratio:.2f} times forward"
        )
        if self.seconds is not None:
            lines.append(f"  time        {format_seconds(self.seconds):>11}  one step, untraced")
        lines += self.advised.rows(source_lines(self.graph))
        lines += ["live at the peak, largest first, and for whose backward:"]
        lines += [f"  {line}" for line in self.why()]
        lines += [f"note: {line}" for line in self.advice]
        return lines

    def __repr__(self) -> str:
        return printable(
            f"<Profile of {self.graph.name or 'a program'} by {self.schedule.planner}: "
            f"{len(self.graph)} nodes, peak {format_bytes(self.simulated.peak)}>"
        )


_FIGURES: dict[str, tuple[type, ...]] = {
    "seconds": (int, float), "eager_peak_nbytes": (int,), "eager_seconds": (int, float),
}  # fmt: skip
"""What a measured profile knows besides, and of which type."""


def _figure(name: str, kinds: tuple[type, ...], value: Any) -> Any:
    if type(value) not in kinds or not 0 <= value < 2**63:
        raise UsageError(f"this {FORMAT} document is damaged: its {name} is {value!r:.80}")
    return value


def _placed(instruction: Instruction, graph: Graph) -> list[str]:
    """The instruction, and what its line of source says, if that is known."""
    text = line_of(instruction, graph)
    return [f"in {describe_instruction(instruction, graph)}:", *([f"    {text}"] if text else [])]


documents.READERS[FORMAT] = Profile.from_json


def load_profile(path: Any) -> Profile:
    """Read what `Profile.save` wrote; UsageError for anything else."""
    found = documents.read(path)
    if not isinstance(found, Profile):
        raise UsageError(f"{path} holds no profile")
    return found


def profile(
    function: Callable[..., Any] | Program | Graph,
    *args: Any,
    argnums: int | tuple[int, ...] = 0,
    has_aux: bool = False,
    planner: str = "as_written",
    budget: int | str | None = None,
    measure: bool | None = None,
    repeats: int = 1,
    witness: str | None = None,
    name: str = "",
) -> Profile:
    """Profile one step (loss and gradients) of ``function(*args)``, a Program, or a Graph alone.

    ``args`` are arrays, or `ckpt.spec` stand-ins, with which nothing is measured and nothing of
    their size is allocated. ``function`` returns a scalar loss; its `@checkpoint` regions are
    honoured (``planner="as_written"``), or another planner chooses within ``budget``.
    ``measure=False`` predicts only. ``witness`` says who judges the peak: ``"tracemalloc"``,
    ``"process"``, ``"memray"``, or ``"all"`` of them side by side (see `ckpt.witness`).

    Raises TapeError where the program can't be differentiated or traced, BudgetError where no plan
    fits, VerificationError where a witness miscounts a filled array.
    """
    repeats = at_least(1, "repeats", repeats)
    graph, program = graph_of(function, args, argnums, has_aux, name)
    schedule = make_schedule(graph, planner, budget)
    found = Profile(graph, schedule, simulate(graph, schedule), environment=environment())
    if measure is None:
        measure = program is not None and are_arrays(args)
    if measure:
        if program is None or not are_arrays(args):
            raise UsageError("shapes alone can't be run: pass arrays, or measure=False")
        with program.restored(*args):
            first, *others = witnesses(program, witness) or [None]
            execution, taken = measured(program, schedule, args, repeats=repeats, witness=first)
            found.measured, found.seconds = execution.timeline, taken.clock
            del execution
            if first is not None:
                found.peaks = {first.name: found.measured.peak}
                found.peaks |= peaks(program, schedule, args, others)
            found.eager_seconds = seconds_of(lambda: program.plain(*args)).clock
            _, found.eager_peak_nbytes = program.measure(program.plain, *args)
    return found
