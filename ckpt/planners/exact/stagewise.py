"""The class of schedules that integer programs choose from: what is kept from stage to stage.

A stage is some Computes, in the order of the program and each node at most once, followed by some
Backwards. The stages divide the Backwards, which have one order, so a schedule of this class is
told by one set of nodes a stage: those that are live when it begins. All else follows: a stage
computes what its Backwards read, or the next stage begins with, and isn't live; and a value is
freed at its last use.

With one stage for each Backward this is the class of Checkmate (Jain et al. 2020, §4), less the
stages that recompute during the forward: those are added by ``forward_stages``. With fewer stages
it is a coarser class, of the same real schedules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ckpt.graph import Graph
from ckpt.planners.base.memory import Memory, memory_of
from ckpt.schedule import Backward, Compute, Free, Instruction


@dataclass(frozen=True)
class Stage:
    """What one stage may compute, may begin with, and must have live for its Backwards."""

    backwards: range
    """Which Backwards end it, as positions in ``graph.backward_order``."""
    computable: tuple[int, ...]
    keepable: frozenset[int]
    residuals: frozenset[int]
    """What its Backwards read; of the last stage, the outputs. Inputs aside."""


@dataclass(frozen=True)
class Stagewise:
    """The stages of a graph; the last has no Backward, and ends with the outputs live."""

    graph: Graph
    stages: tuple[Stage, ...]
    forward_stages: int
    """How many stages it takes to the first Backward."""

    @cached_property
    def memory(self) -> Memory:
        return memory_of(self.graph)

    @property
    def size(self) -> int:
        """How many (stage, node) pairs there are to decide."""
        return sum(len(stage.computable) for stage in self.stages)

    @property
    def assumptions(self) -> list[str]:
        """In words, what the schedules of this class have in common beyond the grammar."""
        backwards = len(self.graph.backward_order)
        stages = sum(1 for stage in self.stages if stage.backwards)
        words = ["computes between two Backwards go in the order of the program, each at most once"]
        if stages < backwards:
            words.append(f"values are recomputed only at {stages} of the {backwards} Backwards")
        if self.forward_stages == 1:
            words.append("nothing is recomputed before the first Backward")
        words.append("the forward computes the outputs, and they are kept")
        return words

    def all_kept(self) -> list[frozenset[int]]:
        """Nothing that is still useful is dropped: no recompute."""
        return [stage.keepable for stage in self.stages]

    def none_kept(self) -> list[frozenset[int]]:
        """Only what can't be recomputed is kept."""
        return [frozenset()] * len(self.stages)

    def instructions(self, kept: Sequence[Collection[int]]) -> list[Instruction]:
        """The schedule that begins stage t with ``kept[t]``, and frees each value at its last use.

        What can't be recomputed (captured arrays, and outputs by the rule of this class) is kept
        anyway, and so is the owner of a view: it costs no bytes, and a second Compute would make a
        second buffer.
        """
        graph = self.graph
        order = graph.backward_order
        events: list[Compute | Backward] = []
        live: set[int] = set()
        begun: set[int] = set()
        for t, stage in enumerate(self.stages):
            after: set[int] = set()
            if t + 1 < len(self.stages):
                after = set(kept[t + 1]) & self.stages[t + 1].keepable
                pinned = self.stages[t + 1].keepable & begun
                after.update(i for i in pinned if self._once(i))
                if t + 1 >= self.forward_stages:
                    after.update(self.stages[-1].residuals)
                after.update(i for i in self._owners(after) if not graph[i].resident)
            computes = closure(graph, stage.residuals | after, live)
            # A captured array, and any output, that this stage is the first to compute stays.
            begun.update(computes)
            if t + 1 < len(self.stages):
                keepable = self.stages[t + 1].keepable
                after.update(i for i in computes if self._once(i) and i in keepable)
            events.extend(map(Compute, sorted(computes)))
            events.extend(Backward(order[q]) for q in stage.backwards)
            live = (live | computes) & after
        return with_frees(graph, events)

    def _once(self, node: int) -> bool:
        return self.graph[node].captured or node in self.graph.outputs

    def _owners(self, nodes: Iterable[int]) -> list[int]:
        return [self.graph.owners[i] for i in nodes]


def stagewise(
    graph: Graph, groups: Sequence[range] | None = None, *, forward_stages: int = 1
) -> Stagewise:
    """The stages that end with ``groups`` of Backwards (None: each Backward is one).

    ``forward_stages`` > 1 lets the forward, cut there into equal parts, recompute what an earlier
    part has freed.
    """
    groups = groups or divide(graph, len(graph.backward_order))
    needed = [i for i in sorted(graph.needed) if not graph[i].resident]
    outputs = frozenset(i for i in graph.outputs if not graph[i].resident)
    # An output that is a view keeps the buffer of its owner.
    owners = frozenset(graph.owners[i] for i in outputs)
    lasting = outputs | {i for i in owners if not graph[i].resident}

    read = [frozenset(read_by(graph, group)) for group in groups]
    # What the stages from this one on may still have a use for, outputs aside; last first.
    useful: list[frozenset[int]] = [frozenset()]
    for residuals in reversed(read):
        useful.append(useful[-1] | closure(graph, residuals, set()))
    useful.reverse()

    found = []
    computed: set[int] = set()
    for part in range(1, forward_stages):
        front = needed[: part * len(needed) // forward_stages]
        found.append(Stage(range(0), tuple(front), _keepable(graph, computed), frozenset()))
        computed.update(front)
    for t, group in enumerate(groups):
        keepable = _keepable(graph, computed & (useful[t] | lasting) if t else computed)
        computable = needed if t == 0 else [i for i in needed if i in useful[t]]
        if t:
            computable = [i for i in computable if i not in outputs]
        found.append(Stage(group, tuple(computable), keepable, read[t]))
        computed.update(computable)
    found.append(Stage(range(0), (), _keepable(graph, lasting), outputs))
    return Stagewise(graph, tuple(found), forward_stages)


def ladder(graph: Graph, max_size: int, forward_stages: int = 1) -> list[Stagewise]:
    """Ever finer stages: about 8, 16, 32, …, those of `join`, and for a small graph each Backward.

    In few stages a plan is found soon, and near the best; in many it is the best, found late or not
    at all. None but the first has more than ``max_size`` (stage, node) pairs, nor the last, where
    proofs are hardest, more than an eighth of that.
    """
    joined = join(graph)
    choices = []
    stages = 8
    while stages < len(joined):
        choices.append(divide(graph, stages))
        stages *= 2
    rungs = [stagewise(graph, g, forward_stages=forward_stages) for g in (*choices, joined)]
    rungs = rungs[:1] + [space for space in rungs[1:] if space.size <= max_size]
    apart = stagewise(graph, forward_stages=forward_stages)
    if len(apart.stages) > len(rungs[-1].stages) and apart.size * 8 <= max_size:
        rungs.append(apart)
    return rungs


def with_frees(graph: Graph, events: Sequence[Compute | Backward]) -> list[Instruction]:
    """``events`` without Computes that nothing reads, each value freed right after its last use."""
    wanted = {i for i in graph.outputs if not graph[i].resident}
    reverse: list[Instruction] = []
    for event in reversed(events):
        node = graph[event.node]
        if isinstance(event, Compute):
            if event.node not in wanted:
                continue
            wanted.discard(event.node)
            reads = node.deps
        else:
            reads = node.residuals
        last_read = {i for i in reads if not graph[i].resident} - wanted
        reverse.extend(map(Free, sorted(last_read, reverse=True)))
        reverse.append(event)
        wanted |= last_read
    return reverse[::-1]


def divide(graph: Graph, stages: int) -> list[range]:
    """Runs of Backwards, at most ``stages`` of them, that read about equally many bytes."""
    order = graph.backward_order
    if stages >= len(order):
        return [range(q, q + 1) for q in range(len(order))] or [range(0)]
    weights = [1 + sum(graph[j].nbytes for j in graph[i].residuals) for i in order]
    total, done, start = sum(weights), 0, 0
    groups: list[range] = []
    for q, weight in enumerate(weights):
        done += weight
        if done * stages >= total * (len(groups) + 1) or q == len(order) - 1:
            groups.append(range(start, q + 1))
            start = q + 1
    return groups


def join(graph: Graph) -> list[range]:
    """Runs of Backwards in which none reads more than the first, and cotangents don't grow.

    To recompute between two of them is hardly ever worth while: what is needed after them can be
    computed after them, beside no more cotangents.
    """
    between = memory_of(graph).between
    groups = [range(0)]
    for q in range(len(graph.backward_order)):
        first = read_by(graph, groups[-1][:1])
        if groups[-1] and read_by(graph, [q]) <= first and between[q + 1] <= between[q]:
            groups[-1] = range(groups[-1].start, q + 1)
        else:
            groups.append(range(q, q + 1))
    return groups[1:] or groups


def read_by(graph: Graph, backwards: Iterable[int]) -> set[int]:
    """What some Backwards (positions in ``backward_order``) read, inputs aside."""
    order = graph.backward_order
    return {j for q in backwards for j in graph[order[q]].residuals if not graph[j].resident}


def closure(graph: Graph, wanted: Iterable[int], live: Collection[int]) -> set[int]:
    """``wanted``, unless live, and all that it takes, down to what is live or resident."""
    found = set(wanted).difference(live)
    stack = list(found)
    while stack:
        for dep in graph[stack.pop()].deps:
            if dep not in found and dep not in live and not graph[dep].resident:
                found.add(dep)
                stack.append(dep)
    return found


def _keepable(graph: Graph, nodes: Iterable[int]) -> frozenset[int]:
    """``nodes`` without the views that cost nothing to make again: their owner is enough."""
    return frozenset(i for i in nodes if i in graph.outputs or not is_free_view(graph, i))


def is_free_view(graph: Graph, node: int) -> bool:
    """A view of its only dep that costs no FLOPs and no workspace."""
    row = graph[node]
    return row.alias_of is not None and row.flops == row.workspace == 0 and len(row.deps) == 1
