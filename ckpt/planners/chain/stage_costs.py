"""What each stage operation holds and costs, found by simulating the stage alone.

Use: ``costs = StageCosts(stages)``; ``costs.forward(k)``, ``costs.tape(k, kept)``.

A stage is simulated between two stand-ins: values that cross the cut before it appear from nowhere,
and one sink reads all that crosses the cut behind it. So the figures count workspace and views as
`simulate` does. Cotangents are exact: Backwards have one order, so at each of them the cotangents
are the same in every schedule, and are read off a simulation of store-all.

All peaks include the boundary before the stage, and in BACK every cotangent there is. They leave
out what stands beside the stage, and is the planner's to add: other snapshots and tapes, and

- in the first run of stage k, ``made_before[k]``: permanent values (captured arrays, outputs) of
  earlier stages;
- in a later run of any stage, while stages 0..t await their Backward, ``alive_after[t]``: all
  permanent values still live; and for ADVANCE, KEEP and TAPE ``cotangents[t + 1]``: the cotangents
  that wait meanwhile.

In a persistent plan the stages from s to the last run for the first time, and every run of stages
s..t with t before the last is a later one. A BACK after a TAPE is always a later run, but for the
last stage.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate

from ckpt.graph import Graph, Node
from ckpt.planners.base.emit import Emitter
from ckpt.planners.base.stages import Stages, cut_at
from ckpt.planners.revolve.stage_ops import ADVANCE, BACK, KEEP, TAPE, StageEmitter, StageOp
from ckpt.schedule import Backward, Free
from ckpt.simulate import simulate
from ckpt.timeline import Timeline


@dataclass(frozen=True)
class ForwardCost:
    """A stage run forward with nothing of its own kept, and run forward and back at once."""

    input_nbytes: int
    """The boundary before the stage."""
    output_nbytes: int
    """The boundary behind it; a value that passes through is in both."""
    through_nbytes: int
    """Bytes of the buffers in both."""
    advance_peak: int
    """ADVANCE: values of the boundary go at their last read."""
    keep_peak: int
    """KEEP: the boundary stays."""
    flops: int
    """Of ADVANCE and of KEEP."""
    back_peak: int
    """BACK without a TAPE before it, the boundary held throughout (a tape may include it)."""
    release_peak: int
    """The same if nothing else holds the boundary, and its values go at their last read."""
    back_flops: int
    """Its forward FLOPs (recompute, unless this is the first run); Backward FLOPs left out."""


@dataclass(frozen=True)
class TapeCost:
    """A stage taped with some values kept, and its BACK later."""

    kept: tuple[int, ...]
    tape_peak: int
    """TAPE, the boundary held throughout."""
    tape_nbytes: int
    """Bytes that stay behind from TAPE to BACK beside the two boundaries."""
    beyond_nbytes: int
    """Bytes live after TAPE beyond the boundary before: the tape and what crosses behind."""
    input_read_nbytes: int
    """Bytes of the boundary before that BACK still reads; the rest needn't stay for it."""
    back_peak: int
    """BACK after TAPE, with what it recomputes and the incoming cotangents."""
    flops: int
    """Of TAPE."""
    back_flops: int
    """What BACK recomputes."""


class StageCosts:
    """Prices for the stages of one graph; see the module's docstring for what they include."""

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        graph, count = stages.graph, len(stages)
        self.made_before: list[int]
        """Entry k: bytes of permanent values made in stages before k."""
        self.alive_after: list[int]
        """Entry t: bytes of permanent values live, once all ran, while stages 0..t wait."""
        self.made_before, self.alive_after = _permanent_nbytes(stages)
        self.beside_backward: dict[int, int] = {}
        """For each Backward, the cotangents and workspace that its peak adds to the activations."""
        self.cotangents = [0] * (count + 1)
        """Entry k: bytes of the cotangents that wait once stages from k on had their BACK."""
        emitter = Emitter(graph)
        emitter.compute(graph.outputs)
        for i in graph.backward_order:
            emitter.backward(i)
        columns = simulate(graph, schedule := emitter.schedule()).columns
        stage_of = {i: k for k, stage in enumerate(stages.stages) for i in stage.nodes}
        for position, step in enumerate(schedule):
            if type(step) is Backward:
                held = columns["activations"][position] + columns["captured"][position]
                self.beside_backward[step.node] = columns["high"][position] - held
                k = stage_of[step.node]
                self.cotangents[: k + 1] = [columns["cotangents"][position]] * (k + 1)

    def forward(self, k: int, *, first: bool = False) -> ForwardCost:
        """The option-free costs of stage ``k``, in its first run or (default) in a later one."""
        stages = self.stages
        held, loose = _Alone(self, k, first, hold=True), _Alone(self, k, first, hold=False)
        keep, back = held.run(StageOp(KEEP, 1)), held.run(None)
        here, behind = stages.boundary(k), stages.boundary(k + 1)
        owners = stages.graph.owners
        shared = {owners[i] for i in here} & {owners[i] for i in behind}
        return ForwardCost(
            input_nbytes=stages.buffers(here),
            output_nbytes=stages.buffers(behind),
            through_nbytes=sum(stages.graph.nodes[owner].nbytes for owner in shared),
            advance_peak=loose.run(StageOp(ADVANCE, 1)).forward_peak,
            keep_peak=keep.forward_peak,
            flops=keep.forward_flops,
            back_peak=back.back_peak,
            release_peak=loose.run(None).back_peak,
            back_flops=back.back_flops,
        )

    def tape(self, k: int, kept: Iterable[int] | None = None, *, first: bool = False) -> TapeCost:
        """What it costs to tape stage ``k`` with ``kept`` (None: the full tape) and go back later.

        ``first`` speaks of the TAPE; its BACK is a later run either way, unless the stage is last.
        """
        stages = self.stages
        stage = stages[k]
        tape = stage.tape if kept is None else stages.sharing(kept, stage.start, stage.stop)
        alone = _Alone(self, k, first, hold=True)
        op = StageOp(TAPE, 1, tuple(alone.place[i] for i in tape))
        run = alone.run(op)
        later = _Alone(self, k, False, hold=True).run(op) if first else run
        owners = stages.graph.owners
        before = {owners[i] for i in stage.boundary}
        behind = {owners[i] for i in stages.boundary(k + 1)}
        return TapeCost(
            kept=tape,
            tape_peak=run.forward_peak,
            tape_nbytes=stages.buffers(i for i in tape if owners[i] not in before | behind),
            beyond_nbytes=stages.buffers(
                i for i in (*tape, *stages.boundary(k + 1)) if owners[i] not in before
            ),
            input_read_nbytes=stages.buffers(
                i for i in stage.boundary if alone.place[i] in run.read_by_back
            ),
            back_peak=later.back_peak,
            flops=run.forward_flops,
            back_flops=run.back_flops,
        )


def _permanent_nbytes(stages: Stages) -> tuple[list[int], list[int]]:
    graph, count = stages.graph, len(stages)
    stage_of = {i: k for k, stage in enumerate(stages.stages) for i in stage.nodes}
    outputs = {graph.owners[i] for i in graph.outputs}
    first_read: dict[int, int] = {}
    for i, owner in enumerate(graph.owners):
        for reader in graph.readers[i]:
            if reader in stage_of:
                k = stage_of[reader]
                first_read[owner] = min(first_read.get(owner, k), k)
    made, alive = [0] * (count + 1), [0] * (count + 1)
    for i, k in stage_of.items():
        if i in stages.permanent and graph.owners[i] == i:
            made[k + 1] += graph.nodes[i].nbytes
            alive[0 if i in outputs else first_read.get(i, k)] += graph.nodes[i].nbytes
    return list(accumulate(made)), list(accumulate(alive))


@dataclass(frozen=True)
class _Run:
    forward_peak: int
    forward_flops: int
    back_peak: int
    back_flops: int
    read_by_back: frozenset[int]


class _Alone:
    """One stage between stand-ins, as a graph of three stages: what enters, the stage, the sink."""

    def __init__(self, costs: StageCosts, k: int, first: bool, *, hold: bool) -> None:
        stages = costs.stages
        graph = stages.graph
        self.costs = costs
        self.waiting = costs.cotangents[k + 1]
        stage = stages[k]
        self.place: dict[int, int] = {}
        """Where a node of the whole graph stands in this one."""
        self.nodes = [Node(name="", op="input", resident=True, requires_grad=False)]
        last_reader = stages.last_reader
        lasting_before = [
            i
            for i in dict.fromkeys(d for j in stage.nodes for d in graph[j].deps)
            if i < stage.start and i in stages.permanent and not graph[i].resident
        ]
        for j in stage.nodes:
            for dep in graph[j].deps:
                if graph[dep].resident and dep not in self.place:
                    self._add(dep, graph[dep])
        self._enter(stages, sorted({*stage.boundary, *lasting_before}))
        first_cut = len(self.nodes)
        for i in stage.nodes:
            node = graph[i]
            self._add(
                i,
                replace(
                    node,
                    deps=tuple(self.place[d] for d in node.deps),
                    residuals=tuple(self.place.get(r, len(self.nodes)) for r in node.residuals),
                    alias_of=None if node.alias_of is None else self.place[node.alias_of],
                ),
            )
        second_cut = len(self.nodes)
        crossing = [*stages.boundary(k + 1)]
        crossing += [
            i
            for i in (*lasting_before, *stage.nodes)
            if i in stages.permanent and last_reader[i] >= stage.stop
        ]
        self._sink(graph, tuple(dict.fromkeys(crossing)))
        self.holding = [self.place[i] for i in stage.boundary] if hold else []
        sink = len(self.nodes) - 1
        self._reader_at_the_end()
        here = [i for i in stage.nodes if i in stages.permanent]
        losses = [self.place[i] for i in stage.nodes if i in graph.losses]
        self.graph = Graph(
            tuple(self.nodes),
            (*losses, sink),
            tuple(self.place[i] for i in (*lasting_before, *here)),
        )
        self.stages = cut_at(self.graph, [first_cut, second_cut])
        self.early = [] if first else [self.place[i] for i in here]
        apart = {graph.owners[i] for i in (lasting_before if first else [*lasting_before, *here])}
        self.standing = sum(graph[i].nbytes for i in apart if not graph[i].resident)

    def _add(self, i: int, node: Node) -> None:
        self.place[i] = len(self.nodes)
        self.nodes.append(node)

    def _enter(self, stages: Stages, entries: list[int]) -> None:
        """Stand-ins for what comes from before: no deps, the same bytes, the same sharing."""
        graph = stages.graph
        roots: dict[int, int] = {}
        for i in entries:
            owner = graph.owners[i]
            if owner not in roots:
                roots[owner] = len(self.nodes)
                aside = graph[owner].resident
                root = Node(name="", op="enter", nbytes=graph[owner].nbytes, requires_grad=False)
                self.nodes.append(replace(root, nbytes=0 if aside else root.nbytes))
            self._add(
                i,
                Node(
                    name="",
                    op="enter",
                    nbytes=graph[i].nbytes,
                    requires_grad=graph[i].requires_grad,
                    deps=(roots[owner],),
                    alias_of=roots[owner],
                    cotangents=(None,),
                    backward_workspace=(0,),
                ),
            )

    def _sink(self, graph: Graph, deps: tuple[int, ...]) -> None:
        self.nodes.append(
            Node(
                name="",
                op="sink",
                deps=tuple(self.place[i] for i in deps),
                cotangents=tuple("fresh" if i in graph.backward_set else None for i in deps),
                backward_workspace=(0,) * len(deps),
            )
        )

    def _reader_at_the_end(self) -> None:
        """A node that reads what is to be held, and that nothing needs: the run ends with it."""
        deps = tuple(self.holding)
        none = (None,) * len(deps)
        work = (0,) * len(deps)
        node = Node(name="", op="hold", deps=deps, cotangents=none, backward_workspace=work)
        self.nodes.append(node)

    def run(self, op: StageOp | None) -> _Run:
        """Enter, perform ``op`` on the stage, go back through the sink and the stage."""
        emitter = StageEmitter(self.stages)
        emitter.hold(self.holding)
        emitter.perform(StageOp(KEEP, 0))
        emitter.settle(emitter.compute(self.early))
        marks = [len(emitter.steps)]
        for each in (op, StageOp(BACK, 2), StageOp(BACK, 1)):
            if each is not None:
                emitter.perform(each)
            marks.append(len(emitter.steps))
        emitter.perform(StageOp(BACK, 0))
        emitter.steps.append(len(self.nodes) - 1)
        timeline = simulate(self.graph, emitter.schedule())
        return self._read(timeline, marks, emitter.steps)

    def _read(self, timeline: Timeline, marks: list[int], steps: list[int]) -> _Run:
        columns = timeline.columns
        origin = {place: i for i, place in self.place.items()}
        at = [p for p, step in enumerate(timeline.schedule) if type(step) is not Free]
        highs, flops = [], []
        for index, p in enumerate(at):
            held = columns["activations"][p] + columns["captured"][p] - self.standing
            step = steps[index]
            if step >= 0:
                waits = self.waiting if index >= marks[2] else 0
                highs.append(held + waits + columns["workspace"][p])
                flops.append(columns["flops"][p])
            else:
                highs.append(held + self.costs.beside_backward.get(origin.get(~step, -1), 0))
                flops.append(0)
        forward, back = slice(marks[0], marks[1]), slice(marks[2], marks[3])
        read: set[int] = set()
        for step in steps[back]:
            node = self.graph[step if step >= 0 else ~step]
            read.update(node.deps if step >= 0 else node.residuals)
        return _Run(
            forward_peak=max(highs[forward], default=0),
            forward_flops=sum(flops[forward]),
            back_peak=max(highs[back], default=0),
            back_flops=sum(flops[back]),
            read_by_back=frozenset(read),
        )
