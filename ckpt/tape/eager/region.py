"""A checkpointed region: what ran inside, to be replayed from the tape when backward comes to it.

The nodes of a region remember op, inputs and parameters and no values. What flows in from outside
is kept on its own node (a snapshot); plain arrays met inside are captured, and watched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

from ckpt.tape.core.node import TapeNode, lost
from ckpt.tape.core.op import OUT
from ckpt.tape.eager.interpreter import COMPUTE, FREE

Policy = Callable[[TapeNode], bool]
Heap = list[tuple[int, TapeNode]]
"""Nodes with a cotangent that wait for their Backward, the latest first."""


class Region:
    """One call of a checkpointed function. Holds no nodes: they hold it; it would be a cycle."""

    __slots__ = ("above", "number", "parent", "policy", "replayed")

    def __init__(self, parent: Region | None, policy: Policy | None, number: int) -> None:
        self.parent = parent
        self.above: Region | None = parent.outermost if parent else None
        self.policy = policy
        self.number = number
        self.replayed: object = None
        """The descent that has been here last."""

    @property
    def outermost(self) -> Region:
        return self.above or self  # not stored: it would be a cycle

    def keeps(self, node: TapeNode) -> bool:
        """Does this region's policy say to keep the node's value?"""
        return self.policy is not None and self.policy(node)

    def path(self) -> tuple[int, ...]:
        """The numbers of the regions around, outermost first."""
        region: Region | None = self
        numbers: list[int] = []
        while region is not None:
            numbers.append(region.number)
            region = region.parent
        return tuple(reversed(numbers))

    def holds(self, node: TapeNode) -> bool:
        """Is the node in this region, or in one nested in it?"""
        region = node.region
        while region is not None:
            if region is self:
                return True
            region = region.parent
        return False

    # -- forward -----------------------------------------------------------------------------------

    def enter(self, node: TapeNode, arrays: list[Any]) -> None:
        """Keep what flows in from outside."""
        outermost = self.outermost
        assert node.inputs is not None
        frees = 0
        for k, source in enumerate(node.inputs):
            if type(source) is not TapeNode or source.value is not None:
                continue
            if source.region is None or source.region.outermost is not outermost:
                source.value = arrays[k]
                frees |= (source.op is not None) << k  # a leaf may be read by another loss too
        node.frees = frees

    # -- backward ----------------------------------------------------------------------------------

    def replay(self, heap: Heap, descent: object) -> Iterator[tuple[int, TapeNode]]:
        """Rematerialize what the Backwards of this region, and of those around it, will read.

        Once a ``descent``, of which there are several where a block's results go into several
        losses, or with retain_graph. Called when backward first comes to a region, from the
        outermost inwards: all cotangents from outside have arrived by then, so what is reachable
        from the waiting nodes is all that will be differentiated. Values inside a nested region are
        left to that region's own replay.
        """
        around = []
        region: Region | None = self
        while region is not None and region.replayed is not descent:
            around.append(region)
            region = region.parent
        for region in reversed(around):
            region.replayed = descent
            roots = [waiting for _, waiting in heap if region.holds(waiting)]
            yield from region._rematerialize(_reachable(roots, region))

    def _rematerialize(self, differentiated: list[TapeNode]) -> Iterator[tuple[int, TapeNode]]:
        """Compute what the Backwards of these nodes read, and free what only led there."""
        last = self._last_readers(differentiated)
        wanted = {source for source in last if self.holds(source)}
        for source in wanted:
            reader = last[source]
            if reader is not source and reader.inputs is not None:
                reader.frees |= 1 << next(k for k, s in enumerate(reader.inputs) if s is source)
        order = _closure([n for n in wanted if n.value is None])
        last_use = {source: n for n in order for source in _nodes(n)}
        drops: dict[TapeNode, list[TapeNode]] = {}
        for source in set(order) - wanted:
            drops.setdefault(last_use[source], []).append(source)
        for n in order:
            yield COMPUTE, n
            for source in drops.get(n, ()):
                yield FREE, source

    def _last_readers(self, differentiated: list[TapeNode]) -> dict[TapeNode, TapeNode]:
        """The values that Backwards directly in this region, and replays of nested ones, read.

        Each with its last reader, which is the lowest in position: Backwards descend, as the nodes
        do that are given. Where an earlier descent found other last readers, that is forgotten.
        """
        last: dict[TapeNode, TapeNode] = {}
        nested: dict[Region, list[TapeNode]] = {}
        for n in differentiated:
            for k, source in enumerate(n.inputs or ()):
                if n.frees >> k & 1 and self.holds(source):
                    n.frees ^= 1 << k
            if n.region is self:
                last.update(dict.fromkeys(_residuals(n), n))
            else:
                nested.setdefault(self._child(n), []).append(n)
        for child, nodes in nested.items():
            missing = [v for v in child._last_readers(nodes) if v.value is None and child.holds(v)]
            for n in (*nodes, *_closure(missing, within=child)):
                for source in _nodes(n):
                    if not child.holds(source):
                        last[source] = min(n, last.get(source, n), key=_position)
        return last

    def _child(self, node: TapeNode) -> Region:
        """The region nested directly in this one that holds the node."""
        region: Region = node.region
        while region.parent is not self:
            assert region.parent is not None
            region = region.parent
        return region


_position = attrgetter("position")


def _nodes(node: TapeNode) -> list[TapeNode]:
    """The tape nodes among a node's inputs."""
    return [source for source in node.inputs or () if type(source) is TapeNode]


def _residuals(node: TapeNode) -> list[TapeNode]:
    """The tape nodes whose values this node's Backward reads."""
    assert node.op is not None and node.inputs is not None
    sources = [
        node if k == OUT else node.inputs[k] for k in node.op.keeps(len(node.inputs), node.mask)
    ]
    return [s for s in sources if type(s) is TapeNode]


def _reachable(roots: list[TapeNode], region: Region) -> list[TapeNode]:
    """The region's nodes that a cotangent will reach from the roots, descending."""
    seen = set(roots)
    stack = list(roots)
    while stack:
        for source in _nodes(stack.pop()):
            if source.requires_grad and source not in seen and region.holds(source):
                seen.add(source)
                stack.append(source)
    return sorted(seen, key=_position, reverse=True)


def _closure(wanted: list[TapeNode], within: Region | None = None) -> list[TapeNode]:
    """What must be computed, ascending, to have the wanted values from those that are live."""
    seen = set(wanted)
    stack = list(wanted)
    while stack:
        node = stack.pop()
        if node.op is None:
            raise lost(node)
        for source in _nodes(node):
            if source.value is None and source not in seen:
                if within is not None and not within.holds(source):
                    continue
                seen.add(source)
                stack.append(source)
    return sorted(seen, key=_position)
