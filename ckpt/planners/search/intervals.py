"""A schedule without its Frees: what is computed and differentiated, in order, and so what is live.

A read binds to the latest Compute of its node before it, and a value is freed right after its last
read. So any order of Computes and Backwards is a schedule as long as every node is computed before
it is first read: to delete a recomputation keeps the earlier value alive until then, and to insert
one lets it go. Only the bytes can be wrong. That is the form in which schedules are improved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from ckpt.graph import Graph
from ckpt.planners.base.memory import memory_of
from ckpt.schedule import Backward, Compute, Free, Instruction, Schedule

Bytes = np.ndarray[tuple[int], np.dtype[np.int64]]
"""One figure an action."""

Action = tuple[bool, int]
"""(is it a Backward?, node)."""


@dataclass
class Buffer:
    """One buffer, from the Compute that makes it to the last read of its owner or of any view."""

    owner: int
    nbytes: int
    start: int
    end: int
    computes: list[int]
    """The actions that compute the owner, and views of it, ascending."""
    reads: list[int]
    """The actions that read one of them, with repeats."""


class Gap(NamedTuple):
    """A recomputed buffer, and what deleting its recomputation would take."""

    buffer: int
    deleted: frozenset[int]
    """The Computes that the earlier buffer makes needless."""
    saved: int
    """FLOPs of these, and of what was computed only for them."""
    start: int
    stop: int
    """The actions [start, stop) during which the earlier buffer would have to live on."""
    relief: list[tuple[int, int, int]]
    """What goes in turn: (start, stop, bytes) of buffers that live only for the recomputation."""


class Program:
    """A graph with the lists that every evaluation of a plan needs."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        nodes = graph.nodes
        self.memory = memory_of(graph)
        self.order = graph.backward_order
        self.alias_of = [node.alias_of for node in nodes]
        self.flops = [node.flops for node in nodes]
        self.workspace = [node.workspace for node in nodes]
        self.captured = [node.captured for node in nodes]
        resident = [node.resident for node in nodes]
        self.nbytes = [0 if resident[graph.owners[i]] else n.nbytes for i, n in enumerate(nodes)]
        self.deps = [[d for d in dict.fromkeys(n.deps) if not resident[d]] for n in nodes]
        self.residuals = [[r for r in dict.fromkeys(n.residuals) if not resident[r]] for n in nodes]
        self.outputs = [o for o in graph.outputs if not resident[o]]
        self.forward_flops = graph.forward_flops

    def actions_of(self, schedule: Schedule) -> list[Action]:
        return [(isinstance(s, Backward), s.node) for s in schedule if not isinstance(s, Free)]


class Plan:
    """Actions, without those that nothing reads, and what is live when. Positions index actions."""

    def __init__(self, program: Program, actions: list[Action]) -> None:
        self.program = program
        self.actions, self.bound = _bind(program, actions)
        self.cost = sum(program.flops[i] for backward, i in self.actions if not backward)

    @cached_property
    def buffers(self) -> list[Buffer]:
        """Every buffer there will be, in the order in which they are made."""
        return self._buffers[0]

    @cached_property
    def buffer_at(self) -> list[int]:
        """For each action, the index of the buffer that it computes (into), or -1."""
        return self._buffers[1]

    @cached_property
    def _buffers(self) -> tuple[list[Buffer], list[int]]:
        program, graph = self.program, self.program.graph
        buffers: list[Buffer] = []
        at = [-1] * len(self.actions)
        for t, (is_backward, i) in enumerate(self.actions):
            bound = self.bound[t]
            for made in bound:
                buffer = buffers[at[made]]
                buffer.end = t
                buffer.reads.append(t)
            if is_backward:
                continue
            base = program.alias_of[i]
            if base is None or graph.nodes[base].resident:
                at[t] = len(buffers)
                buffers.append(Buffer(graph.owners[i], program.nbytes[i], t, t, [t], []))
            else:
                at[t] = at[bound[program.deps[i].index(base)]]
                buffers[at[t]].computes.append(t)
        last = {i: t for t, (is_backward, i) in enumerate(self.actions) if not is_backward}
        for output in program.outputs:
            buffer = buffers[at[last[output]]]
            buffer.end = len(self.actions)
            buffer.reads.append(len(self.actions))
        return buffers, at

    @cached_property
    def high(self) -> Bytes:
        """Bytes at each action, as `simulate` counts them."""
        change = [0] * (len(self.actions) + 2)
        for buffer in self.buffers:
            change[buffer.start] += buffer.nbytes
            change[buffer.end + 1] -= buffer.nbytes
        held = np.fromiter(accumulate(change), np.int64, len(change))[: len(self.actions)]
        memory, workspace = self.program.memory, self.program.workspace
        beside, done = [], 0
        for is_backward, i in self.actions:
            beside.append(
                memory.during[done] if is_backward else memory.between[done] + workspace[i]
            )
            done += is_backward
        return held + np.array(beside, dtype=np.int64)

    @cached_property
    def peak(self) -> int:
        return int(self.high.max(initial=0))

    @property
    def key(self) -> tuple[int, int]:
        """What is minimised: FLOPs, then bytes."""
        return self.cost, self.peak

    def instructions(self) -> list[Instruction]:
        """The schedule: each value freed right after its last read."""
        last_read = list(range(len(self.actions)))
        for t, bound in enumerate(self.bound):
            for made in bound:
                last_read[made] = t
        freed: list[list[int]] = [[] for _ in self.actions]
        last = {i: t for t, (is_backward, i) in enumerate(self.actions) if not is_backward}
        outputs = {last[o] for o in self.program.outputs}
        steps: list[Instruction] = []
        for t, (is_backward, i) in enumerate(self.actions):
            if not is_backward and t not in outputs:
                freed[last_read[t]].append(i)
        for (is_backward, i), nodes in zip(self.actions, freed, strict=True):
            steps.append(Backward(i) if is_backward else Compute(i))
            steps += map(Free, nodes)
        return steps


def _bind(program: Program, actions: list[Action]) -> tuple[list[Action], list[list[int]]]:
    """Drop what nothing reads; for each action left, the actions that made what it reads."""
    wanted = set(program.outputs)
    kept = []
    for t in range(len(actions) - 1, -1, -1):
        is_backward, i = actions[t]
        if is_backward:
            wanted.update(program.residuals[i])
        elif i in wanted:
            wanted.discard(i)
            wanted.update(program.deps[i])
        else:
            continue
        kept.append(actions[t])
    kept.reverse()
    made = [-1] * len(program.deps)
    bound = []
    for t, (is_backward, i) in enumerate(kept):
        bound.append([made[d] for d in (program.residuals if is_backward else program.deps)[i]])
        if not is_backward:
            made[i] = t
    return kept, bound


def gaps(plan: Plan) -> Iterator[Gap]:
    """Every buffer of which there was an earlier one."""
    readers: list[int] = [0] * len(plan.actions)  # reads of each Compute's value
    for bound in plan.bound:
        for made in bound:
            readers[made] += 1
    earlier: dict[int, int] = {}
    for index, buffer in enumerate(plan.buffers):
        previous = earlier.get(buffer.owner)
        earlier[buffer.owner] = index
        if previous is None:
            continue
        held = plan.buffers[previous]
        there = {plan.actions[t][1] for t in held.computes if t < buffer.start}
        deleted = frozenset(t for t in buffer.computes if plan.actions[t][1] in there)
        if deleted:
            saved, relief = _saved(plan, deleted, readers)
            yield Gap(index, deleted, saved, held.end + 1, buffer.start, relief)


def _saved(
    plan: Plan, deleted: frozenset[int], readers: list[int]
) -> tuple[int, list[tuple[int, int, int]]]:
    """What goes with ``deleted``: FLOPs, theirs and of Computes that only they read; bytes."""
    total = 0
    relief = []
    queue = list(deleted)
    gone: dict[int, int] = {}  # reads that go
    while queue:
        t = queue.pop()
        total += plan.program.flops[plan.actions[t][1]]
        for made in plan.bound[t]:
            if made in deleted:
                continue
            gone[made] = gone.get(made, 0) + 1
            buffer = plan.buffers[plan.buffer_at[made]]
            if gone[made] == readers[made]:
                queue.append(made)
                if buffer.computes == [made]:
                    relief.append((buffer.start, buffer.end + 1, buffer.nbytes))
            elif buffer.end == t:
                moments = [*buffer.computes, *buffer.reads]
                before = max(moment for moment in moments if moment < t)
                relief.append((before + 1, t + 1, buffer.nbytes))
    return total, relief
