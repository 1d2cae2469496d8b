"""How far a schedule is from the best possible, in numbers and in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from ckpt.errors import UsageError
from ckpt.graph import Graph, check_format, checked
from ckpt.machine import simulate
from ckpt.planners.base.cost import Cost, flops, format_cost
from ckpt.planners.bounds.lower import lower_bounds
from ckpt.planners.bounds.simple import Bound, memory_floor
from ckpt.schedule import Schedule
from ckpt.text import paragraph
from ckpt.units import format_bytes

FORMAT = "ckpt-certificate"
VERSION = 2

ALWAYS = "every Backward runs once, in descending order, so that gradients keep their bits"


@dataclass(frozen=True)
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
            return (ALWAYS,)
        return (ALWAYS, *self.class_assumptions)

    def __str__(self) -> str:
        fits = "within" if self.within else "ABOVE"
        lines = [
            f"peak       {format_bytes(self.peak)}, {fits} the budget, {format_bytes(self.budget)}",
            f"floor      {format_bytes(self.floor)}: no schedule needs less; "
            f"set by {self.floor_instruction}",
            f"recompute  {self._amount(self.recompute)}" + self._overhead(),
            f"bound      {self._bound()}",
        ]
        if self.class_bound is not None:
            lines.append(
                f"           {self._amount(self.class_bound)} (proven by {self.planner}): "
                "no schedule of its class does"
            )
        gaps = [self.gap] if self.class_gap is None else [self.gap, self.class_gap]
        if self.optimal:
            lines.append("gap        none: optimal")
        else:
            lines.append(
                f"gap        at most {_percent(min(gaps))} of the recompute could be saved"
            )
        first, *others = self.assumptions
        lines += [f"assuming   {first}", *(f"           {other}" for other in others)]
        return paragraph(lines)

    def _bound(self) -> str:
        name, cost = self.bound.name, self.bound.cost
        if cost is None:
            return f"no schedule fits the budget ({name})"
        return f"{self._amount(cost)} ({name}): no schedule within the budget recomputes less"

    def _amount(self, cost: int) -> str:
        return format_cost(self.unit, cost)

    def _overhead(self) -> str:
        if not self.forward:
            return ""
        return f", {_percent(self.recompute / self.forward)} of the forward"

    def to_json(self) -> dict[str, Any]:
        """What is stored, and what follows from it: bound, gap, optimal, assumptions."""
        return {
            "format": FORMAT,
            "version": VERSION,
            **asdict(self),
            "bounds": [bound.to_json() for bound in self.bounds],
            "gap": self.gap,
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
    time_limit: float = 10.0,
) -> Certificate:
    """Simulate ``schedule`` and bound what any other could do within ``budget`` bytes.

    Without a budget that of the schedule counts, or, if it has none, its own peak: then the
    question is whether the same peak could be had for less. ``cost`` is what was minimised, FLOPs
    by default. The linear program among the bounds may take ``time_limit`` seconds, and is left out
    without SciPy. Raises ScheduleError for a schedule that doesn't simulate.
    """
    price = cost or flops(graph)
    timeline = simulate(graph, schedule)
    asked = budget if budget is not None else schedule.budget
    limit = timeline.peak if asked is None else asked
    floor = memory_floor(graph)
    proof = schedule.proof
    # A planner's proof is for its own graph and cost, and for no larger budget than it had.
    for_this = schedule.graph == graph.digest and schedule.budget is not None
    if proof is not None and not (
        for_this and proof.unit == price.unit and limit <= (schedule.budget or 0)
    ):
        proof = None
    return Certificate(
        planner=schedule.planner or "hand",
        peak=timeline.peak,
        budget=limit,
        floor=floor.nbytes,
        floor_instruction=floor.instruction,
        unit=price.unit,
        recompute=price.recompute(timeline.counts),
        forward=price.forward(graph),
        bounds=tuple(lower_bounds(graph, limit, price, time_limit=time_limit)),
        class_bound=None if proof is None else proof.bound,
        class_assumptions=() if proof is None else proof.assumptions,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"
