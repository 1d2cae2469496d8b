"""A plan for a graph of few equal blocks as one for a graph of many.

What the plan does with a *window*, a few blocks in a row, is repeated: where it computes forwards,
each copy behind the other; where it goes back through them, the last copy first. In the form of
`drafts` that is a schedule whatever the plan does, and of its bytes the simulation tells. Of the
windows two are repeated, one that holds fewer bytes a block and one that costs less, in the
proportion that the budget allows: what a linear program over windows would say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, chain
from typing import NamedTuple, assert_never

from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners.base.cost import Cost
from ckpt.planners.base.emit import Action, free_early, needed_only
from ckpt.planners.base.reads import closure
from ckpt.planners.search.shortened import Shortened
from ckpt.repeats import Repeats
from ckpt.schedule import Backward, Compute, Free, Schedule
from ckpt.timeline import Timeline

LONGEST = 24
"""Blocks of a window, at most."""

TRIES = 5
"""Proportions of the two windows that are simulated."""


class _Window(NamedTuple):
    held: float
    """Bytes that a block of it holds from the forward to the backward."""
    cost: float
    """What is recomputed of a block."""
    block: int
    """The first."""
    length: int


def lift(short: Shortened, schedule: Schedule, budget: int, cost: Cost) -> Timeline | None:
    """The cheapest found of the schedules that do with all blocks what ``schedule`` does with those
    of the short graph; if none is within the budget, that of the lowest peak; None where it does
    nothing twice.

    O(nodes) for each of a few proportions.
    """
    actions = [action for action in schedule if not isinstance(action, Free)]
    windows = _windows(short, actions, cost)
    if not windows:
        return None
    room = (budget - simulate(short.graph, schedule).peak) / short.left_out
    lean = max((w for w in windows if w.held <= room), default=windows[0])
    rich = min((w for w in windows if w.held > room), default=lean)
    able = (w for w in (rich, *windows) if _copies(short.left_out, lean, w, 0.0) is not None)
    rich = next(able, rich)
    found: list[tuple[int, int, int, Timeline]] = []
    more = room - lean.held  # bytes a block
    tried = set[int]()
    for _ in range(TRIES):
        copies = _copies(short.left_out, lean, rich, more)
        if copies is None or copies in tried:
            break
        tried.add(copies)
        timeline = _with_copies(short, schedule, actions, lean, rich, copies)
        over = max(0, timeline.peak - budget)
        found.append((over, cost.recompute(timeline.counts), len(found), timeline))
        more += (budget - timeline.peak) / short.left_out
    return min(found)[-1] if found else None


def _copies(blocks: int, lean: _Window, rich: _Window, more: float) -> int | None:
    """How many copies of the rich window, so that a block on average holds at most so much more
    than the lean one's; the rest is whole lean windows. None where there is no such number."""
    most = blocks // rich.length
    if rich.held > lean.held:
        share = min(max(more / (rich.held - lean.held), 0.0), 1.0)
        most = int(share * blocks) // rich.length
    whole = (n for n in range(most, -1, -1) if not (blocks - n * rich.length) % lean.length)
    more_yet = (
        n
        for n in range(most, blocks // rich.length + 1)
        if not (blocks - n * rich.length) % lean.length
    )
    return next(chain(whole, more_yet), None)


def _with_copies(
    short: Shortened, schedule: Schedule, actions: list[Action], lean: _Window, rich: _Window,
    copies: int,
) -> Timeline:  # fmt: skip
    """The whole graph's timeline with so many copies of the rich window and else lean ones."""
    whole, blocks = short.whole, short.repeats
    rest = (short.left_out - copies * rich.length) // lean.length
    for window, number in sorted([(lean, rest), (rich, copies)], key=lambda row: -row[0].block):
        actions = _repeated(actions, blocks, window, number)
        blocks = replace(blocks, count=blocks.count + number * window.length)
    done = needed_only(whole, _completed(whole, actions))
    return simulate(
        whole, replace(schedule, instructions=free_early(whole, done), graph=whole.digest)
    )


def _repeated(actions: list[Action], blocks: Repeats, window: _Window, copies: int) -> list[Action]:
    """``actions`` with so many more copies of what they do with the window, behind it."""
    low, high = (blocks.nodes(window.block + k).start for k in (0, window.length))
    first = blocks.backwards(window.block + window.length - 1).start
    behind = blocks.backwards(window.block).stop
    start = _start(actions)
    inside = [t for t in range(start) if low <= _node(actions[t]) < high] or [start]
    one, other = inside[0], inside[-1] + 1
    # Its part of the backward: from behind the last step before its own to its own last.
    steps = [(t, a.step) for t, a in enumerate(actions) if isinstance(a, Backward)]
    begins = max([t + 1 for t, q in steps if q < first], default=start)
    ends = max([t + 1 for t, q in steps if q < behind], default=start)

    def in_copy(part: Sequence[Action], copy: int) -> Iterator[Action]:
        for action in part:
            match action:
                case Compute(i) if i >= high:
                    yield Compute(i + copies * (high - low))
                case Compute(i):
                    yield Compute(i + copy * (high - low) if i >= blocks.start else i)
                case Backward(q) if q >= behind:
                    yield Backward(q + copies * (behind - first))
                case Backward(q):
                    yield Backward(q + (copies - copy) * (behind - first) if q >= first else q)
                case _:
                    assert_never(action)

    forward = (in_copy(actions[one:other], k) for k in range(copies + 1))
    backward = (in_copy(actions[begins:ends], k) for k in range(copies, -1, -1))
    return [
        *in_copy(actions[:one], 0),
        *chain.from_iterable(forward),
        *in_copy(actions[other:start], copies),
        *in_copy(actions[start:begins], copies),
        *chain.from_iterable(backward),
        *in_copy(actions[ends:], 0),
    ]


def _start(actions: Sequence[Action]) -> int:
    """Where the backward begins."""
    return next(t for t, action in enumerate(actions) if isinstance(action, Backward))


def _node(action: Action) -> int:
    assert isinstance(action, Compute)
    return action.node


def _completed(graph: Graph, actions: Sequence[Action]) -> list[Action]:
    """``actions``, and before each what it reads and none has computed."""
    made = bytearray(node.resident for node in graph)
    found: list[Action] = []
    for action in actions:
        match action:
            case Compute(i):
                reads = graph[i].deps
            case Backward(q):
                reads = graph.steps[q].reads
            case _:
                assert_never(action)
        if not all(made[i] for i in reads):
            live = {i for i, is_made in enumerate(made) if is_made}
            for i in sorted(closure(graph, reads, live)):
                found.append(Compute(i))
                made[i] = 1
        found.append(action)
        if isinstance(action, Compute):
            made[action.node] = 1
    return found


# -- windows ---------------------------------------------------------------------------------------


def _windows(short: Shortened, actions: Sequence[Action], cost: Cost) -> list[_Window]:
    """Those on the lower hull of cost over bytes, by rising bytes.

    Only windows that begin as what lies behind them would, and across whose ends nothing is
    recomputed: of nested segments the whole.
    """
    rows = _blocks(short, actions, short.cost(cost))
    found: list[_Window] = []
    for row in sorted(
        (sum(r.held for r in rows[b : b + n]) / n, sum(r.cost for r in rows[b : b + n]) / n, n, b)
        for n in range(1, LONGEST + 1)
        for b in range(1, len(rows) - n + 1)
        if rows[b - 1].does == rows[b + n - 1].does and not (rows[b].within or rows[b + n - 1].on)
    ):
        held, spent, length, block = row
        window = _Window(held, spent, block, length)
        if found and window.cost >= found[-1].cost:
            continue
        while len(found) > 1 and _above(found[-2], found[-1], window):
            found.pop()
        found.append(window)
    return found


def _above(a: _Window, b: _Window, c: _Window) -> bool:
    """Does b (bytes, cost) lie on or above the line from a to c?"""
    return (a.cost - b.cost) * (c.held - a.held) <= (a.cost - c.cost) * (b.held - a.held)


class _BlockRow(NamedTuple):
    held: int
    """Bytes, when the backward begins."""
    cost: int
    """What of it is recomputed."""
    does: tuple[tuple[int, bool], ...]
    """Of each node how often it is computed, and whether it is held."""
    within: bool
    """Is something before it recomputed for it, or for a block behind it?"""
    on: bool
    """Is something of it, or before it, recomputed for a block behind it?"""


def _blocks(short: Shortened, actions: Sequence[Action], cost: Cost) -> list[_BlockRow]:
    graph, blocks = short.graph, short.repeats
    owners = graph.owners
    start = _start(actions)
    counts = [0] * len(graph)
    held, fresh = set[int](), set[int]()
    crossed = [0] * (blocks.count + 2)  # differences: by what is recomputed before it, for behind
    waiting: list[int] = []  # blocks of which something was recomputed for the next step
    for t, action in enumerate(actions):
        match action:
            case Compute(i):
                reads = graph[i].deps
                if counts[i] and t >= start:
                    waiting.append(blocks.block(i))
                counts[i] += 1
            case Backward(q):
                reads = graph.steps[q].reads
                behind = blocks.block(graph.positions[q])
                for block in waiting:
                    low, high = (min(max(k + 1, 0), blocks.count) for k in (block, behind))
                    if low < high:
                        crossed[low] += 1
                        crossed[high] -= 1
                waiting.clear()
            case _:
                assert_never(action)
        if t >= start:
            held.update(i for i in reads if i not in fresh)
            if isinstance(action, Compute):
                fresh.add(action.node)
    buffers = {owners[i] for i in held}
    across = [n > 0 for n in accumulate(crossed)]
    rows = []
    for b in range(blocks.count):
        nodes = blocks.nodes(b)
        rows.append(
            _BlockRow(
                sum(graph[i].nbytes for i in nodes if i in buffers and not graph[i].call),
                sum((counts[i] - 1) * cost.nodes[i] for i in nodes if counts[i] > 1),
                tuple((counts[i], i in held) for i in nodes),
                across[b],
                across[b + 1],
            )
        )
    return rows
