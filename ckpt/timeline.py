"""The waist, 3 of 3: what happened, instruction by instruction.

`simulate` and `execute` both make Timelines, with the same columns, so that what was predicted and
what was measured are compared like with like. Reports see only Timelines.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from ckpt.errors import UsageError
from ckpt.graph import check_format
from ckpt.schedule import Instruction, Schedule

FORMAT = "ckpt-timeline"
VERSION = 1

FORWARD, RECOMPUTE, BACKWARD, FREE = range(4)
PHASES = ("forward", "recompute", "backward", "free")
KINDS = ("activations", "captured", "cotangents", "gradients")
COLUMNS = (*KINDS, "workspace", "high", "flops", "phase")


class Step(NamedTuple):
    """One instruction and the bytes live after it.

    ``high`` is the most that activations, captured arrays, cotangents and workspace held together
    while it ran; ``workspace`` is the part of ``high`` that only this instruction needed.
    """

    instruction: Instruction
    activations: int
    captured: int
    cotangents: int
    gradients: int
    workspace: int
    high: int
    flops: int
    phase: str

    @property
    def live(self) -> int:
        """Bytes live after the instruction, gradients aside."""
        return self.activations + self.captured + self.cotangents


@dataclass(frozen=True, eq=False)
class Timeline:
    """Live bytes by kind, and FLOPs by phase, of a schedule; one row an instruction.

    The columns are parallel sequences of ints. ``resident`` (inputs and parameters) and
    ``gradients_total`` are constants that the whole peak includes and the peak does not.
    """

    schedule: Schedule
    columns: Mapping[str, Sequence[int]]
    counts: Sequence[int]
    """How often each node was computed."""
    resident: int = 0
    gradients_total: int = 0
    source: str = "simulate"
    """``simulate`` or ``execute``."""
    measured: dict[str, Any] = field(default_factory=dict)
    """What only a run can know: seconds, and per instruction the peak that tracemalloc saw."""

    def __len__(self) -> int:
        return len(self.schedule)

    def __iter__(self) -> Iterator[Step]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> Step:
        c = self.columns
        return Step(
            self.schedule.instructions[index],
            c["activations"][index],
            c["captured"][index],
            c["cotangents"][index],
            c["gradients"][index],
            c["workspace"][index],
            c["high"][index],
            c["flops"][index],
            PHASES[c["phase"][index]],
        )

    @cached_property
    def peak(self) -> int:
        """Most bytes live at once: activations, captured arrays, cotangents and workspace."""
        return max(self.columns["high"], default=0)

    @cached_property
    def peak_position(self) -> int:
        """The instruction during which the peak is first reached."""
        return self.columns["high"].index(self.peak) if len(self) else 0

    @property
    def whole_peak(self) -> int:
        """The peak, with inputs, parameters and parameter gradients."""
        return self.peak + self.resident + self.gradients_total

    @cached_property
    def flops_by_phase(self) -> dict[str, int]:
        totals = [0, 0, 0, 0]
        for phase, flops in zip(self.columns["phase"], self.columns["flops"], strict=True):
            totals[phase] += flops
        return dict(zip(PHASES[:3], totals, strict=False))

    @property
    def forward_flops(self) -> int:
        return self.flops_by_phase["forward"]

    @property
    def recompute_flops(self) -> int:
        return self.flops_by_phase["recompute"]

    @property
    def backward_flops(self) -> int:
        return self.flops_by_phase["backward"]

    @property
    def step_flops(self) -> int:
        return sum(self.flops_by_phase.values())

    @property
    def overhead(self) -> float:
        """Recompute FLOPs over forward FLOPs."""
        return self.recompute_flops / self.forward_flops if self.forward_flops else 0.0

    @property
    def recomputations(self) -> int:
        """How many Computes were second or later ones."""
        return sum(count - 1 for count in self.counts if count > 1)

    def same_live_bytes(self, other: Timeline) -> int | None:
        """The first instruction after which the live bytes of any kind differ, or None."""
        for position in range(max(len(self), len(other))):
            if position >= min(len(self), len(other)):
                return position
            for kind in KINDS:
                if self.columns[kind][position] != other.columns[kind][position]:
                    return position
        return None

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "source": self.source,
            "schedule": self.schedule.to_json(),
            "columns": {name: list(column) for name, column in self.columns.items()},
            "counts": list(self.counts),
            "resident_nbytes": self.resident,
            "gradient_nbytes": self.gradients_total,
            "measured": self.measured,
        }

    @classmethod
    def from_json(cls, data: Any) -> Timeline:
        """Read what `to_json` wrote; UsageError for anything else."""
        check_format(data, FORMAT, VERSION, UsageError)
        try:
            return cls(
                schedule=Schedule.from_json(data["schedule"]),
                columns={name: array("q", data["columns"][name]) for name in COLUMNS},
                counts=array("q", data["counts"]),
                resident=data["resident_nbytes"],
                gradients_total=data["gradient_nbytes"],
                source=data["source"],
                measured=data["measured"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"this {FORMAT} document is damaged: {error!r}") from None
