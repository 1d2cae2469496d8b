"""How far a schedule is from the best possible, in numbers and in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from ckpt.errors import UsageError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base.cost import Cost, flops, format_cost
from ckpt.planners.bounds.floor import budget_floor
from ckpt.planners.bounds.lower import EFFORT, lower_bounds
from ckpt.planners.bounds.moments import BUILT_IN
from ckpt.planners.bounds.simple import Bound, memory_floor
from ckpt.reading import check_format, checked
from ckpt.schedule import Schedule
from ckpt.text import filled, pairs, printable
from ckpt.units import format_bytes

FORMAT = "ckpt-certificate"
VERSION = 3

ALWAYS = "every Backward runs once, in one order, so that gradients keep their bits"
WHOLE = "what is recomputed is a whole value, never a part of it"


@dataclass(frozen=True, repr=False)
class Certificate:
    """What is known of one schedule: its peak and cost, and what no schedule can beat.

    Bytes are those of the peak; costs are in one ``unit``.
    """

    planner: str
    peak: int
    budget: int
    """The budget that the bounds are for: the schedule's, or without one its own peak."""
    floor: int
    """No schedule of this graph has a lower peak."""
    floor_instruction: str
    unit: str
    """Of costs: ``flops``, ``bytes`` or ``nanoseconds``."""
    recompute: int
    """What its recomputations cost."""
    forward: int
    """What computing everything once costs."""
    backward: int
    """What the backward costs."""
    bounds: tuple[Bound, ...]
    """Lower bounds on the recompute of every schedule within the budget, best first."""
    class_bound: int | None
    """A bound proven by the planner for schedules of its own class, or None."""
    class_assumptions: tuple[str, ...]

    @property
    def within(self) -> bool:
        """Is the peak within the budget?"""
        return self.peak <= self.budget

    @property
    def bound(self) -> Bound:
        """The best bound that holds for every schedule."""
        return self.bounds[0]

    @property
    def gap(self) -> float:
        """How much of the recompute might be saved: (recompute - bound) / recompute, 0 to 1."""
        return self._gap(self.bound.cost or 0)

    @property
    def gap_forward(self) -> float:
        """What might be saved, in forwards: the points of a gap are hundredths of it."""
        return self._saved / self.forward if self.forward else 0.0

    @property
    def gap_step(self) -> float:
        """The same in steps without recompute, forward and backward."""
        return self._saved / self._step if self._step else 0.0

    @property
    def _saved(self) -> int:
        return max(0, self.recompute - max(self.bound.cost or 0, self.class_bound or 0))

    @property
    def _step(self) -> int:
        return self.forward + self.backward

    @property
    def class_gap(self) -> float | None:
        """The same among the schedules of the planner's class."""
        return None if self.class_bound is None else self._gap(self.class_bound)

    def _gap(self, bound: int) -> float:
        return max(0.0, (self.recompute - bound) / self.recompute) if self.recompute else 0.0

    @property
    def optimal(self) -> bool:
        """Does no schedule within the budget recompute less, under `assumptions`?"""
        return self.within and (self.gap == 0 or self.class_gap == 0)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Under which the bound that decides holds, in words."""
        if self.gap == 0 or self.class_bound is None:
            return (ALWAYS, WHOLE)
        return (ALWAYS, WHOLE, *self.class_assumptions)

    @property
    def verdict(self) -> str:
        """What it costs, and whether less would do, in a sentence or two."""
        if not self.recompute:
            text = "Nothing is recomputed."
        else:
            text = f"Recompute {self._share(self.recompute)}"
            if self._step:
                text += f" (a step {_percent(self.recompute / self._step)} longer)"
            text += "."
        return f"{text} {self.proven}".rstrip()

    @property
    def price(self) -> str:
        """What it costs, in shares: ``for 35.0 % of a forward, 12.0 % of a step``."""
        if not self.recompute:
            return "and recomputes nothing"
        text = f"for {self._share(self.recompute)}"
        return f"{text}, {_percent(self.recompute / self._step)} of a step" if self._step else text

    @property
    def proven(self) -> str:
        """Whether less would do, in a sentence or two; empty where nothing is recomputed."""
        if self.bound.cost is None:
            return "No schedule fits this budget."
        if not self.within:
            return "The peak is above the budget."
        if not self.recompute:
            return ""
        if self.gap == 0:
            return "No schedule within this budget does with less."
        text = f"No schedule within this budget does with less than {self._bound}."
        if self.forward and self._share(self.bound.cost) == self._share(self.recompute):
            points = _points(self.gap_forward)
            text = f"No schedule within this budget saves more than {points} points of that."
        if self.class_gap == 0:
            text += f" Of its class, which {self.planner} tells, none does with less."
        return text

    def __str__(self) -> str:
        fits = "within" if self.within else "ABOVE"
        lines = [
            f"recompute  {self._amount(self.recompute)}{self._of_forward(self.recompute)}",
            f"peak       {format_bytes(self.peak)}, {fits} the budget, {format_bytes(self.budget)}",
        ]
        if self.bound.cost is not None and self.recompute:
            bound = self._amount(self.bound.cost) + self._of_forward(self.bound.cost)
            lines.append(f"no less    {bound}: no schedule does with less")
        return filled([*lines, *self.details])

    @property
    def details(self) -> list[str]:
        """How the bound was proven, the gap, the floor and what is assumed, a line each."""
        lines = []
        if self.bound.cost is None:
            lines.append(f"bound      no schedule fits the budget ({self.bound.name})")
        elif self.recompute:
            first, *others = self._method
            lines += [f"bound      {first}", *(f"           {line}" for line in others)]
        if self.class_bound is not None:
            lines.append(
                f"           {self._amount(self.class_bound)}{self._of_forward(self.class_bound)}, "
                f"for its class, by {self.planner}"
            )
        first, *others = self.assumptions
        lines += [
            f"gap        {self._gap_in_words}",
            f"floor      {format_bytes(self.floor)}: no schedule needs less; set by",
            f"           {self.floor_instruction}",
            f"assuming   {first}",
            *(f"           {other}" for other in others),
        ]
        return lines

    def __repr__(self) -> str:
        fits = "within" if self.within else "above"
        return printable(
            f"<Certificate of {self.planner}: peak {format_bytes(self.peak)}, {fits} "
            f"{format_bytes(self.budget)}; recompute {self._amount(self.recompute)}, bound "
            f"{self._amount(self.bound.cost or 0)}>"
        )

    def _repr_html_(self) -> str:
        found: dict[str, str] = {}
        name = ""
        for line in str(self).splitlines():
            name = line[:11].strip() or name
            found[name] = f"{found[name]}; {line[11:]}" if name in found else line[11:]
        return pairs(found)

    @property
    def _bound(self) -> str:
        return self._share(self.bound.cost or 0).removesuffix(" of a forward")

    @property
    def _method(self) -> list[str]:
        if self.bound.solver == BUILT_IN:
            extra = "HiGHS, in the extra ckpt-profiler[ilp], may prove more"
            return [f"by a {self.bound.name} and {BUILT_IN};", extra]
        return [f"by {' and '.join(filter(None, [self.bound.name, self.bound.solver]))}"]

    @property
    def _gap_in_words(self) -> str:
        if self.optimal:
            return "none: optimal"
        if not self.forward:
            return f"at most {self._amount(self._saved)}"
        return (
            f"at most {_points(self.gap_forward)} points of a forward, "
            f"{_points(self.gap_step)} of the step"
        )

    def _share(self, cost: int) -> str:
        """In hundredths of a forward, if that costs anything."""
        if not self.forward:
            return self._amount(cost)
        return f"{_percent(cost / self.forward)} of a forward"

    def _amount(self, cost: int) -> str:
        return format_cost(self.unit, cost)

    def _of_forward(self, cost: int) -> str:
        return f", {self._share(cost)}" if self.forward else ""

    def to_json(self) -> dict[str, Any]:
        """What is stored, and what follows from it: bound, gap, optimal, assumptions."""
        return {
            "format": FORMAT,
            "version": VERSION,
            **asdict(self),
            "bounds": [bound.to_json() for bound in self.bounds],
            "gap": self.gap,
            "gap_forward": self.gap_forward,
            "gap_step": self.gap_step,
            "verdict": self.verdict,
            "class_gap": self.class_gap,
            "optimal": self.optimal,
            "assumptions": list(self.assumptions),
        }

    @classmethod
    def from_json(cls, data: Any) -> Certificate:
        """Read what `to_json` wrote; UsageError for anything else."""
        check_format(data, FORMAT, VERSION, UsageError)
        try:
            row = {field.name: data[field.name] for field in fields(cls)}
            row["bounds"] = tuple(
                Bound(
                    checked("name", "str", bound["name"]),
                    checked("recompute_cost", "int | None", bound["recompute_cost"]),
                    checked("solver", "str", bound["solver"]),
                )
                for bound in row["bounds"]
            )
            row["class_assumptions"] = tuple(
                checked("assumption", "str", each) for each in row["class_assumptions"]
            )
            for field in fields(cls):
                if field.name not in ("bounds", "class_assumptions"):
                    checked(field.name, field.type, row[field.name])
            if not row["bounds"]:
                raise TypeError("it has no bounds")
        except (KeyError, TypeError) as error:
            raise UsageError(f"this {FORMAT} document is damaged: {error}") from None
        return cls(**row)


def certify(
    graph: Graph,
    schedule: Schedule,
    budget: int | None = None,
    cost: Cost | None = None,
    *,
    effort: int = EFFORT,
) -> Certificate:
    """Simulate ``schedule`` and bound what any other could do within ``budget`` bytes.

    Without a budget that of the schedule counts, or, if it has none, its own peak: then the
    question is whether the same peak could be had for less. ``cost`` is what was minimised, FLOPs
    by default. ``effort`` is that of the linear program among the bounds, which no clock stops.
    Raises ScheduleError for a schedule that doesn't simulate.
    """
    price = cost or flops(graph)
    timeline = simulate(graph, schedule)
    asked = budget if budget is not None else schedule.budget
    limit = timeline.peak if asked is None else asked
    spent = price.recompute(timeline.counts)
    floor = budget_floor(graph, timeline.peak) if spent else memory_floor(graph)
    proof = schedule.proof
    # A planner's proof is for its own graph and cost, and for no larger budget than it had.
    for_this = schedule.graph == graph.digest and schedule.budget is not None
    if proof is not None and not (
        for_this and proof.unit == price.unit and limit <= (schedule.budget or 0)
    ):
        proof = None
    known = spent if timeline.peak <= limit else None
    given = None
    if proof is not None and not proof.assumptions:  # it holds for every schedule
        given = Bound(proof.name or schedule.planner, proof.bound, proof.solver)
        proof = None
    return Certificate(
        planner=schedule.planner or "hand",
        peak=timeline.peak,
        budget=limit,
        floor=floor.nbytes,
        floor_instruction=floor.instruction,
        unit=price.unit,
        recompute=spent,
        forward=price.forward(graph),
        backward=price.backward(),
        bounds=tuple(lower_bounds(graph, limit, price, effort=effort, known=known, given=given)),
        class_bound=None if proof is None else proof.bound,
        class_assumptions=() if proof is None else proof.assumptions,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def _points(share: float) -> str:
    points = 100 * share
    return f"{points:.1g}" if 0 < points < 0.1 else f"{points:.1f}"
