"""What reads what: the values that stay, those that some steps read, and what these take."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ckpt.graph import Graph


def permanent(graph: Graph) -> frozenset[int]:
    """Nodes that are never rematerialized: once computed they stay until their last reader.

    Residents, captured values, and their views (which cost nothing to keep); outputs, and the
    values that share a buffer with one.
    """
    kept = {graph.owners[output] for output in graph.outputs}
    kept.update(i for i, node in enumerate(graph.nodes) if node.resident or node.captured)
    return frozenset(i for i, owner in enumerate(graph.owners) if owner in kept)


def read_by(graph: Graph, steps: Iterable[int]) -> set[int]:
    """What some steps of the backward read, inputs aside."""
    return {j for q in steps for j in graph.steps[q].reads if not graph[j].resident}


def closure(graph: Graph, wanted: Iterable[int], live: Collection[int] = ()) -> set[int]:
    """``wanted``, unless live, and all that it takes, down to what is live or resident."""
    found = set(wanted).difference(live)
    stack = list(found)
    while stack:
        for dep in graph[stack.pop()].deps:
            if dep not in found and dep not in live and not graph[dep].resident:
                found.add(dep)
                stack.append(dep)
    return found


def divide(graph: Graph, number: int) -> list[range]:
    """Runs of Backwards, at most ``number`` of them, that read about equally many bytes."""
    count = len(graph.steps)
    if number >= count:
        return [range(q, q + 1) for q in range(count)] or [range(0)]
    weights = [1 + sum(graph[j].nbytes for j in step.reads) for step in graph.steps]
    total, done, start = sum(weights), 0, 0
    groups: list[range] = []
    for q, weight in enumerate(weights):
        done += weight
        if done * number >= total * (len(groups) + 1) or q == count - 1:
            groups.append(range(start, q + 1))
            start = q + 1
    return groups
