"""A stage by itself: its values in local numbers, and the bytes that an order of them takes.

Stages that are equal as Interiors have the same choices at the same prices, so each kind is looked
at once, however often a model repeats it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ckpt.planners.base.memory import Memory
from ckpt.planners.base.stages import Stages


@dataclass(frozen=True)
class Interior:
    """A stage by itself, its values numbered from 0: first its boundary, then its own.

    Equal stages have equal Interiors. Residents and permanent values (`emit.permanent`) take no
    bytes and no FLOPs here: they are counted once for the whole graph.
    """

    inputs: int
    """How many values are the boundary's: live throughout, and counted by whoever holds them."""
    released: tuple[int, ...]
    """For each input that no other boundary holds and that the backward of the stage before doesn't
    read, the input that stands for its buffer; -1 for others. It goes at its last read here."""
    deps: tuple[tuple[int, ...], ...]
    residuals: tuple[tuple[int, ...], ...]
    alias_of: tuple[int, ...]
    """The value whose buffer it shares, or -1."""
    nbytes: tuple[int, ...]
    flops: tuple[int, ...]
    workspace: tuple[int, ...]
    lasting: tuple[int, ...]
    """Its permanent values, to be computed at the latest in its backward."""
    crossing: tuple[int, ...]
    """Its own values that the next stages read."""
    crossing_nbytes: tuple[int, ...]
    backwards: tuple[int, ...]
    during: tuple[int, ...]
    """For each Backward: the most it holds beside activations."""
    cotangents: tuple[int, ...]
    """Cotangents that are live before each Backward, and after the last."""

    @cached_property
    def needs(self) -> frozenset[int]:
        """Own values that its Backwards read."""
        return frozenset(
            r for i in self.backwards for r in self.residuals[i] if r >= self.inputs
        ) - frozenset(self.lasting)

    @cached_property
    def buffers(self) -> tuple[int, ...]:
        """For each value the one that owns its buffer; -1 if it isn't for this stage to free."""
        found = list(self.released)
        for i in range(self.inputs, len(self.deps)):
            alias = self.alias_of[i]
            found.append(-1 if i in self.lasting else found[alias] if alias >= 0 else i)
        return tuple(found)

    def missing(self, targets: Iterable[int], available: frozenset[int]) -> list[int]:
        """What computing the targets takes, ascending."""
        stack = [t for t in targets if t >= self.inputs and t not in available]
        found = set(stack)
        while stack:
            for dep in self.deps[stack.pop()]:
                if dep >= self.inputs and dep not in found and dep not in available:
                    found.add(dep)
                    stack.append(dep)
        return sorted(found)

    def inputs_read(self, targets: Iterable[int]) -> set[int]:
        """The inputs that computing the targets reads."""
        computed = self.missing(targets, frozenset())
        return {dep for i in computed for dep in self.deps[i] if dep < self.inputs}

    def cost(self, nodes: Iterable[int]) -> int:
        return sum(self.flops[i] for i in nodes)


def waiting_losses(stages: Stages) -> frozenset[int]:
    """Losses before the last stage. Their cotangents wait from the first Backward for their own
    turn; they are counted once for the whole graph, or else no two stages were equal."""
    return frozenset(i for i in stages.graph.losses if i < stages[len(stages) - 1].start)


def interiors(stages: Stages, memory: Memory) -> tuple[list[Interior], list[tuple[int, ...]]]:
    """Each stage by itself, and for each the positions in the graph of its numbered values."""
    graph, permanent = stages.graph, stages.permanent
    nodes = graph.nodes
    last_cut: dict[int, int] = {}
    for k in range(len(stages)):
        last_cut.update((graph.owners[i], k) for i in stages.boundary(k))
    waiting = waiting_losses(stages)
    done = len(graph.backward_order)
    found: list[Interior] = []
    numbering = []
    for k, stage in enumerate(stages.stages):
        numbers = (*stage.boundary, *stage.nodes)
        local = {i: n for n, i in enumerate(numbers)}
        done -= len(stage.backwards)
        before = sum(nodes[i].nbytes for i in waiting if i < stage.stop)
        during, cotangents = [], [max(memory.between[done] - before, 0)]
        for q, i in enumerate(stage.backwards, done):
            during.append(max(memory.during[q] - before, 0))
            before -= nodes[i].nbytes if i in waiting else 0
            cotangents.append(max(memory.between[q + 1] - before, 0))
        own = [i for i in stage.nodes if graph.owners[i] == i and i not in permanent]
        reach = max((last_cut.get(i, k) for i in own), default=k)
        found.append(
            Interior(
                inputs=len(stage.boundary),
                released=_released(stages, k, found[-1] if found else None, last_cut),
                deps=tuple(tuple(local[d] for d in nodes[i].deps if d in local) for i in numbers),
                residuals=tuple(
                    tuple(local[r] for r in nodes[i].residuals if r in local) for i in numbers
                ),
                alias_of=tuple(local.get(_alias(nodes[i].alias_of), -1) for i in numbers),
                nbytes=tuple(0 if i in permanent else nodes[i].nbytes for i in numbers),
                flops=tuple(0 if i in permanent else nodes[i].flops for i in numbers),
                workspace=tuple(nodes[i].workspace for i in numbers),
                lasting=tuple(local[i] for i in stage.nodes if i in permanent),
                crossing=tuple(local[i] for i in stages.boundary(k + 1) if i >= stage.start),
                crossing_nbytes=tuple(
                    sum(nodes[i].nbytes for i in own if last_cut.get(i, k) >= j)
                    for j in range(k + 1, reach + 1)
                ),
                backwards=tuple(local[i] for i in stage.backwards),
                during=tuple(during),
                cotangents=tuple(cotangents),
            )
        )
        numbering.append(numbers)
    return found, numbering


def _released(
    stages: Stages, k: int, before: Interior | None, last_cut: dict[int, int]
) -> tuple[int, ...]:
    """See `Interior.released`."""
    if before is None:
        return ()
    owners = stages.graph.owners
    boundary, previous = stages.boundary(k), stages[k - 1]
    numbers = (*previous.boundary, *previous.nodes)
    read = {owners[numbers[i]] for i in before.missing(before.needs, frozenset())}
    first: dict[int, int] = {}
    for n, i in enumerate(boundary):
        owner = owners[i]
        if owner >= previous.start and last_cut[owner] == k and owner not in read:
            first.setdefault(owner, n)
    return tuple(first.get(owners[i], -1) for i in boundary)


def _alias(owner: int | None) -> int:
    return -1 if owner is None else owner


def levels_of(interior: Interior, steps: Sequence[int], split: int) -> list[int]:
    """Bytes beyond the boundary during each step, every value freed at its last read.

    At ``split`` one entry is put in: what is held between the forward and the backward, when the
    next stages' reads of what crosses are over. Cotangents count from there on.
    """
    timeline: list[int | None] = [*steps[:split], None, *steps[split:]]
    last_read: dict[int, int] = {}
    ends = [0] * len(timeline)
    for p in range(len(timeline) - 1, -1, -1):
        step = timeline[p]
        if step is None:
            reads = interior.crossing
        elif step >= 0:
            ends[p] = last_read.pop(step, p)
            reads = interior.deps[step]
        else:
            reads = interior.residuals[~step]
        for i in reads:
            last_read.setdefault(i, p)

    # A buffer is known by the step that made it (an input's: by ~input), and lasts as long as any
    # value that shares it.
    made = {i: ~owner for i, owner in enumerate(interior.released) if owner >= 0}
    lasts: dict[int, int] = {}
    for i, owner in made.items():
        lasts[owner] = max(lasts.get(owner, 0), last_read.get(i, 0))
    for p, step in enumerate(timeline):
        if step is not None and step >= 0 and interior.buffers[step] >= 0:
            alias = interior.alias_of[step]
            made[step] = made[alias] if alias >= 0 else p
            lasts[made[step]] = max(lasts.get(made[step], p), ends[p])
    change = [0] * (len(timeline) + 1)
    for maker, last in lasts.items():
        value = ~maker if maker < 0 else timeline[maker]
        assert value is not None
        if maker >= 0:
            change[maker] += interior.nbytes[value]
        change[last + 1] -= interior.nbytes[value]
    return _sum_up(interior, timeline, change, split)


def _sum_up(
    interior: Interior, timeline: Sequence[int | None], change: Sequence[int], split: int
) -> list[int]:
    levels = []
    live = backwards = 0
    for p, step in enumerate(timeline):
        live += change[p]
        level = live
        if step is not None and step < 0:
            level += interior.during[backwards]
            backwards += 1
        elif step is not None:
            level += interior.workspace[step]
            level += interior.cotangents[backwards] if p > split else 0
        levels.append(level)
    return levels
