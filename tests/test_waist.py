"""The waist on random graphs that have everything, and random schedules of them: the machine
against a plain account of who holds what."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ckpt.graph import GRADIENTS, ROW_KINDS, BackwardRow, BackwardStep, Graph, Node, Overwrites
from ckpt.machine import simulate
from ckpt.schedule import Backward, Compute, Free, Instruction, Schedule
from ckpt.timeline import KINDS, Timeline, holdings

# -- graphs and schedules --------------------------------------------------------------------------


def wild_graph(rng: Random) -> Graph:
    """Views, calls, captured values with deps, draws, overwriting; a backward of any rows."""
    nodes = [Node(name="x", op="input", nbytes=rng.randint(1, 9), resident=True)]
    values = [0]

    def add(node: Node) -> int:
        nodes.append(node)
        if not node.call:
            values.append(len(nodes) - 1)
        return len(nodes) - 1

    for _ in range(rng.randint(1, 9)):
        deps = tuple(dict.fromkeys(rng.choices(values[-5:], k=rng.randint(1, 2))))
        made = Node(name="f", op="f", deps=deps, flops=rng.randint(0, 9))
        made = replace(made, workspace=rng.choice([0, 3]), workspace_again=rng.choice([0, 0, 2]))
        captured = rng.random() < 0.15
        match rng.choice(["plain", "plain", "view", "call", "over", "draw"]):
            case "view":
                add(replace(made, nbytes=nodes[deps[0]].nbytes, alias_of=deps[0]))
            case "call":
                call = add(replace(made, call=True, captured=captured, nbytes=rng.choice([0, 1])))
                for _ in range(rng.randint(1, 3)):
                    alone = captured or rng.random() < 0.1
                    nbytes = rng.randint(0, 9)
                    add(Node(name="r", op="r", deps=(call,), nbytes=nbytes, captured=alone))
            case "over":
                pairs = (
                    (d, rng.randint(0, made.workspace + nodes[d].nbytes))
                    for d in deps
                    if nodes[d].alias_of is None
                )
                add(replace(made, nbytes=rng.randint(0, 9), overwrites=tuple(pairs)))
            case "draw":
                add(replace(made, nbytes=rng.randint(0, 9), state_nbytes=5, scratch=7))
            case _:
                add(replace(made, nbytes=rng.randint(0, 9), captured=captured))
    outputs = tuple(rng.sample(values, rng.randint(0, 1)))
    steps, rows, gradients = wild_backward(rng, nodes, values)
    return Graph(tuple(nodes), steps, rows, outputs, gradients)


def wild_backward(
    rng: Random, nodes: list[Node], values: list[int]
) -> tuple[tuple[BackwardStep, ...], tuple[BackwardRow, ...], str]:
    count = rng.randint(0, 5)
    rows = []
    for _ in range(rng.randint(0, 4)):
        first = rng.randint(0, count)
        kind: Any = rng.choice(ROW_KINDS)
        whose = rng.choice([None, *values])
        last = rng.randint(first, count)
        nbytes = rng.randint(0, 9)
        rows.append(BackwardRow(kind=kind, nbytes=nbytes, first=first, last=last, whose=whose))
    gradients = rng.choice(GRADIENTS)
    bare = tuple(BackwardStep(label="f", during=99) for _ in range(count))
    between = Graph(tuple(nodes), bare, tuple(rows), gradients=gradients).between
    steps = []
    for k in range(count):
        reads = tuple(rng.sample(values, min(len(values), rng.randint(0, 2))))
        during = max(between[k : k + 2]) + rng.randint(0, 4)
        over: Overwrites = ()
        if rng.random() < 0.5:
            most = during - between[k + 1]
            own = [r for r in reads if nodes[r].alias_of is None]
            over = tuple((r, rng.randint(0, most + nodes[r].nbytes)) for r in own)
        at = rng.choice([None, *values])
        steps.append(BackwardStep(label="f", reads=reads, during=during, overwrites=over, at=at))
    return tuple(steps), tuple(rows), gradients


class Walk:
    """A valid schedule that frees at random, so that much is computed again."""

    def __init__(self, graph: Graph, rng: Random) -> None:
        self.graph, self.rng = graph, rng
        self.live = {i for i, node in enumerate(graph) if node.resident}
        self.found: list[Instruction] = []
        self.done = 0

    def schedule(self) -> Schedule:
        graph = self.graph
        for k, step in enumerate(graph.steps):
            self.need({*step.reads, *graph.outputs} if not k else {*step.reads})
            self.found.append(Backward(k))
            self.done = k + 1
            self.free()
        self.need(set(graph.outputs))
        return Schedule(tuple(self.found), graph.digest)

    def need(self, targets: set[int]) -> None:
        missing = targets - self.live
        for i in range(len(self.graph) - 1, -1, -1):
            if i in missing:
                missing |= {d for d in self.graph[i].deps if d not in self.live}
        for i in sorted(missing):
            self.found.append(Compute(i))
            self.live.add(i)
            later = {d for j in missing if j > i for d in self.graph[j].deps}
            self.free(targets | later)

    def free(self, kept: Collection[int] = ()) -> None:
        for i in self.rng.sample(sorted(self.live), len(self.live)):
            node = self.graph[i]
            stays = node.resident or node.captured or i in kept
            if (
                not stays
                and not (self.done and i in self.graph.outputs)
                and self.rng.random() < 0.6
            ):
                self.live.remove(i)
                self.found.append(Free(i))


SEEDS = st.randoms(use_true_random=False)


def case(rng: Random) -> tuple[Graph, Timeline]:
    graph = wild_graph(rng)
    return graph, simulate(graph, Walk(graph, rng).schedule())


# -- a plain account -------------------------------------------------------------------------------


@dataclass(eq=False)
class Box:
    """Bytes, there as long as some value holds them."""

    nbytes: int
    kind: str


def account(graph: Graph, schedule: Schedule) -> list[dict[str, int]]:
    """Live bytes of values by kind after each instruction: of the boxes that any of them holds."""
    holds: dict[int, list[Box]] = {i: [] for i, node in enumerate(graph) if node.resident}
    overwritten: set[Box] = set()
    rows = []

    def box(i: int) -> Box:
        return Box(graph[i].nbytes, "captured" if graph[i].captured else "activations")

    for position, instruction in enumerate(schedule):
        over: Overwrites = ()
        match instruction:
            case Compute(i):
                over = graph[i].overwrites
                if graph[i].alias_of is not None:
                    holds[i] = holds[graph[i].alias_of or 0]
                elif graph[i].call:
                    results = graph.results[i]
                    holds[i] = [box(i), *((holds.get(r) or [box(r)])[0] for r in results)]
                elif graph[graph[i].deps[0]].call:
                    call = graph[i].deps[0]
                    holds[i] = [holds[call][1 + graph.results[call].index(i)]]
                else:
                    holds[i] = [box(i)]
            case Backward(k):
                over = graph.steps[k].overwrites
            case Free(i):
                del holds[i]
        freed = freed_behind(schedule, position)
        dying = [
            (saved, -value)
            for value, saved in over
            if value in freed
            and graph[value].alias_of is None
            and not graph[value].resident
            and held_by(holds[value][0], holds) == 1
        ]
        if dying:
            overwritten.add(holds[-max(dying)[1]][0])
        there = {b for boxes in holds.values() for b in boxes} - overwritten
        kinds = ("activations", "captured")
        rows.append({k: sum(b.nbytes for b in there if b.kind == k) for k in kinds})
    return rows


def freed_behind(schedule: Schedule, position: int) -> set[int]:
    freed = set()
    for instruction in schedule.instructions[position + 1 :]:
        if not isinstance(instruction, Free):
            break
        freed.add(instruction.node)
    return freed


def held_by(box: Box, holds: dict[int, list[Box]]) -> int:
    return sum(box in boxes for boxes in holds.values())


@given(SEEDS)
def test_live_bytes_are_those_of_the_boxes_that_values_hold(rng: Random) -> None:
    graph, timeline = case(rng)
    for position, expected in enumerate(account(graph, timeline.schedule)):
        assert {k: timeline.columns[k][position] for k in expected} == expected


@given(SEEDS)
def test_states_are_held_between_the_first_draw_and_the_last(rng: Random) -> None:
    graph, timeline = case(rng)
    draws: dict[int, list[int]] = {i: [] for i, node in enumerate(graph) if node.state_nbytes}
    for p, instruction in enumerate(timeline.schedule):
        if isinstance(instruction, Compute) and instruction.node in draws:
            draws[instruction.node].append(p)
    for p, found in enumerate(timeline.columns["states"]):
        assert found == 5 * sum(d[0] <= p < d[-1] for d in draws.values() if d)


@given(SEEDS)
def test_what_backward_holds_follows_from_the_steps_done(rng: Random) -> None:
    graph, timeline = case(rng)
    done = 0
    for p, instruction in enumerate(timeline.schedule):
        done += isinstance(instruction, Backward)
        assert timeline.columns["cotangents"][p] == graph.cotangents[done]
        assert timeline.columns["gradients"][p] == graph.rested[done]


# -- columns ---------------------------------------------------------------------------------------


@given(SEEDS)
def test_every_column_is_a_sum_over_buffers(rng: Random) -> None:
    _, timeline = case(rng)
    for kind in KINDS:
        for p, found in enumerate(timeline.columns[kind]):
            there = (b for b in timeline.buffers if b.kind == kind and b.born <= p < b.died)
            assert found == sum(b.nbytes for b in there)


@given(SEEDS)
def test_live_is_the_sum_of_what_counts_and_the_peak_the_most_of_high(rng: Random) -> None:
    graph, timeline = case(rng)
    counted = KINDS if graph.counts_gradients else KINDS[:-1]
    for row in timeline:
        assert row.live == sum(getattr(row, kind) for kind in counted)
        assert row.high == row.live + row.workspace
        assert row.workspace >= 0
    assert timeline.peak == max((row.high for row in timeline), default=0)


@given(SEEDS)
def test_counts_and_flops_are_those_of_the_instructions(rng: Random) -> None:
    graph, timeline = case(rng)
    computes = [i.node for i in timeline.schedule if isinstance(i, Compute)]
    assert list(timeline.counts) == [computes.count(i) for i in range(len(graph))]
    forward = sum(graph[i].flops for i in set(computes))
    assert timeline.forward_flops == forward
    assert timeline.recompute_flops == sum(graph[i].flops for i in computes) - forward


@given(SEEDS)
def test_what_is_held_is_what_a_scan_of_the_buffers_finds(rng: Random) -> None:
    graph, timeline = case(rng)
    for p in range(len(timeline)):
        scanned = [b for b in timeline.buffers if b.born <= p <= b.died]
        assert sorted(map(repr, timeline.buffers.held(p))) == sorted(map(repr, scanned))
        counted = [b for b in scanned if b.kind != "gradients" or graph.counts_gradients]
        found = [h.nbytes for h in holdings(graph, timeline, p) if h.nbytes]
        there = [b.nbytes for b in counted if b.nbytes]
        over = sum(there) - timeline.columns["high"][p]
        if over <= 0 or timeline[p].phase == "free":
            assert sorted(found) == sorted(there)
        else:  # what is written over counts once
            dying = sum(b.nbytes for b in counted if b.born < p == b.died)
            assert sum(found) == max(timeline.columns["high"][p], sum(there) - dying)


# -- schedules, positions, documents ---------------------------------------------------------------


@given(SEEDS)
def test_a_schedule_is_valid_with_and_without_a_free_at_the_very_end(rng: Random) -> None:
    graph, timeline = case(rng)
    live = set()
    for instruction in timeline.schedule:
        match instruction:
            case Compute(i):
                live.add(i)
            case Free(i):
                live.remove(i)
            case Backward():
                pass
    more = Schedule((*timeline.schedule, *map(Free, sorted(live - {*graph.outputs}))))
    assert len(simulate(graph, more)) == len(more)
    while more.instructions and isinstance(more.instructions[-1], Free):
        more = Schedule(more.instructions[:-1])
        assert len(simulate(graph, more)) == len(more)


@given(SEEDS)
def test_positions_never_ascend_nor_lie_below_what_is_read_later(rng: Random) -> None:
    graph = wild_graph(rng)
    for k, place in enumerate(graph.positions):
        assert k == 0 or place <= graph.positions[k - 1]
        for step in graph.steps[k:]:
            assert all(r <= place for r in step.reads if not graph[r].resident)


@given(SEEDS)
def test_documents_come_back_equal(rng: Random) -> None:
    graph, timeline = case(rng)
    assert Graph.from_json(json.loads(json.dumps(graph.to_json()))) == graph
    found = Timeline.from_json(json.loads(json.dumps(timeline.to_json())))
    assert found.to_json() == timeline.to_json()
    assert found.schedule == timeline.schedule
    assert found.same_live_bytes(timeline) is None
