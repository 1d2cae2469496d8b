"""A captured step as a Graph, with what each node and each step is in the list of calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from ckpt.graph import BackwardRow, BackwardStep, Graph
from ckpt.torch.capture.kernels import Ref
from ckpt.torch.capture.record import AtenCall, Captured, Version
from ckpt.torch.lowering.backward import Backwards, StepCode
from ckpt.torch.lowering.costs import flops_of, moved_by
from ckpt.torch.lowering.forward import Forward, Piece

COTANGENT: Literal["cotangent"] = "cotangent"
GRADIENT: Literal["gradient"] = "gradient"
Workspace = Callable[[AtenCall], int]


@dataclass(slots=True)
class Lowered:
    """The graph, and beside it the code."""

    captured: Captured
    graph: Graph
    pieces: list[Piece]
    node_of: dict[int, int]
    """Version of the forward -> node."""
    backwards: Backwards

    @property
    def versions(self) -> list[Version]:
        return self.backwards.versions

    @property
    def steps(self) -> list[StepCode]:
        return self.backwards.steps


def lower(
    captured: Captured,
    *,
    workspace: Workspace = lambda call: 0,
    accumulate: bool = False,
    name: str = "",
) -> Lowered:
    """``workspace`` tells what a call needs beside its results while it runs, in bytes. With
    ``accumulate`` gradients exist already, and each new one lives until it is added to its own."""
    forward = Forward(captured)
    backwards = Backwards(captured, accumulate)
    nodes = forward.nodes(workspace, partial(_state_nbytes, captured.versions))
    rows = _rows(captured, backwards, forward, accumulate)
    steps = _steps(captured, backwards, forward, nodes, rows, workspace)
    outputs = [
        forward.node_of[ref.version]
        for ref in captured.outputs
        if isinstance(ref, Ref) and forward.pieces[forward.node_of[ref.version]].kind != "leaf"
    ]
    graph = Graph(
        tuple(nodes), tuple(steps), tuple(rows), tuple(dict.fromkeys((*outputs, *forward.effects))),
        gradients="added" if accumulate else "appear", name=name,
    )  # fmt: skip
    return Lowered(captured, graph, forward.pieces, forward.node_of, backwards)


def _state_nbytes(versions: list[Version], call: AtenCall) -> int:
    """Of the generator that a random call draws from; that of a GPU is kept on the host."""
    made = [*call.makes, *(after for _, after in call.writes)]
    if any(versions[v].device.type == "cuda" for v in made):
        return 0
    generator = call.kwargs.get("generator")
    return int(generator.get_state().numel()) if generator is not None else CPU_STATE_NBYTES


CPU_STATE_NBYTES = 5056


def _rows(
    captured: Captured, backwards: Backwards, forward: Forward, accumulate: bool
) -> list[BackwardRow]:
    end = len(backwards.steps)
    rows = []
    kind: Literal["cotangent", "gradient"]
    owner: int | None
    for version in captured.versions:
        if version.seed is not None and end:  # the caller of backward holds it to the end
            rows.append(BackwardRow(kind="seed", nbytes=version.nbytes, first=0, last=end))
    delivered = {n: k for k, step in enumerate(backwards.steps) for n in step.delivers}
    leaf_nodes = {id(leaf): k for k, leaf in _leaf_nodes(captured, forward)}
    whose: dict[int, int | None] = {}
    rest: dict[int, int] = {}
    for number, ref in enumerate(backwards.gradients):
        buffer = backwards.buffer(ref.version)
        whose[buffer] = leaf_nodes.get(id(captured.targets[number]))
        rest[buffer] = max(rest.get(buffer, 0), delivered.get(number, 0))
    for buffer, first in backwards.first.items():
        if buffer in backwards.resting:
            last = rest[buffer] if accumulate else end
            kind, owner = GRADIENT, whose[buffer]
        else:
            last, kind, owner = backwards.last[buffer], COTANGENT, None
        rows.append(
            BackwardRow(
                kind=kind, nbytes=backwards.nbytes[buffer], first=first, last=last, whose=owner
            )
        )
    return rows


def _leaf_nodes(captured: Captured, forward: Forward) -> list[tuple[int, Any]]:
    """Node of each leaf that is differentiated."""
    found = []
    for k, piece in enumerate(forward.pieces):
        if piece.kind == "leaf":
            leaf = captured.versions[piece.version].leaf
            for target in captured.targets:
                if leaf is not None and (
                    leaf.tensor is target.tensor
                    or (leaf.argument is not None and leaf.argument == target.argument)
                ):
                    found.append((k, target))
    return found


def _steps(
    captured: Captured, backwards: Backwards, forward: Forward, nodes: list[Any],
    rows: list[BackwardRow], workspace: Workspace,
) -> list[BackwardStep]:  # fmt: skip
    count = len(backwards.steps)
    born, dies = [0] * (count + 1), [0] * (count + 1)
    for row in rows:
        if row.kind != "seed":
            born[row.first] += row.nbytes
            dies[row.last] += row.nbytes
    live = sum(row.nbytes for row in rows if row.kind == "seed")
    of_link = {}
    for link, version in captured.links.items():
        node = forward.node_of.get(version)
        by = captured.versions[version].made_by
        if node is not None and forward.pieces[node].kind not in ("leaf", "effect"):
            of_link[link] = node, captured.calls[by] if by >= 0 else None
    steps = []
    for k, step in enumerate(backwards.steps):
        call = step.call
        live += born[k]
        during = live + workspace(call)
        live -= dies[k]
        at, origin = of_link.get(call.link, (None, None))
        reads = {
            forward.node_of[v] for v in call.reads
            if v in forward.node_of and not nodes[forward.node_of[v]].resident
        }  # fmt: skip
        steps.append(
            BackwardStep(
                label=origin.name if origin is not None else call.name,
                reads=tuple(sorted(reads)),
                flops=flops_of(call),
                moved_nbytes=moved_by(call, backwards.versions),
                during=during,
                at=at,
                source=origin.source if origin is not None else "",
            )
        )
    return steps
