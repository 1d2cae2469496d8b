"""Any graph as a chain: where to cut it, and what crosses each cut.

A *cut* is a position in the order; its *boundary* is the nodes before it that are computed and that
a node after it reads. Resident nodes are set aside. So are captured arrays and outputs, which no
planner may drop: see `permanent`. A boundary may be several nodes (an LSTM's h and c, a skip that
passes through), and its bytes are the sum over distinct buffers: a view costs nothing beside its
owner, and keeps it. A *stage* is the nodes between two cuts.

Use: ``stages = find_stages(graph)``; then write a list of `stage_ops.StageOp` and turn it into a
Schedule with `stage_ops.emit(stages, ops)`; `stage_costs.measure` prices a stage.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from ckpt.errors import UsageError
from ckpt.graph import Graph
from ckpt.planners.base.reads import permanent


@dataclass(frozen=True)
class Stage:
    """The nodes from position ``start`` up to ``stop``, and what crosses the cut before them."""

    start: int
    stop: int
    nodes: tuple[int, ...]
    """Those that are ever computed, ascending; residents and what nobody needs left out."""
    backwards: tuple[int, ...]
    """The steps of the backward that belong here, in their order."""
    boundary: tuple[int, ...]
    """What crosses the cut at ``start``: all that the stage and those after it need from before."""
    boundary_nbytes: int
    held: tuple[int, ...]
    """The boundary and the values that share a buffer with it: kept together at no more bytes."""
    tape: tuple[int, ...]
    """The full tape: the stage's own values that its Backwards read, and their buffers' sharers."""
    tape_nbytes: int
    """Bytes of the tape's buffers, apart from those that the boundary holds already."""
    lasting: tuple[int, ...]
    """Permanent values that are outputs, or that later stages read: computed when the stage first
    runs, then kept."""
    flops: int


@dataclass(frozen=True)
class Stages:
    """A graph cut into stages. ``cuts`` has one position more than there are stages."""

    graph: Graph
    cuts: tuple[int, ...]
    stages: tuple[Stage, ...]

    def __len__(self) -> int:
        return len(self.stages)

    def __getitem__(self, index: int) -> Stage:
        return self.stages[index]

    def boundary(self, index: int) -> tuple[int, ...]:
        """The nodes that cross the cut before stage ``index``; after the last, none."""
        return self.stages[index].boundary if index < len(self.stages) else ()

    @cached_property
    def boundary_nbytes(self) -> int:
        """The largest boundary."""
        return max(stage.boundary_nbytes for stage in self.stages)

    def buffers(self, nodes: Iterable[int]) -> int:
        """Bytes of the distinct buffers of ``nodes``, permanent ones aside."""
        owners = {self.graph.owners[i] for i in nodes if i not in self.permanent}
        return sum(self.graph.nodes[owner].nbytes for owner in owners)

    @cached_property
    def permanent(self) -> frozenset[int]:
        return permanent(self.graph)

    def sharing(self, nodes: Iterable[int], start: int, stop: int) -> tuple[int, ...]:
        """``nodes`` and what shares a buffer with one of them, from ``start`` up to ``stop``."""
        owners = {self.graph.owners[i] for i in nodes if i not in self.permanent}
        return tuple(
            sorted(i for owner in owners for i in self._by_owner[owner] if start <= i < stop)
        )

    @cached_property
    def last_reader(self) -> list[int]:
        """See `last_readers`."""
        return last_readers(self.graph)

    @cached_property
    def _by_owner(self) -> dict[int, list[int]]:
        return _by_owner(self.graph)


def find_stages(
    graph: Graph, *, max_stages: int | None = None, widest: int | None = None
) -> Stages:
    """Cut ``graph`` where little crosses, into stages worth telling apart.

    The cuts are the positions whose boundary has at most ``widest`` bytes. By default that is the
    narrowest for which no stage holds more than an eighth of all bytes or FLOPs (or, where no width
    achieves it, the narrowest that comes as near as possible): between a transformer's blocks, and
    within them only if there are few. Then a stage with less than half the mean FLOPs joins the one
    before it, while that has at most four times the mean bytes, so that a matmul, its bias and its
    tanh are one stage. ``max_stages`` bounds their number further. Deterministic, linear in the
    nodes but for the search for a width (a logarithm).

    Raises UsageError where fewer than two stages result, or where everything crosses every cut;
    the message names the value that is carried furthest.
    """
    return Positions(graph).stages(max_stages, widest)


def cut_at(graph: Graph, cuts: Sequence[int]) -> Stages:
    """The stages between the given positions; 0 and the number of nodes are added."""
    cuts = sorted({0, len(graph), *cuts})
    base = Stages(graph, (), ())
    outputs = frozenset(graph.outputs)
    last_reader = base.last_reader
    step_readers, positions = graph.step_readers, graph.positions
    upwards = [-position for position in positions]  # ascending
    stages = []
    crossing: set[int] = set()
    for start, stop in pairwise(cuts):
        nodes = [i for i in range(start, stop) if i in graph.needed and not graph.nodes[i].resident]
        boundary = tuple(sorted(crossing))
        held = base.sharing(boundary, 0, start)
        read = (i for i in nodes if step_readers[i] and positions[step_readers[i][-1]] < stop)
        tape = base.sharing(read, start, stop)
        held_owners = {graph.owners[i] for i in boundary}
        stages.append(
            Stage(
                start=start,
                stop=stop,
                nodes=tuple(nodes),
                backwards=tuple(range(bisect_right(upwards, -stop), bisect_right(upwards, -start))),
                boundary=boundary,
                boundary_nbytes=base.buffers(boundary),
                held=held,
                tape=tape,
                tape_nbytes=base.buffers(i for i in tape if graph.owners[i] not in held_owners),
                lasting=tuple(
                    i
                    for i in nodes
                    if i in base.permanent and (i in outputs or last_reader[i] >= stop)
                ),
                flops=sum(graph.nodes[i].flops for i in nodes),
            )
        )
        crossing.update(i for i in nodes if i not in base.permanent)
        crossing = {i for i in crossing if last_reader[i] >= stop}
    return Stages(graph, tuple(cuts), tuple(stages))


def within_calls(graph: Graph) -> frozenset[int]:
    """The positions between a call and its results, where nothing can be cut."""
    runs = (range(call + 1, max(results) + 1) for call, results in graph.results.items())
    return frozenset(p for run in runs for p in run)


def last_readers(graph: Graph) -> list[int]:
    """For each node, the position of the last that reads it; -1: none.

    A step of the backward reads across a cut as a Compute at its position would.
    """
    last = [-1] * len(graph)
    for i, node in enumerate(graph.nodes):
        if i in graph.needed:
            for dep in node.deps:
                last[dep] = i
    for step, position in zip(graph.steps, graph.positions, strict=True):
        for read in step.reads:
            last[read] = max(last[read], position)
    return last


def _by_owner(graph: Graph) -> dict[int, list[int]]:
    groups: dict[int, list[int]] = {}
    for i, owner in enumerate(graph.owners):
        if i in graph.needed:
            groups.setdefault(owner, []).append(i)
    return groups


class Positions:
    """The graph's positions as candidate cuts: what crosses each, and the work between them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        n = len(graph)
        aside = permanent(graph)
        last_reader = last_readers(graph)
        nbytes = [0] * (n + 1)  # differences first, summed below
        crossing = [0] * (n + 1)
        made = [0] * (n + 1)
        work = [0] * (n + 1)
        buffers = [0] * (n + 1)
        self.longest = (0, -1)
        for owner, sharers in _by_owner(graph).items():
            if owner in aside:
                continue
            end = max(owner, *(last_reader[i] for i in sharers))
            nbytes[owner + 1] += graph.nodes[owner].nbytes
            nbytes[end + 1] -= graph.nodes[owner].nbytes
            crossing[owner + 1] += 1
            crossing[end + 1] -= 1
            buffers[owner + 1] = 1
            self.longest = max(self.longest, (end - owner, owner))
        for i in graph.computed:
            node = graph.nodes[i]
            if not node.captured:
                work[i + 1] = node.flops
                made[i + 1] = node.nbytes if i not in aside and node.alias_of is None else 0
        self.nbytes = list(accumulate(nbytes))
        self.crossing = list(accumulate(crossing))
        self.made = list(accumulate(made))
        self.work = list(accumulate(work))
        self.buffers = list(accumulate(buffers))
        behind = [i + 1 for i in graph.computed if not graph.nodes[i].captured]
        inside = within_calls(graph)
        self.positions = [p for p in behind[:-1] if p not in inside]

    def stages(self, max_stages: int | None = None, widest: int | None = None) -> Stages:
        """See `find_stages`."""
        if widest is None:
            widest = self.choose_width()
        cuts = self.merge(self.cuts_within(widest), max_stages)
        if not cuts or self.all_crosses(cuts):
            raise UsageError(self.refusal())
        return cut_at(self.graph, cuts)

    def cuts_within(self, widest: int) -> list[int]:
        return [p for p in self.positions if self.nbytes[p] <= widest]

    def choose_width(self) -> int:
        """See `find_stages`. The largest share never grows with the width, so halving finds it."""
        widths = sorted({self.nbytes[p] for p in self.positions})
        if not widths:
            return 0
        target = max(1 / 8, self.largest_share(widths[-1]))
        return widths[
            bisect_left(
                range(len(widths)), True, key=lambda k: self.largest_share(widths[k]) <= target
            )
        ]

    def largest_share(self, widest: int) -> float:
        """The most of all FLOPs, or of all bytes, that one stage between such cuts has."""
        cuts = [0, *self.cuts_within(widest), len(self.graph)]
        shares = [0.0]
        for total in (self.work, self.made):
            if total[-1]:
                shares.append(max(total[b] - total[a] for a, b in pairwise(cuts)) / total[-1])
        return max(shares)

    def merge(self, cuts: list[int], max_stages: int | None) -> list[int]:
        """Leave out the cuts before cheap stages, then as many as ``max_stages`` asks for."""
        ends = [*cuts, len(self.graph)]
        few_flops = self.work[-1] / len(ends) / 2
        many_bytes = self.made[-1] / len(ends) * 4
        kept: list[int] = []
        start = 0  # of the stage that the next may join
        for cut, end in pairwise(ends):
            cheap = self.work[end] - self.work[cut] < few_flops
            small = self.made[end] - self.made[start] <= many_bytes
            if not (cheap and small and self.nbytes[end] <= self.nbytes[cut]):
                kept.append(cut)
                start = cut
        if max_stages is None or len(kept) < max_stages:
            return kept
        return self.pack(kept, max_stages)

    def pack(self, cuts: list[int], max_stages: int) -> list[int]:
        """At most ``max_stages`` stages of nearly equal FLOPs and bytes."""
        flops, nbytes = self.work[-1] or 1, self.made[-1] or 1
        load = [w / flops + m / nbytes for w, m in zip(self.work, self.made, strict=True)]
        capacity = load[-1] / max_stages
        while True:
            kept: list[int] = []
            start = 0
            for cut, end in pairwise([*cuts, len(self.graph)]):
                if load[end] - load[start] > capacity:
                    kept.append(cut)
                    start = cut
            if len(kept) < max_stages:
                return kept
            capacity *= 1.1

    def all_crosses(self, cuts: list[int]) -> bool:
        """Does every cut carry all that was made before it, more than one value somewhere?"""
        return all(self.crossing[p] == self.buffers[p] for p in cuts) and any(
            self.buffers[p] > 1 for p in cuts
        )

    def refusal(self) -> str:
        length, owner = self.longest
        if owner < 0 or not length:
            return "the graph has fewer than two stages: there is nothing to cut"
        return (
            "the graph can't be cut into two stages or more: the longest crossing is "
            f"{owner} ({self.graph.describe(owner)}), read again {length} nodes later; "
            "planners that take any graph are store_all, greedy, ilp, dtr and auto"
        )
