"""The class of schedules that integer programs choose from: what is kept from epoch to epoch.

An epoch is some Computes, in the order of the program and each node at most once, followed by some
Backwards. The epochs divide the Backwards, which have one order, so a schedule of this class is
told by one set of nodes an epoch: those that are live when it begins. All else follows: an epoch
computes what its Backwards read, or the next epoch begins with, and isn't live; and a value is
freed at its last use.

With one epoch for each Backward this is the class of Checkmate (Jain et al. 2020, §4), less the
epochs that recompute during the forward: those are added by ``forward_epochs``. With fewer epochs
it is a coarser class, of the same real schedules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ckpt.graph import Graph
from ckpt.planners.base.emit import Action, free_early, needed_only
from ckpt.planners.base.reads import closure, divide, read_by
from ckpt.schedule import Backward, Compute, Instruction


@dataclass(frozen=True)
class Epoch:
    """What one epoch may compute, may begin with, and must have live for its Backwards."""

    backwards: range
    """Which steps of the backward end it."""
    computable: tuple[int, ...]
    keepable: frozenset[int]
    residuals: frozenset[int]
    """What its Backwards read; of the last epoch, the outputs. Inputs aside."""


@dataclass(frozen=True)
class Epochs:
    """The epochs of a graph; the last has no Backward, and ends with the outputs live."""

    graph: Graph
    epochs: tuple[Epoch, ...]
    forward_epochs: int
    """How many epochs it takes to the first Backward."""

    @property
    def size(self) -> int:
        """How many (epoch, node) pairs there are to decide."""
        return sum(len(epoch.computable) for epoch in self.epochs)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """In words, what the schedules of this class have in common beyond the grammar."""
        backwards = len(self.graph.steps)
        epochs = sum(1 for epoch in self.epochs if epoch.backwards)
        words = ["computes between two Backwards go in the order of the program, each at most once"]
        if epochs < backwards:
            words.append(f"values are recomputed only at {epochs} of the {backwards} Backwards")
        if self.forward_epochs == 1:
            words.append("nothing is recomputed before the first Backward")
        words.append("the forward computes the outputs, and they are kept")
        return tuple(words)

    def all_kept(self) -> list[frozenset[int]]:
        """Nothing that is still useful is dropped: no recompute."""
        return [epoch.keepable for epoch in self.epochs]

    def none_kept(self) -> list[frozenset[int]]:
        """Only what can't be recomputed is kept."""
        return [frozenset()] * len(self.epochs)

    def instructions(self, kept: Sequence[Collection[int]]) -> tuple[Instruction, ...]:
        """The schedule that begins epoch t with ``kept[t]``, and frees each value at its last use.

        What can't be recomputed (captured arrays, and outputs by the rule of this class) is kept
        anyway, and so is the owner of a view: it costs no bytes, and a second Compute would make a
        second buffer.
        """
        graph = self.graph
        actions: list[Action] = []
        live: set[int] = set()
        begun: set[int] = set()
        for t, epoch in enumerate(self.epochs):
            after: set[int] = set()
            if t + 1 < len(self.epochs):
                after = set(kept[t + 1]) & self.epochs[t + 1].keepable
                pinned = self.epochs[t + 1].keepable & begun
                after.update(i for i in pinned if self._once(i))
                if t + 1 >= self.forward_epochs:
                    after.update(self.epochs[-1].residuals)
                after.update(i for i in self._owners(after) if not graph[i].resident)
            computes = closure(graph, epoch.residuals | after, live)
            # A captured array, and any output, that this epoch is the first to compute stays.
            begun.update(computes)
            if t + 1 < len(self.epochs):
                keepable = self.epochs[t + 1].keepable
                after.update(i for i in computes if self._once(i) and i in keepable)
            actions.extend(map(Compute, sorted(computes)))
            actions.extend(map(Backward, epoch.backwards))
            live = (live | computes) & after
        return free_early(graph, needed_only(graph, actions))

    def _once(self, node: int) -> bool:
        return self.graph[node].captured or node in self.graph.outputs

    def _owners(self, nodes: Iterable[int]) -> list[int]:
        return [self.graph.owners[i] for i in nodes]


def epochs_of(
    graph: Graph, groups: Sequence[range] | None = None, *, forward_epochs: int = 1
) -> Epochs:
    """The epochs that end with ``groups`` of Backwards (None: each Backward is one).

    ``forward_epochs`` > 1 lets the forward, cut there into equal parts, recompute what an earlier
    part has freed.
    """
    groups = groups or divide(graph, len(graph.steps))
    needed = graph.computed
    outputs = frozenset(i for i in graph.outputs if not graph[i].resident)
    # An output that is a view keeps the buffer of its owner.
    owners = frozenset(graph.owners[i] for i in outputs)
    lasting = outputs | {i for i in owners if not graph[i].resident}

    read = [frozenset(read_by(graph, group)) for group in groups]
    # What the epochs from this one on may still have a use for, outputs aside; last first.
    useful: list[frozenset[int]] = [frozenset()]
    for residuals in reversed(read):
        useful.append(useful[-1] | closure(graph, residuals, set()))
    useful.reverse()

    found = []
    computed: set[int] = set()
    for part in range(1, forward_epochs):
        front = needed[: part * len(needed) // forward_epochs]
        found.append(Epoch(range(0), tuple(front), _keepable(graph, computed), frozenset()))
        computed.update(front)
    for t, group in enumerate(groups):
        keepable = _keepable(graph, computed & (useful[t] | lasting) if t else computed)
        computable = needed if t == 0 else [i for i in needed if i in useful[t]]
        if t:
            computable = [i for i in computable if i not in outputs]
        found.append(Epoch(group, tuple(computable), keepable, read[t]))
        computed.update(computable)
    found.append(Epoch(range(0), (), _keepable(graph, lasting), outputs))
    return Epochs(graph, tuple(found), forward_epochs)


def ladder(graph: Graph, max_size: int, forward_epochs: int = 1) -> list[Epochs]:
    """Ever finer epochs: about 8, 16, 32, …, those of `join`, and for a small graph each Backward.

    In few epochs a plan is found soon, and near the best; in many it is the best, found late or not
    at all. None but the first has more than ``max_size`` (epoch, node) pairs, nor the last, where
    proofs are hardest, more than an eighth of that.
    """
    joined = join(graph)
    choices = []
    epochs = 8
    while epochs < len(joined):
        choices.append(divide(graph, epochs))
        epochs *= 2
    rungs = [epochs_of(graph, g, forward_epochs=forward_epochs) for g in (*choices, joined)]
    rungs = rungs[:1] + [space for space in rungs[1:] if space.size <= max_size]
    apart = epochs_of(graph, forward_epochs=forward_epochs)
    if len(apart.epochs) > len(rungs[-1].epochs) and apart.size * 8 <= max_size:
        rungs.append(apart)
    return rungs


def join(graph: Graph) -> list[range]:
    """Runs of Backwards in which none reads more than the first, and cotangents don't grow.

    To recompute between two of them is hardly ever worth while: what is needed after them can be
    computed after them, beside no more cotangents.
    """
    between = graph.between
    groups = [range(0)]
    for q in range(len(graph.steps)):
        first = read_by(graph, groups[-1][:1])
        if groups[-1] and read_by(graph, [q]) <= first and between[q + 1] <= between[q]:
            groups[-1] = range(groups[-1].start, q + 1)
        else:
            groups.append(range(q, q + 1))
    return groups[1:] or groups


def _keepable(graph: Graph, nodes: Iterable[int]) -> frozenset[int]:
    """``nodes`` without calls, whose results stand for them, and without the views that cost
    nothing to make again: their owner is enough."""
    return frozenset(i for i in nodes if i in graph.outputs or not _is_made_again(graph, i))


def _is_made_again(graph: Graph, node: int) -> bool:
    """A call, or a view of its only dep that costs no FLOPs and no workspace."""
    row = graph[node]
    view = row.alias_of is not None and row.flops == row.workspace == 0 and len(row.deps) == 1
    return row.call or view
