"""The schedule that the program's own `@checkpoint` regions ask for."""

from __future__ import annotations

from ckpt.graph import Graph
from ckpt.planners.base.emit import Emitter
from ckpt.planners.base.reads import permanent
from ckpt.planners.base.registry import planner
from ckpt.schedule import Compute, Schedule


@planner("as_written")
def as_written(graph: Graph, budget: int | None = None) -> Schedule:
    """Drop and replay what `@checkpoint` says, as the tape does; without regions, store-all.

    Source: the program. A value belongs to the innermost of its regions that also encloses all its
    readers; a value that its policy keeps, to the one around that. When a region ends, the values
    that belong to it go. When the backward reaches a region, it is replayed once, as far as its
    Backwards read: values of regions inside it are temporaries then, replayed when the backward
    reaches those. A residual goes after its last Backward reader.

    Guarantee: a value in d nested regions is computed at most d + 1 times. Ignores: the budget, but
    for refusing one that it exceeds. Cost: linear in nodes times nesting.
    """
    depths = _depths(graph)
    replays = _replays(graph, depths)
    emitter = Emitter(graph)
    reads = {read for step in graph.steps for read in step.reads if not depths[read]}
    emitter.compute({*graph.outputs, *reads})  # of a call, results that backward alone reads
    replayed = set()
    for k, step in enumerate(graph.steps):
        for region in () if step.at is None else graph.nodes[step.at].regions:
            if region not in replayed:
                replayed.add(region)
                emitter.actions.extend(map(Compute, replays.get(region, ())))
        emitter.backward(k)
    notes = {"regions": len({region for node in graph.nodes for region in node.regions})}
    return emitter.schedule("as_written", budget, notes)


def _depths(graph: Graph) -> list[int]:
    """For each node, how many of its regions, from outside, it belongs to; 0: it is kept.

    Values that share a buffer are kept together, as far out as the one that is kept longest.
    """
    aside = permanent(graph)
    shared: dict[int, int] = {}
    for i, node in enumerate(graph.nodes):
        depth = 0 if i in aside else len(node.regions) - node.keep
        for reader in graph.readers[i]:
            if reader in graph.needed:
                depth = min(depth, _common(node.regions, graph.nodes[reader].regions))
        owner = graph.owners[i]
        shared[owner] = min(shared.get(owner, depth), max(depth, 0))
    return [shared[owner] for owner in graph.owners]


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """How many regions, from outside, two nodes have in common."""
    count = 0
    for one, other in zip(a, b, strict=False):
        if one != other:
            break
        count += 1
    return count


def _replays(graph: Graph, depths: list[int]) -> dict[int, list[int]]:
    """For each region, the nodes that its replay computes, ascending.

    The innermost regions come first: what their replays read becomes a target of those around them.
    """
    nodes = graph.nodes
    depth_of = {r: d for node in nodes for d, r in enumerate(node.regions, 1)}
    targets: dict[int, set[int]] = {region: set() for region in depth_of}

    def belongs_to(i: int) -> int:
        return nodes[i].regions[depths[i] - 1]

    for step in graph.steps:
        for read in step.reads:
            if depths[read]:
                targets[belongs_to(read)].add(read)
    replays = {}
    for region in sorted(targets, key=lambda r: -depth_of[r]):
        depth = depth_of[region]
        computed: set[int] = set()
        stack = list(targets[region])
        while stack:
            i = stack.pop()
            if i in computed:
                continue
            computed.add(i)
            for dep in nodes[i].deps:
                if depths[dep] >= depth:
                    stack.append(dep)
                elif depths[dep]:
                    targets[belongs_to(dep)].add(dep)
        replays[region] = sorted(computed)
    return replays
