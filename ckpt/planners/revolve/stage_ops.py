"""What a chain planner says, stage by stage, and how that becomes instructions.

Four operations on stages (in rotor's letters: F_none, F_ck, F_all, B):

- ``ADVANCE k``: compute what crosses the next cut, and let the boundary before stage k go.
- ``KEEP k``: the same, but the boundary before stage k stays: a snapshot to restart from.
- ``TAPE k``: the same, and of the stage's own values those in ``kept`` stay too (None: its full
  tape), for a Backward that comes only after the stages behind it have had theirs.
- ``BACK k``: compute what the stage's Backwards read and isn't there - after a TAPE what that left
  out, otherwise all of it from the boundary - then perform them, last first, and let go of the
  boundary and the tape.

A run begins with the boundary before stage 0 (nothing). Each stage has one BACK, in descending
order; every operation but the first to reach a stage finds that stage's boundary where the
operations before left it. Permanent values (captured arrays, outputs) are computed when first
needed and stay until their last reader.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from ckpt.planners.base import clock
from ckpt.planners.base.emit import Emitter
from ckpt.planners.base.stages import Stages
from ckpt.schedule import Schedule

ADVANCE, KEEP, TAPE, BACK = range(4)


class StageOp(NamedTuple):
    """One operation on one stage; ``kept`` is read by TAPE only."""

    kind: int
    stage: int
    kept: tuple[int, ...] | None = None


def emit(
    stages: Stages,
    ops: Iterable[StageOp],
    planner: str = "",
    budget: int | None = None,
    notes: dict[str, Any] | None = None,
) -> Schedule:
    """The schedule that performs ``ops``, each value freed at its last read.

    Linear in the instructions made and the boundaries passed. The result always simulates if each
    operation finds its stage's boundary.
    """
    emitter = StageEmitter(stages)
    for op in ops:
        clock.check()
        emitter.perform(op)
    return emitter.schedule(planner, budget, notes)


class StageEmitter(Emitter):
    """An `Emitter` that understands stage operations."""

    def __init__(self, stages: Stages) -> None:
        super().__init__(stages.graph)
        self.stages = stages
        self._snapshots = bytearray(len(stages) + 1)
        self._tapes: dict[int, tuple[int, ...]] = {}
        self._needs = [
            tuple(dict.fromkeys(r for k in s.backwards for r in self.graph.steps[k].reads))
            for s in stages.stages
        ]

    def perform(self, op: StageOp) -> None:
        kind, k, kept = op
        stage = self.stages[k]
        if kind == BACK:
            computed = self.compute((*self._needs[k], *stage.lasting))
            for step in stage.backwards:
                self.backward(step)
            self.settle(computed)
            self.drop(self._tapes.pop(k, ()))
            self._let_go(k + 1)
            self._let_go(k)
            return
        tape: tuple[int, ...] = ()
        if kind == TAPE:
            tape = (
                stage.tape if kept is None else self.stages.sharing(kept, stage.start, stage.stop)
            )
            self.hold(tape)
            self._tapes[k] = tape
        if k + 1 < len(self.stages) and not self._snapshots[k + 1]:
            self._snapshots[k + 1] = 1
            self.hold(self.stages[k + 1].held)
        targets = self.stages.boundary(k + 1)
        self.settle(self.compute((*targets, *(kept or tape), *stage.lasting)))
        if kind == ADVANCE:
            self._let_go(k)

    def _let_go(self, k: int) -> None:
        if self._snapshots[k]:
            self._snapshots[k] = 0
            self.drop(self.stages[k].held)
