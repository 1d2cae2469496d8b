"""The waist, 2 of 3: the order in which values are computed, freed and differentiated.

Three instructions. Recomputation is not one of them: it is *observed*, as a second Compute, so a
schedule can't lie about itself. What a schedule may say is defined by `ckpt.simulate`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, assert_never

from ckpt.errors import ScheduleError
from ckpt.graph import Graph
from ckpt.reading import check_format, checked
from ckpt.text import paragraph

FORMAT = "ckpt-schedule"
VERSION = 2


@dataclass(frozen=True, slots=True)
class Compute:
    """Compute node ``node`` from its deps, all live; a second time is a recomputation."""

    node: int


@dataclass(frozen=True, slots=True)
class Free:
    """Let go of the value of node ``node``; its buffer goes with the last view of it."""

    node: int


@dataclass(frozen=True, slots=True)
class Backward:
    """Run step ``step`` of the backward, with all that it reads live."""

    step: int


Instruction = Compute | Free | Backward
"""Whoever handles instructions handles all of them, and ends with `assert_never`."""

_KINDS: dict[str, type[Compute] | type[Free] | type[Backward]] = {
    "compute": Compute,
    "free": Free,
    "backward": Backward,
}
LONGEST_NUMBER = 18
"""Digits: it fits into 64 bits."""


def spell(instruction: Instruction) -> str:
    """``compute 7``; `parse` reads it back."""
    match instruction:
        case Compute(node):
            return f"compute {node}"
        case Free(node):
            return f"free {node}"
        case Backward(step):
            return f"backward {step}"
        case _:
            assert_never(instruction)


def parse(text: str) -> Instruction:
    """The instruction that `spell` wrote; ScheduleError for any other text."""
    word, _, number = text.partition(" ") if isinstance(text, str) else ("", "", "")
    kind = _KINDS.get(word)
    if kind is None or not number.isdecimal() or len(number) > LONGEST_NUMBER:
        raise ScheduleError(
            f"{text!r} is no instruction; write 'compute N', 'free N' or 'backward N'"
        )
    return kind(int(number))


def describe_instruction(instruction: Instruction, graph: Graph) -> str:
    """``compute 7 (64x256 float32, 64 KiB, output of tanh, model.py:7)``."""
    match instruction:
        case Compute(node) | Free(node):
            return f"{spell(instruction)} ({graph.describe(node)})"
        case Backward(step):
            return f"backward {step} ({graph.describe_step(step).removeprefix('backward ')})"
        case _:
            assert_never(instruction)


@dataclass(frozen=True)
class Proof:
    """No schedule of a class, told by ``assumptions``, recomputes for less than ``bound``.

    Without assumptions that is so of every schedule within the budget.
    """

    bound: int
    unit: str
    """Of the cost that was planned: ``flops``, ``bytes``, ``nanoseconds``."""
    assumptions: tuple[str, ...] = ()
    name: str = ""
    """What proves it, where that isn't the planner's own class."""
    solver: str = ""


@dataclass(frozen=True)
class Schedule:
    """Instructions for the graph whose ``digest`` is ``graph``: who made them, for which budget."""

    instructions: tuple[Instruction, ...]
    graph: str = ""
    planner: str = ""
    budget: int | None = None
    proof: Proof | None = None
    """What the planner proved of schedules of its own class."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the planner tells people: its options, iterations used. JSON values; nothing decides by
    them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "instructions", tuple(self.instructions))

    def __len__(self) -> int:
        return len(self.instructions)

    def __iter__(self) -> Iterator[Instruction]:
        return iter(self.instructions)

    def to_text(self, graph: Graph | None = None) -> str:
        """One line an instruction, with ``graph`` ``compute 3  # tanh``; `from_text` reads it."""
        lines = []
        for instruction in self.instructions:
            line = spell(instruction)
            if graph is not None:
                match instruction:
                    case Compute(node) | Free(node):
                        line += f"  # {graph[node].name}"
                    case Backward(step):
                        line += f"  # {graph.steps[step].label}"
                    case _:
                        assert_never(instruction)
            lines.append(line)
        return paragraph(lines) + "\n"

    @classmethod
    def from_text(cls, text: str) -> Schedule:
        """Read `to_text`; blank lines and ``#`` comments are passed over."""
        found = []
        for number, raw in enumerate(text.splitlines(), 1):
            words = raw.partition("#")[0].split()
            if words:
                try:
                    found.append(parse(" ".join(words)))
                except ScheduleError as error:
                    raise ScheduleError(f"line {number}: {error}") from None
        return cls(tuple(found))

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "graph": self.graph,
            "planner": self.planner,
            "budget_nbytes": self.budget,
            "proof": None if self.proof is None else asdict(self.proof),
            "notes": self.notes,
            "instructions": [spell(instruction) for instruction in self.instructions],
        }

    @classmethod
    def from_json(cls, data: Any) -> Schedule:
        """Read what `to_json` wrote; ScheduleError for anything else, naming what is wrong."""
        check_format(data, FORMAT, VERSION, ScheduleError)
        try:
            proof = data["proof"]
            if proof is not None:
                assumptions = tuple(checked("assumption", "str", a) for a in proof["assumptions"])
                unit = checked("unit", "str", proof["unit"])
                name, solver = (checked(k, "str", proof.get(k, "")) for k in ("name", "solver"))
                bound = checked("bound", "int", proof["bound"])
                proof = Proof(bound, unit, assumptions, name, solver)
            return cls(
                instructions=tuple(map(parse, data["instructions"])),
                graph=checked("graph", "str", data["graph"]),
                planner=checked("planner", "str", data["planner"]),
                budget=checked("budget_nbytes", "int | None", data["budget_nbytes"]),
                proof=proof,
                notes=checked("notes", "dict", data["notes"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ScheduleError):
                raise
            raise ScheduleError(f"this {FORMAT} document is damaged: {error!r}") from None
