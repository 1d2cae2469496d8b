"""A stage by itself: its values in local numbers, and the bytes that an order of them takes.

Stages that are equal as Interiors have the same choices at the same prices, so each kind is looked
at once, however often a model repeats it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import assert_never

from ckpt.planners.base.cost import Cost
from ckpt.planners.base.emit import Action
from ckpt.planners.base.stages import Stages
from ckpt.schedule import Backward, Compute


@dataclass(frozen=True)
class Interior:
    """A stage by itself, its values numbered from 0: first its boundary, then its own; and so are
    its Backwards.

    Equal stages have equal Interiors. Residents and permanent values (`emit.permanent`) take no
    bytes and cost nothing here: they are counted once for the whole graph.
    """

    inputs: int
    """How many values are the boundary's: live throughout, and counted by whoever holds them."""
    released: tuple[int, ...]
    """For each input that no other boundary holds and that the backward of the stage before doesn't
    read, the input that stands for its buffer; -1 for others. It goes at its last read here."""
    deps: tuple[tuple[int, ...], ...]
    reads: tuple[tuple[int, ...], ...]
    """Of each Backward."""
    fleeting: frozenset[int]
    """Calls: they are never held, their results are."""
    alias_of: tuple[int, ...]
    """The value whose buffer it shares, or -1."""
    nbytes: tuple[int, ...]
    costs: tuple[int, ...]
    workspace: tuple[int, ...]
    """What each needs while it is computed, beside its result; a call, all its results too."""
    lasting: tuple[int, ...]
    """Its permanent values, to be computed at the latest in its backward."""
    crossing: tuple[int, ...]
    """Its own values that the next stages read."""
    crossing_nbytes: tuple[int, ...]
    during: tuple[int, ...]
    """For each Backward: the most it holds beside activations."""
    cotangents: tuple[int, ...]
    """Cotangents that are live before each Backward, and after the last."""

    @cached_property
    def needs(self) -> frozenset[int]:
        """Own values that its Backwards read."""
        read = frozenset(r for row in self.reads for r in row if r >= self.inputs)
        return read - frozenset(self.lasting)

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
                there = dep in available and dep not in self.fleeting
                if dep >= self.inputs and dep not in found and not there:
                    found.add(dep)
                    stack.append(dep)
        return sorted(found)

    def cost(self, nodes: Iterable[int]) -> int:
        return sum(self.costs[i] for i in nodes)


def waiting_seeds(stages: Stages) -> frozenset[int]:
    """Seeds of losses before the last stage, as rows of the graph. They wait from the first
    Backward for their own turn, and are counted once for the whole graph, or else no two stages
    were equal."""
    start = stages[len(stages) - 1].start
    return frozenset(
        n
        for n, row in enumerate(stages.graph.rows)
        if row.kind == "seed" and row.whose is not None and row.whose < start
    )


def interiors(stages: Stages, cost: Cost) -> tuple[list[Interior], list[tuple[int, ...]]]:
    """Each stage by itself, and for each the positions in the graph of its numbered values."""
    graph, permanent = stages.graph, stages.permanent
    nodes = graph.nodes
    last_cut: dict[int, int] = {}
    for k in range(len(stages)):
        last_cut.update((graph.owners[i], k) for i in stages.boundary(k))
    seeds: dict[int, int] = {}  # step -> bytes of waiting seeds that go with it
    for n in waiting_seeds(stages):
        last = graph.rows[n].last
        seeds[last] = seeds.get(last, 0) + graph.rows[n].nbytes
    done = len(graph.steps)
    found: list[Interior] = []
    numbering = []
    for k, stage in enumerate(stages.stages):
        numbers = (*stage.boundary, *stage.nodes)
        local = {i: n for n, i in enumerate(numbers)}
        done -= len(stage.backwards)
        before = sum(nbytes for q, nbytes in seeds.items() if q >= done)
        during, cotangents = [], [max(graph.between[done] - before, 0)]
        for q in stage.backwards:
            during.append(max(graph.steps[q].during - before, 0))
            before -= seeds.get(q, 0)
            cotangents.append(max(graph.between[q + 1] - before, 0))
        own = [i for i in stage.nodes if graph.owners[i] == i and i not in permanent]
        reach = max((last_cut.get(i, k) for i in own), default=k)
        found.append(
            Interior(
                inputs=len(stage.boundary),
                released=_released(stages, k, found[-1] if found else None, last_cut),
                deps=tuple(tuple(local[d] for d in nodes[i].deps if d in local) for i in numbers),
                reads=tuple(
                    tuple(local[r] for r in graph.steps[q].reads if r in local)
                    for q in stage.backwards
                ),
                fleeting=frozenset(local[i] for i in stage.nodes if nodes[i].call),
                alias_of=tuple(local.get(_alias(nodes[i].alias_of), -1) for i in numbers),
                nbytes=tuple(
                    0 if i in permanent or nodes[i].call else nodes[i].nbytes for i in numbers
                ),
                costs=tuple(0 if i in permanent else cost.nodes[i] for i in numbers),
                workspace=tuple(
                    graph.making[i] if nodes[i].call else nodes[i].workspace for i in numbers
                ),
                lasting=tuple(local[i] for i in stage.nodes if i in permanent),
                crossing=tuple(local[i] for i in stages.boundary(k + 1) if i >= stage.start),
                crossing_nbytes=tuple(
                    sum(nodes[i].nbytes for i in own if last_cut.get(i, k) >= j)
                    for j in range(k + 1, reach + 1)
                ),
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


def levels_of(interior: Interior, actions: Sequence[Action], split: int) -> list[int]:
    """Bytes beyond the boundary during each action, every value freed at its last read.

    At ``split`` one entry is put in: what is held between the forward and the backward, when the
    next stages' reads of what crosses are over. Cotangents count from there on.
    """
    timeline: list[Action | None] = [*actions[:split], None, *actions[split:]]
    last_read: dict[int, int] = {}
    ends = [0] * len(timeline)
    for p in range(len(timeline) - 1, -1, -1):
        match timeline[p]:
            case None:
                reads = interior.crossing
            case Compute(i):
                ends[p] = last_read.pop(i, p)
                reads = interior.deps[i]
            case Backward(q):
                reads = interior.reads[q]
        for i in reads:
            last_read.setdefault(i, p)

    # A buffer is known by the action that made it (an input's: by ~input), and lasts as long as any
    # value that shares it.
    made = {i: ~owner for i, owner in enumerate(interior.released) if owner >= 0}
    lasts: dict[int, int] = {}
    nbytes: dict[int, int] = {}
    for i, maker in made.items():
        lasts[maker] = max(lasts.get(maker, 0), last_read.get(i, 0))
        nbytes[maker] = interior.nbytes[~maker]
    for p, action in enumerate(timeline):
        if isinstance(action, Compute) and interior.buffers[action.node] >= 0:
            i = action.node
            alias = interior.alias_of[i]
            made[i] = made[alias] if alias >= 0 else p
            lasts[made[i]] = max(lasts.get(made[i], p), ends[p])
            nbytes.setdefault(made[i], interior.nbytes[i])
    change = [0] * (len(timeline) + 1)
    for maker, last in lasts.items():
        if maker >= 0:
            change[maker] += nbytes[maker]
        change[last + 1] -= nbytes[maker]
    return _sum_up(interior, timeline, change, split)


def _sum_up(
    interior: Interior, timeline: Sequence[Action | None], change: Sequence[int], split: int
) -> list[int]:
    levels = []
    live = backwards = 0
    for p, action in enumerate(timeline):
        live += change[p]
        beside = 0
        match action:
            case None:
                pass
            case Backward(q):
                beside = interior.during[q]
                backwards += 1
            case Compute(i):
                beside = interior.workspace[i]
                beside += interior.cotangents[backwards] if p > split else 0
            case _:
                assert_never(action)
        levels.append(live + beside)
    return levels
