"""Equal blocks: where a graph repeats itself, such as layers or steps in time.

A *block* is some nodes in a row with the steps of the backward that belong to them. Two blocks that
follow each other are equal if their nodes and steps are, place by place, what they read being as
far back, or the same value before them all, or inputs alike. So a plan for one is one for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from operator import eq
from typing import Any

from ckpt.graph import BackwardRow, Graph

LEAST = 3
"""So many blocks are a repetition."""

PERIODS = 16
"""How many lengths of a block are tried, the most frequent distances between nodes alike."""

ROUNDS = 3
"""How far back nodes alike read values alike."""


@dataclass(frozen=True)
class Repeats:
    """``count`` equal blocks in a row, of ``period`` nodes and ``steps`` steps each."""

    start: int
    """The first block's first node."""
    period: int
    count: int
    step: int
    """The last block's first step: it is the first whose backward runs."""
    steps: int
    alike: int
    """How many blocks there are with those before and behind whose nodes are of the same ops and
    sizes, whatever they or their steps read."""

    @property
    def stop(self) -> int:
        """Behind the last block's last node."""
        return self.start + self.period * self.count

    def block(self, node: int) -> int:
        """Which block the node lies in; below 0 or at least ``count`` if before or behind all."""
        return (node - self.start) // self.period

    def nodes(self, block: int) -> range:
        first = self.start + self.period * block
        return range(first, first + self.period)

    def backwards(self, block: int) -> range:
        """The block's steps of the backward."""
        first = self.step + self.steps * (self.count - 1 - block)
        return range(first, first + self.steps)


def find_repeats(graph: Graph) -> Repeats | None:
    """The equal blocks that most nodes lie in; None where there aren't three.

    A block begins where least crosses. O(nodes) for each of a few lengths of a block.
    """
    labels = _labels(graph)
    best: Repeats | None = None
    for period, reach in _periods(graph, labels):
        covered = 0 if best is None else best.period * best.count
        if reach <= covered:
            continue
        found = _blocks(graph, labels, period)
        if found is not None and found.period * found.count > covered:
            best = found
    return best


def longest_row(labels: Sequence[int]) -> tuple[int, int, int]:
    """The longest row of equal blocks in a sequence, of whatever length: where it starts, how long
    a block is, and how many there are. Linear where nearly all repeats, quadratic where nothing
    does."""
    start, length, period = 0, 0, 1
    for n in range(1, len(labels)):
        if len(labels) - n <= length:
            break
        at, run = _longest(map(eq, labels, labels[n:]))
        if run > length:
            start, length, period = at, run, n
    return start, period, length // period + 1


def _labels(graph: Graph) -> list[int]:
    """The same number for nodes that are equal by themselves."""
    numbers: dict[Any, int] = {}
    found = []
    for node in graph:
        deps = node.deps
        alias = -1 if node.alias_of is None else deps.index(node.alias_of)
        over = tuple((deps.index(value), saved) for value, saved in node.overwrites)
        key = (
            node.op, node.shape, node.dtype, node.nbytes, node.flops, node.moved_nbytes,
            node.workspace, node.workspace_again, node.state_nbytes, node.resident, node.captured,
            node.call, len(deps), alias, over,
        )  # fmt: skip
        found.append(numbers.setdefault(key, len(numbers)))
    return found


def _periods(graph: Graph, labels: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Lengths that a block might have, and how many nodes they might cover, most first."""
    refined = list(labels)
    for _ in range(ROUNDS):
        numbers: dict[Any, int] = {}
        keys = ((refined[i], *(refined[d] for d in node.deps)) for i, node in enumerate(graph))
        refined = [numbers.setdefault(key, len(numbers)) for key in keys]
    before: dict[int, int] = {}
    distances: Counter[int] = Counter()
    for i in graph.computed:
        if refined[i] in before:
            distances[i - before[refined[i]]] += 1
        before[refined[i]] = i
    common = sorted(distances, key=lambda d: (-distances[d], d))[:PERIODS]
    reach = [(_longest(map(eq, labels, labels[d:]))[1] + d, -d) for d in common]
    for covers, period in sorted(reach, reverse=True):
        yield -period, covers


def _longest(same: Iterable[bool]) -> tuple[int, int]:
    """Where the longest run of True begins, and its length."""
    best = at = start = 0
    for is_same, run in groupby(same):
        length = sum(1 for _ in run)
        if is_same and length > best:
            start, best = at, length
        at += length
    return start, best


def _blocks(graph: Graph, labels: Sequence[int], period: int) -> Repeats | None:
    """The longest row of equal blocks of that length."""
    same = list(map(eq, labels, labels[period:]))
    shared = [-1] * len(same)
    for i, is_same in enumerate(same):
        if is_same:
            same[i], shared[i] = _read_alike(graph, labels, i, period)
    start, length = _longest(same)
    while (first := max(shared[start : start + length], default=-1) + 1) > start:
        start, length = first, start + length - first  # all blocks are behind what they share
    if length < (LEAST - 1) * period:
        return None
    crossing = _crossing(graph)
    phase = min(range(period), key=lambda k: (crossing[start + k], k))
    start, length = start + phase, length + period - phase
    count = length // period
    if count < LEAST:
        return None
    keys: list[list[Any]] = [[] for _ in range(count)]
    steps: list[list[int]] = [[] for _ in range(count)]
    for q, key in _steps(graph, labels, start, period, count):
        block = (graph.positions[q] - start) // period
        keys[block].append(key)
        steps[block].append(q)
    first, equal = _longest(a == b for a, b in pairwise(keys))
    last = first + equal
    if equal + 1 < LEAST or not steps[last]:
        return None
    start += first * period
    alike = equal + 1 + _further(labels, start, period, -1)
    alike += _further(labels, start + equal * period, period, 1)
    return Repeats(start, period, equal + 1, steps[last][0], len(steps[last]), alike)


def _further(labels: Sequence[int], start: int, period: int, way: int) -> int:
    """How many blocks alike go on from there, forth or back."""
    block = labels[start : start + period]
    found = 0
    while (start := start + way * period) >= 0 and labels[start : start + period] == block:
        found += 1
    return found


def _read_alike(graph: Graph, labels: Sequence[int], i: int, period: int) -> tuple[bool, int]:
    """Do nodes i and i + period read alike? And the last value that they share; -1: none."""
    shared = -1
    for one, other in zip(graph[i].deps, graph[i + period].deps, strict=True):
        if graph[one].resident and graph[other].resident and labels[one] == labels[other]:
            continue
        if one == other:
            shared = max(shared, one)
        elif other != one + period:
            return False, -1
    return True, shared


def _steps(
    graph: Graph, labels: Sequence[int], start: int, period: int, count: int
) -> Iterator[tuple[int, Any]]:
    """The steps of the blocks, and of each what is the same for its like in other blocks."""
    aside = waiting(graph.rows, len(graph.steps), graph.counts_gradients)
    for q, position in enumerate(graph.positions):
        if not start <= position < start + period * count:
            continue
        first = position - (position - start) % period

        def place(node: int, first: int = first) -> tuple[str, int]:
            if graph[node].resident:
                return "input", labels[node]
            return ("shared", node) if node < start else ("own", node - first)

        step = graph.steps[q]
        yield q, (
            step.label, step.flops, step.moved_nbytes, step.during - aside[q],
            position - first, tuple(map(place, step.reads)),
            tuple((place(value), saved) for value, saved in step.overwrites),
        )  # fmt: skip


def waiting(rows: Iterable[BackwardRow], steps: int, gradients: bool) -> list[int]:
    """Before each step, the bytes of seeds that wait and, if they count, of gradients that rest:
    they fall and grow from block to block."""
    change = [0] * (steps + 2)
    for row in rows:
        if row.kind == "seed" or (gradients and row.kind == "gradient"):
            change[row.first + 1] += row.nbytes
            change[row.last + 1] -= row.nbytes
    return list(accumulate(change[:steps]))


def _crossing(graph: Graph) -> list[int]:
    """Bytes made before each position that a node or a step behind it reads."""
    ends = list(range(len(graph)))
    for i, node in enumerate(graph):
        for dep in node.deps:
            ends[dep] = i
    for step, position in zip(graph.steps, graph.positions, strict=True):
        for read in step.reads:
            ends[read] = max(ends[read], position)
    change = [0] * (len(graph) + 2)
    for owner, sharers in graph.sharers.items():
        if not graph[owner].resident and not graph[owner].call:
            change[owner + 1] += graph[owner].nbytes
            change[max(ends[i] for i in sharers) + 1] -= graph[owner].nbytes
    return list(accumulate(change))
