"""The waist, 2 of 3: the order in which values are computed, freed and differentiated.

Three instructions. Recomputation is not one of them: it is *observed*, as a second Compute, so a
schedule can't lie about itself. What a schedule may say is defined by `ckpt.simulate`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ckpt.errors import ScheduleError
from ckpt.graph import Graph, check_format

FORMAT = "ckpt-schedule"
VERSION = 1


class Compute(NamedTuple):
    """Compute node ``node`` from its deps, all live; a second time is a recomputation."""

    node: int


class Free(NamedTuple):
    """Let go of the value of node ``node``; its buffer goes with the last view of it."""

    node: int


class Backward(NamedTuple):
    """Read node ``node``'s cotangent and residuals; contribute to the cotangents of its deps."""

    node: int


Instruction = Compute | Free | Backward

_BY_WORD: dict[str, type[Compute] | type[Free] | type[Backward]] = {
    "compute": Compute,
    "free": Free,
    "backward": Backward,
}
_WORDS = {kind: word for word, kind in _BY_WORD.items()}
_LINE = re.compile(r"(\w+)\s+(\d+)\s*(?:#.*)?")


def describe_instruction(step: Instruction, graph: Graph) -> str:
    """``backward 7 (64x256 float32, 64 KiB, output of tanh, model.py:7)``."""
    return f"{_WORDS[type(step)]} {step.node} ({graph.describe(step.node)})"


@dataclass(frozen=True)
class Schedule:
    """Instructions for the graph whose ``digest`` is ``graph``: who made them, for which budget."""

    instructions: tuple[Instruction, ...]
    graph: str = ""
    planner: str = ""
    budget: int | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    """What the planner wants known: its options, iterations used, assumptions. JSON values."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "instructions", tuple(self.instructions))

    def __len__(self) -> int:
        return len(self.instructions)

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions)

    def to_text(self, names: Iterable[str] = ()) -> str:
        """One line an instruction, ``compute 3  # tanh``; `from_text` reads it back."""
        label = list(names)
        lines = []
        for step in self.instructions:
            line = f"{_WORDS[type(step)]} {step.node}"
            lines.append(f"{line}  # {label[step.node]}" if label else line)
        return "\n".join(lines) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Schedule:
        """Read `to_text`; blank lines and ``#`` comments are passed over."""
        steps = []
        for number, raw in enumerate(text.splitlines(), 1):
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            match = _LINE.fullmatch(line)
            if match is None or match[1] not in _BY_WORD:
                raise ScheduleError(
                    f"line {number}: {line!r} is no instruction; "
                    "write 'compute N', 'free N' or 'backward N'"
                )
            steps.append(_BY_WORD[match[1]](int(match[2])))
        return cls(tuple(steps))

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "graph": self.graph,
            "planner": self.planner,
            "budget_nbytes": self.budget,
            "notes": self.notes,
            "instructions": [f"{_WORDS[type(s)][0]}{s.node}" for s in self.instructions],
        }

    @classmethod
    def from_json(cls, data: Any) -> Schedule:
        """Read what `to_json` wrote; ScheduleError for anything else, naming what is wrong."""
        check_format(data, FORMAT, VERSION, ScheduleError)
        kinds = {word[0]: kind for word, kind in _BY_WORD.items()}
        try:
            return cls(
                instructions=tuple(kinds[s[0]](int(s[1:])) for s in data["instructions"]),
                graph=data["graph"],
                planner=data["planner"],
                budget=data["budget_nbytes"],
                notes=dict(data["notes"]),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ScheduleError(f"this {FORMAT} document is damaged: {error!r}") from None
