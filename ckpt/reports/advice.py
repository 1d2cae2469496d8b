"""Where checkpointing can't help, and why."""

from __future__ import annotations

from ckpt.graph import Graph
from ckpt.units import format_bytes, format_flops


def advice(graph: Graph) -> list[str]:
    """A line for each outermost `@checkpoint` region that saves nothing worth its recompute.

    Two cases. A block whose residuals are its own inputs and outputs: those stay anyway. And a last
    segment: backward begins with it, so all it let go of is back before anything else has filled
    the room.
    """
    regions: dict[int, list[int]] = {}
    for i, node in enumerate(graph):
        if node.regions and i in graph.needed:
            regions.setdefault(node.regions[0], []).append(i)
    found: dict[str, int] = {}
    for nodes in regions.values():
        line = _verdict(graph, nodes)
        if line:
            found[line] = found.get(line, 0) + 1
    return [f"{line} ({times} blocks)" if times > 1 else line for line, times in found.items()]


def _verdict(graph: Graph, nodes: list[int]) -> str:
    inside = set(nodes)
    first, last = nodes[0], nodes[-1]
    flops = sum(graph[i].flops for i in nodes)
    where = graph[first].source or graph[first].op
    saved = _kept(graph, nodes, inside)
    if not saved:
        return (
            f"checkpoint at {where}: saves nothing, since all that its backward reads are its own "
            "inputs and outputs, which stay anyway: drop it, or put several layers in one block"
        )
    after = [i for i in range(last + 1, len(graph)) if i in graph.needed and not graph[i].resident]
    later = _kept(graph, after, set())
    if later < saved // 2:
        return (
            f"checkpoint at {where}: it is the last segment, and backward begins with it: what it "
            f"lets go of ({format_bytes(saved)}) is recomputed ({format_flops(flops)}) before "
            f"anything else needs the room: leave it plain"
        )
    return ""


def _kept(graph: Graph, nodes: list[int], inside: set[int]) -> int:
    """Bytes of the buffers among ``nodes`` that a backward reads and nothing outside holds."""
    read: set[int] = set()
    held: set[int] = set()
    for i in nodes:
        owner = graph.owners[i]
        if graph[owner].resident or graph[owner].captured or graph[i].keep:
            continue
        if graph.step_readers[i]:
            read.add(owner)
        if inside and (
            owner not in inside
            or any(r not in inside for r in graph.readers[i])
            or any(graph.steps[k].at not in inside for k in graph.step_readers[i])
            or i in graph.outputs
        ):
            held.add(owner)
    return sum(graph[o].nbytes for o in read - held)
