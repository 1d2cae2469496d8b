"""The waist, 3 of 3: what happened, instruction by instruction.

`simulate` and `execute` both make Timelines, with the same columns, so that what was predicted and
what was measured are compared like with like. Reports see a Graph and its Timelines.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from ckpt.errors import UsageError
from ckpt.graph import Graph
from ckpt.reading import check_format, checked
from ckpt.schedule import Backward, Compute, Instruction, Schedule

FORMAT = "ckpt-timeline"
VERSION = 2

FORWARD, RECOMPUTE, BACKWARD, FREE = range(4)
PHASES = ("forward", "recompute", "backward", "free")
KINDS = ("activations", "captured", "states", "cotangents", "gradients")
"""Of buffers. States are those of random generators, remembered for a recomputation."""
COLUMNS = (*KINDS, "live", "workspace", "high", "scratch", "flops", "phase")


class Instant(NamedTuple):
    """One instruction and the bytes live after it.

    ``live`` are all those that count in the peak; ``high`` is the most that they came to while the
    instruction ran, and ``workspace`` the part of that which it alone needed. ``scratch`` is what
    libraries allocated out of sight, and counts nowhere.
    """

    instruction: Instruction
    activations: int
    captured: int
    states: int
    cotangents: int
    gradients: int
    live: int
    workspace: int
    high: int
    scratch: int
    flops: int
    phase: str


class Buffer(NamedTuple):
    """Bytes with an owner, a birth and a death."""

    whose: int | None
    """The node whose value, cotangent or gradient it is; None: nobody's."""
    kind: str
    """One of KINDS."""
    nbytes: int
    born: int
    """The instruction that made it."""
    died: int
    """The instruction that let go of it; as many as there are: it is live at the end."""


class Buffers(Sequence[Buffer]):
    """Buffers as parallel columns: those of the forward as they were born, then the backward's."""

    def __init__(
        self,
        whose: Sequence[int | None] = (),
        kinds: Sequence[str] = (),
        nbytes: Sequence[int] = (),
        born: Sequence[int] = (),
        died: Sequence[int] = (),
    ) -> None:
        self.columns = whose, kinds, nbytes, born, died
        self.born, self.died = born, died

    def __len__(self) -> int:
        return len(self.born)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[n] for n in range(*index.indices(len(self)))]
        return Buffer(*(column[index] for column in self.columns))

    def __iter__(self) -> Iterator[Buffer]:
        return map(Buffer, *self.columns)

    def held(self, position: int) -> list[Buffer]:
        """Those that are there while instruction ``position`` runs: which it reads, makes, frees.

        O(log of all + those held).
        """
        moments, snapshots = self._snapshots
        k = bisect_right(moments, position) - 1
        start, live = (moments[k], snapshots[k]) if k >= 0 else (0, [])
        order, births = self._births
        since = order[bisect_left(births, start) : bisect_right(births, position)]
        return [self[n] for n in (*live, *since) if self.died[n] >= position]

    @cached_property
    def _births(self) -> tuple[list[int], list[int]]:
        """Who was born, in turn, and when."""
        order = sorted(range(len(self)), key=self.born.__getitem__)
        return order, [self.born[n] for n in order]

    @cached_property
    def _snapshots(self) -> tuple[list[int], list[list[int]]]:
        """Moments, and who was live just before each. There is a new one once half as many were
        born and have died since as were live: so all of them take no more room than the buffers."""
        moments: list[int] = []
        snapshots: list[list[int]] = []
        live: list[int] = []
        order, births = self._births
        deaths = sorted(self.died)
        born = dead = 0
        for moment in sorted({*births, *(died + 1 for died in deaths)}):
            now, gone = bisect_left(births, moment), bisect_left(deaths, moment)
            if 2 * (now - born + gone - dead) >= len(live) + 32:
                live = [n for n in (*live, *order[born:now]) if self.died[n] >= moment]
                born, dead = now, gone
                moments.append(moment)
                snapshots.append(live)
        return moments, snapshots


@dataclass(frozen=True, eq=False)
class Timeline:
    """Live bytes by kind, and FLOPs by phase, of a schedule; one row an instruction.

    The columns are parallel sequences of ints. ``resident`` (inputs and parameters) and
    ``gradients_beside`` are constants that the whole peak includes and the peak does not.
    """

    schedule: Schedule
    columns: Mapping[str, Sequence[int]]
    counts: Sequence[int]
    """How often each node was computed."""
    buffers: Buffers = field(default_factory=Buffers)
    """Every buffer there was; of a simulation only."""
    takeovers: Mapping[int, int] = field(default_factory=dict)
    """Instruction -> the value whose buffer it took over; of a simulation only."""
    resident: int = 0
    gradients_beside: int = 0
    source: str = "simulate"
    """``simulate`` or ``execute``."""
    measured: dict[str, Any] = field(default_factory=dict)
    """What only a run can know: seconds, and which witness saw its highs."""

    def __len__(self) -> int:
        return len(self.schedule)

    def __iter__(self) -> Iterator[Instant]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> Instant:
        row: list[Any] = [self.columns[name][index] for name in COLUMNS]
        row[-1] = PHASES[row[-1]]
        return Instant(self.schedule.instructions[index], *row)

    @cached_property
    def peak(self) -> int:
        """Most bytes live at once."""
        return max(self.columns["high"], default=0)

    @cached_property
    def peak_with_scratch(self) -> int:
        """Most bytes that a process holds for it at once: what libraries allocate included."""
        return max(
            map(sum, zip(self.columns["high"], self.columns["scratch"], strict=True)), default=0
        )

    @cached_property
    def peak_position(self) -> int:
        """The instruction during which the peak is first reached."""
        return self.columns["high"].index(self.peak) if len(self) else 0

    @property
    def whole_peak(self) -> int:
        """The peak, with inputs, parameters and the gradients that exist beforehand."""
        return self.peak + self.resident + self.gradients_beside

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

    @cached_property
    def backwards(self) -> Sequence[int]:
        """The instruction that ran each step of the backward."""
        return [p for p, i in enumerate(self.schedule.instructions) if isinstance(i, Backward)]

    def same_live_bytes(self, other: Timeline) -> int | None:
        """The first instruction after which the live bytes of any kind differ, or None."""
        for position in range(max(len(self), len(other))):
            if position >= min(len(self), len(other)):
                return position
            for kind in KINDS:
                if self.columns[kind][position] != other.columns[kind][position]:
                    return position
        return None

    # -- JSON --------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Raise ValueError unless the columns are those of the schedule."""
        n = len(self)
        if {len(column) for column in self.columns.values()} != {n}:
            raise ValueError(f"its columns don't have {n} rows, one an instruction")
        if any(not 0 <= phase < len(PHASES) for phase in self.columns["phase"]):
            raise ValueError("a phase that there isn't")
        if {len(column) for column in self.buffers.columns} - {len(self.buffers)}:
            raise ValueError("the columns of its buffers differ in length")
        for whose, kind, nbytes, born, died in self.buffers:
            checked("whose", "int | None", whose)
            for number in (nbytes, born, died):
                checked("buffer", "int", number)
            if kind not in KINDS or not 0 <= born <= died <= n:
                raise ValueError(f"a buffer of kind {kind!r} from {born} to {died}")
        computed = [i.node for i in self.schedule if isinstance(i, Compute)]
        if max(computed, default=-1) >= len(self.counts):
            raise ValueError("its counts are of fewer nodes than are computed")

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "source": self.source,
            "schedule": self.schedule.to_json(),
            "columns": {name: list(column) for name, column in self.columns.items()},
            "counts": list(self.counts),
            "buffers": [list(column) for column in self.buffers.columns],
            "takeovers": [list(pair) for pair in self.takeovers.items()],
            "resident_nbytes": self.resident,
            "gradient_nbytes": self.gradients_beside,
            "measured": self.measured,
        }

    @classmethod
    def from_json(cls, data: Any) -> Timeline:
        """Read what `to_json` wrote; UsageError for anything else."""
        check_format(data, FORMAT, VERSION, UsageError)
        try:
            found = cls(
                schedule=Schedule.from_json(data["schedule"]),
                columns={name: array("q", data["columns"][name]) for name in COLUMNS},
                counts=array("q", data["counts"]),
                buffers=Buffers(*data["buffers"]),
                takeovers={
                    checked("takeover", "int", at): checked("takeover", "int", value)
                    for at, value in data["takeovers"]
                },
                resident=checked("resident_nbytes", "int", data["resident_nbytes"]),
                gradients_beside=checked("gradient_nbytes", "int", data["gradient_nbytes"]),
                source=checked("source", "str", data["source"]),
                measured=checked("measured", "dict", data["measured"]),
            )
            found._check()
            return found
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"this {FORMAT} document is damaged: {error!r}") from None


class Holding(NamedTuple):
    """One buffer that is live at some moment: whose, of which kind, and who still reads it."""

    whose: int | None
    kind: str
    nbytes: int
    reader: int | None
    """The step of the backward that reads it next, if any."""


def holdings(graph: Graph, timeline: Timeline, position: int) -> list[Holding]:
    """What is there while instruction ``position`` of a simulation runs, largest first.

    One row a buffer, under the name of its owner. Workspace is nobody's, and is not listed; nor are
    gradients that exist beforehand, nor buffers of no bytes that nothing reads. What the
    instruction writes over counts once, as what it makes.
    """
    done = bisect_left(timeline.backwards, position)
    buffers = [
        buffer
        for buffer in timeline.buffers.held(position)
        if buffer.kind != KINDS[-1] or graph.counts_gradients
    ]
    over = 0
    if timeline.columns["phase"][position] != FREE:
        over = sum(buffer.nbytes for buffer in buffers) - timeline.columns["high"][position]
    found = []
    for buffer in sorted(buffers, key=lambda buffer: -buffer.nbytes):
        if over > 0 and buffer.died == position and buffer.born < position:
            written = min(over, buffer.nbytes)
            over -= written
            buffer = buffer._replace(nbytes=buffer.nbytes - written)
            if not buffer.nbytes:
                continue
        reader = None
        if buffer.kind in KINDS[:2] and buffer.whose is not None:
            reader = next_reader(graph, buffer.whose, done)
        if not buffer.nbytes and reader is None:
            continue
        found.append(Holding(buffer.whose, buffer.kind, buffer.nbytes, reader))
    return sorted(found, key=lambda h: (-h.nbytes, -1 if h.whose is None else h.whose))


def next_reader(graph: Graph, owner: int, done: int) -> int | None:
    """The first step, once ``done`` are, that reads the owner of a buffer or a view of it."""
    ahead: list[int] = []
    for value in graph.sharers[owner]:
        readers = graph.step_readers[value]
        k = bisect_left(readers, done)
        ahead += readers[k : k + 1]
    return min(ahead, default=None)
