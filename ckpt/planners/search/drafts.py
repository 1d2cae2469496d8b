"""A schedule without its Frees: what is computed and differentiated, in order, and so what is live.

A read binds to the latest Compute of its node before it, and a value is freed right after its last
read. So any order of Computes and Backwards is a schedule as long as every node is computed before
it is first read: to delete a recomputation keeps the earlier value alive until then, and to insert
one lets it go. Only the bytes can be wrong. That is the form in which schedules are improved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple, assert_never

import numpy as np

from ckpt.graph import Graph, Overwrites
from ckpt.planners.base import clock
from ckpt.planners.base.cost import Cost
from ckpt.planners.base.emit import Action, free_early, needed_only
from ckpt.planners.base.reads import permanent
from ckpt.schedule import Backward, Compute, Free, Instruction, Schedule

DRAFTED = 10
"""The work of an action of a draft: all that is asked of it."""

Bytes = np.ndarray[tuple[int], np.dtype[np.int64]]
"""One figure an action."""


@dataclass
class Lifetime:
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
    """What these cost, and what was computed only for them."""
    start: int
    stop: int
    """The actions [start, stop) during which the earlier buffer would have to live on."""
    relief: list[tuple[int, int, int]]
    """What goes in turn: (start, stop, bytes) of buffers that live only for the recomputation."""


class Sheet:
    """A graph with the lists that every evaluation of a draft needs."""

    def __init__(self, graph: Graph, cost: Cost) -> None:
        self.graph = graph
        nodes = graph.nodes
        self.alias_of = [node.alias_of for node in nodes]
        self.costs = cost.nodes
        self.forward_cost = cost.forward(graph)
        self.lasting = permanent(graph)
        """What is never computed again."""
        self.call = [node.call for node in nodes]
        """Calls are never held: their results are, and are made with them."""
        self.workspace = [
            graph.making[i] if node.call else node.workspace for i, node in enumerate(nodes)
        ]
        self.nbytes = [
            0 if nodes[owner].resident or nodes[i].call else nodes[i].nbytes
            for i, owner in enumerate(graph.owners)
        ]
        self.deps = [self._owned(node.deps) for node in nodes]
        self.reads = [self._owned(step.reads) for step in graph.steps]
        self.outputs = self._owned(graph.outputs)

    def _owned(self, values: Sequence[int]) -> list[int]:
        """Without repeats and residents."""
        return [i for i in dict.fromkeys(values) if not self.graph[i].resident]

    @staticmethod
    def actions_of(schedule: Schedule) -> list[Action]:
        return [action for action in schedule if not isinstance(action, Free)]


class Draft:
    """Actions, without those that nothing reads, and what is live when. Positions index actions."""

    def __init__(self, sheet: Sheet, actions: list[Action]) -> None:
        self.sheet = sheet
        clock.spend(DRAFTED * len(actions))
        self.actions = needed_only(sheet.graph, actions)
        self.bound = _bind(sheet, self.actions)
        """For each action, the actions that made what it reads."""
        self.cost = sum(
            sheet.costs[action.node] for action in self.actions if isinstance(action, Compute)
        )

    @cached_property
    def buffers(self) -> list[Lifetime]:
        """Every buffer there will be, in the order in which they are made."""
        return self._buffers[0]

    @cached_property
    def buffer_at(self) -> list[int]:
        """For each action, the index of the buffer that it computes (into), or -1."""
        return self._buffers[1]

    @cached_property
    def last_computed(self) -> dict[int, int]:
        """For each value, its last Compute."""
        return {a.node: t for t, a in enumerate(self.actions) if isinstance(a, Compute)}

    @cached_property
    def _buffers(self) -> tuple[list[Lifetime], list[int]]:
        sheet, graph = self.sheet, self.sheet.graph
        buffers: list[Lifetime] = []
        at = [-1] * len(self.actions)
        for t, action in enumerate(self.actions):
            bound = self.bound[t]
            for made in bound:
                buffer = buffers[at[made]]
                buffer.end = t
                buffer.reads.append(t)
            if isinstance(action, Backward):
                continue
            i = action.node
            base = sheet.alias_of[i]
            if base is None or graph[base].resident:
                at[t] = len(buffers)
                buffers.append(Lifetime(graph.owners[i], sheet.nbytes[i], t, t, [t], []))
            else:
                at[t] = at[bound[sheet.deps[i].index(base)]]
                buffers[at[t]].computes.append(t)
        for output in sheet.outputs:
            buffer = buffers[at[self.last_computed[output]]]
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
        graph, workspace = self.sheet.graph, self.sheet.workspace
        beside, done = [], 0
        for t, action in enumerate(self.actions):
            match action:
                case Compute(i):
                    beside.append(graph.between[done] + workspace[i])
                    if overwrites := graph.nodes[i].overwrites:
                        beside[t] -= self._saved(t, overwrites, self.sheet.deps[i])
                case Backward(k):
                    beside.append(graph.steps[k].during)
                    if overwrites := graph.steps[k].overwrites:
                        beside[t] -= self._saved(t, overwrites, self.sheet.reads[k])
                    done += 1
                case _:
                    assert_never(action)
        return held + np.array(beside, dtype=np.int64)

    def _saved(self, t: int, overwrites: Overwrites, reads: list[int]) -> int:
        """What action ``t``, which reads these, saves by writing over a value that dies with it."""
        most = 0
        for value, saved in overwrites:
            if saved > most and value in reads:
                made = self.bound[t][reads.index(value)]
                sharing = self.buffers[self.buffer_at[made]].computes
                if self.last_read[made] == t and all(
                    self.last_read[other] < t for other in sharing if other != made
                ):
                    most = saved
        return most

    @cached_property
    def last_read(self) -> list[int]:
        """For each action that computes a value, the last that reads it; outputs stay to the end.

        A value of which nothing more is read is as if it were gone.
        """
        last = [-1] * len(self.actions)
        for t, bound in enumerate(self.bound):
            for made in bound:
                last[made] = t
        for output in self.sheet.outputs:
            last[self.last_computed[output]] = len(self.actions)
        return last

    @cached_property
    def peak(self) -> int:
        return int(self.high.max(initial=0))

    def node_at(self, t: int) -> int:
        """Which node the Compute at action ``t`` computes."""
        action = self.actions[t]
        assert isinstance(action, Compute)
        return action.node

    @property
    def key(self) -> tuple[int, int]:
        """What is minimised: cost, then bytes."""
        return self.cost, self.peak

    def instructions(self) -> tuple[Instruction, ...]:
        """The schedule: each value freed right after its last read."""
        return free_early(self.sheet.graph, self.actions)


def _bind(sheet: Sheet, actions: Sequence[Action]) -> list[list[int]]:
    """For each action, the actions that made what it reads."""
    made = [-1] * len(sheet.deps)
    bound = []
    for t, action in enumerate(actions):
        match action:
            case Backward(k):
                bound.append([made[d] for d in sheet.reads[k]])
            case Compute(i):
                bound.append([made[d] for d in sheet.deps[i]])
                made[i] = t
            case _:
                assert_never(action)
    return bound


def gaps(draft: Draft) -> Iterator[Gap]:
    """Every buffer of which there was an earlier one, calls aside."""
    readers: list[int] = [0] * len(draft.actions)  # reads of each Compute's value
    for bound in draft.bound:
        for made in bound:
            readers[made] += 1
    earlier: dict[int, int] = {}
    for index, buffer in enumerate(draft.buffers):
        previous = earlier.get(buffer.owner)
        earlier[buffer.owner] = index
        if previous is None or draft.sheet.call[buffer.owner]:
            continue
        held = draft.buffers[previous]
        there = {draft.node_at(t) for t in held.computes if t < buffer.start}
        deleted = frozenset(t for t in buffer.computes if draft.node_at(t) in there)
        if deleted:
            saved, relief = _saved(draft, deleted, readers)
            yield Gap(index, deleted, saved, held.end + 1, buffer.start, relief)


def _saved(
    draft: Draft, deleted: frozenset[int], readers: list[int]
) -> tuple[int, list[tuple[int, int, int]]]:
    """What goes with ``deleted``: cost, theirs and of Computes that only they read; bytes."""
    total = 0
    relief = []
    queue = list(deleted)
    gone: dict[int, int] = {}  # reads that go
    while queue:
        t = queue.pop()
        total += draft.sheet.costs[draft.node_at(t)]
        for made in draft.bound[t]:
            if made in deleted:
                continue
            gone[made] = gone.get(made, 0) + 1
            buffer = draft.buffers[draft.buffer_at[made]]
            if gone[made] == readers[made]:
                queue.append(made)
                if buffer.computes == [made]:
                    relief.append((buffer.start, buffer.end + 1, buffer.nbytes))
            elif buffer.end == t:
                moments = [*buffer.computes, *buffer.reads]
                before = max(moment for moment in moments if moment < t)
                relief.append((before + 1, t + 1, buffer.nbytes))
    return total, relief
