"""The waist, 1 of 3: what a program computes, and what its backward reads.

A Graph is forward-only. Its backward is implied: `Backward(i)` reads the cotangent of node i and
the residuals of node i, and contributes a cotangent to each dep that needs one. Plain data,
standard library only; saved to and loaded from JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from typing import Any

from ckpt.errors import GraphError

FORMAT = "ckpt-graph"
VERSION = 1

COTANGENTS = ("fresh", "handed", "view", "spread", "part", None)
"""What a node's backward hands to a dep: a ``fresh`` array of the dep's size; the incoming
cotangent itself ``handed`` on; a ``view`` of it (reshaped, sliced, broadcast), which shares its
buffer; a smaller fresh array ``spread`` over the dep's shape by a broadcast; a ``part``, added in
place into a slice of the dep's own cotangent; or None, where none flows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One value of the program: an array, a scalar, or a tuple of arrays that ``item`` nodes alias.

    Positions (deps, residuals, alias_of) index the graph's nodes. Sizes are in bytes; FLOPs count a
    multiply-add as 2.
    """

    name: str
    op: str
    deps: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    nbytes: int = 0
    """Bytes of the value as seen; a view (``alias_of``) costs none of its own."""
    flops: int = 0
    backward_flops: int = 0
    residuals: tuple[int, ...] = ()
    """Which deps, or the node itself, its Backward reads."""
    resident: bool = False
    """An input or a parameter: live from beginning to end, never computed or freed."""
    captured: bool = False
    """A plain array first met while the function ran: computed once, never again."""
    requires_grad: bool = True
    workspace: int = 0
    """Bytes needed only while the forward runs, beyond the result."""
    backward_workspace: tuple[int, ...] = ()
    """For each dep, bytes needed only while its cotangent is computed, beyond the result."""
    alias_of: int | None = None
    """The dep whose buffer this view shares."""
    cotangents: tuple[str | None, ...] = ()
    """For each dep, one of COTANGENTS."""
    spread_nbytes: tuple[int, ...] = ()
    """For each dep, bytes of the array behind a ``spread`` cotangent; empty if there is none."""
    regions: tuple[int, ...] = ()
    """The `@checkpoint` regions around this node, outermost first."""
    keep: bool = False
    """A policy of the innermost region says to keep this value."""
    scope: str = ""
    source: str = ""
    """Where it came from: ``model.py:7``."""


_FIELDS = tuple(f.name for f in fields(Node))
_DEFAULTS = {f.name: f.default for f in fields(Node) if f.default is not MISSING}


@dataclass(frozen=True)
class Graph:
    """Nodes in the order in which the program computed them.

    ``losses`` receive a cotangent of ones; ``outputs`` (the losses included) must be live at the
    end. Raises GraphError where the nodes don't form a graph.
    """

    nodes: tuple[Node, ...]
    losses: tuple[int, ...]
    outputs: tuple[int, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(self.nodes))
        object.__setattr__(self, "losses", tuple(self.losses))
        outputs = tuple(dict.fromkeys((*self.losses, *self.outputs)))
        object.__setattr__(self, "outputs", outputs)
        for position, node in enumerate(self.nodes):
            _check(position, node, self.nodes)
        if len(set(self.losses)) != len(self.losses):
            raise GraphError("a loss is named twice; add it to itself in the program instead")
        for position in self.outputs:
            if not 0 <= position < len(self.nodes):
                raise GraphError(f"output {position} is outside the {len(self.nodes)} nodes")

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, position: int) -> Node:
        return self.nodes[position]

    # -- what follows from the nodes ---------------------------------------------------------------

    @cached_property
    def backward_order(self) -> tuple[int, ...]:
        """The nodes that need a Backward, descending: those that a cotangent reaches."""
        reached = set(self.losses)
        order = []
        for position in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[position]
            if position not in reached or node.resident or not node.requires_grad:
                continue
            order.append(position)
            reached.update(d for d, kind in zip(node.deps, node.cotangents, strict=True) if kind)
        return tuple(order)

    @cached_property
    def backward_set(self) -> frozenset[int]:
        return frozenset(self.backward_order)

    @cached_property
    def needed(self) -> frozenset[int]:
        """Nodes that some output or some Backward depends on; the rest is never computed."""
        wanted = set(self.outputs)
        for position in self.backward_order:
            wanted.add(position)
            wanted.update(self.nodes[position].residuals)
        for position in range(len(self.nodes) - 1, -1, -1):
            if position in wanted:
                wanted.update(self.nodes[position].deps)
        return frozenset(wanted)

    @cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the nodes whose Compute reads it, ascending."""
        readers: list[list[int]] = [[] for _ in self.nodes]
        for position, node in enumerate(self.nodes):
            for dep in dict.fromkeys(node.deps):
                readers[dep].append(position)
        return tuple(map(tuple, readers))

    @cached_property
    def backward_readers(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the nodes whose Backward reads it, ascending."""
        readers: list[list[int]] = [[] for _ in self.nodes]
        for position in reversed(self.backward_order):
            for residual in dict.fromkeys(self.nodes[position].residuals):
                readers[residual].append(position)
        return tuple(map(tuple, readers))

    @cached_property
    def owners(self) -> tuple[int, ...]:
        """For each node, the node that owns its buffer (itself, unless it is a view)."""
        owners: list[int] = []
        for position, node in enumerate(self.nodes):
            owners.append(position if node.alias_of is None else owners[node.alias_of])
        return tuple(owners)

    @property
    def resident_nbytes(self) -> int:
        """Inputs and parameters: a constant beside the peak."""
        return sum(node.nbytes for node in self.nodes if node.resident)

    @cached_property
    def gradient_nbytes(self) -> int:
        """Gradients of the leaves that a cotangent reaches: a constant beside the peak."""
        leaves = set()
        for position in self.backward_order:
            node = self.nodes[position]
            for dep, kind in zip(node.deps, node.cotangents, strict=True):
                if kind and self.nodes[dep].resident:
                    leaves.add(dep)
        leaves.update(p for p in self.losses if self.nodes[p].resident)
        return sum(self.nodes[leaf].nbytes for leaf in leaves)

    @property
    def forward_flops(self) -> int:
        return sum(n.flops for p, n in enumerate(self.nodes) if p in self.needed)

    @property
    def backward_flops(self) -> int:
        return sum(self.nodes[p].backward_flops for p in self.backward_order)

    def describe(self, position: int) -> str:
        """One value in words: ``64x256 float32, 64 KiB, output of tanh, model.py:7``."""
        from ckpt.units import format_bytes

        node = self.nodes[position]
        shape = "x".join(map(str, node.shape)) or "scalar"
        what = node.op if node.resident or node.captured else f"output of {node.op}"
        parts = [f"{shape} {node.dtype}", format_bytes(node.nbytes), what]
        if node.name and node.name != node.op:
            parts[2] += f" {node.name!r}"
        return ", ".join([*parts, *filter(None, [node.scope, node.source])])

    # -- JSON --------------------------------------------------------------------------------------

    @cached_property
    def digest(self) -> str:
        """A hash of the structure: equal for two traces of the same program on the same shapes."""
        import hashlib  # it loads OpenSSL: a quarter of the time that ``ckpt --help`` takes

        made = hashlib.sha256()  # fed node by node: a text of all would dwarf the graph
        for node in self.nodes:
            row = {k: v for k, v in _as_dict(node).items() if k not in _UNHASHED}
            made.update(json.dumps(row, separators=(",", ":")).encode())
        made.update(json.dumps([self.losses, self.outputs]).encode())
        return made.hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "losses": list(self.losses),
            "outputs": list(self.outputs),
            "nodes": [_as_dict(node) for node in self.nodes],
        }

    @classmethod
    def from_json(cls, data: Any) -> Graph:
        """Read what `to_json` wrote; GraphError for anything else, naming what is wrong."""
        check_format(data, FORMAT, VERSION, GraphError)
        try:
            return cls(
                nodes=tuple(_from_dict(row) for row in data["nodes"]),
                losses=tuple(data["losses"]),
                outputs=tuple(data["outputs"]),
                name=data["name"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise GraphError(f"this {FORMAT} file is damaged: {error!r}") from None


_UNHASHED = ("name", "scope", "source", "regions", "keep")


def check_format(data: Any, expected: str, version: int, error: type[Exception]) -> None:
    """Refuse a document that isn't the expected kind of file, or of another version."""
    found = data.get("format") if isinstance(data, dict) else None
    if found != expected:
        raise error(f"not a {expected} document (its format is {found!r})")
    if data.get("version") != version:
        raise error(
            f"this {expected} document has version {data.get('version')!r}; "
            f"this release reads version {version}: make it again"
        )


def _as_dict(node: Node) -> dict[str, Any]:
    row = {name: getattr(node, name) for name in _FIELDS}
    return {k: v for k, v in row.items() if k not in _DEFAULTS or v != _DEFAULTS[k]}


def _from_dict(row: dict[str, Any]) -> Node:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    return Node(**values)


def _check(position: int, node: Node, nodes: tuple[Node, ...]) -> None:
    def refuse(why: str) -> None:
        raise GraphError(f"node {position} ({node.name or node.op}): {why}")

    for dep in node.deps:
        if not 0 <= dep < position:
            refuse(f"its dep {dep} does not come before it")
    for residual in node.residuals:
        if residual != position and residual not in node.deps:
            refuse(f"its residual {residual} is neither a dep nor itself")
    if node.alias_of is not None and node.alias_of not in node.deps:
        refuse(f"it is a view of {node.alias_of}, which is no dep of it")
    if (node.resident or node.captured) and node.deps:
        refuse("an input has no deps")
    if node.captured and (node.resident or node.requires_grad):
        refuse("a captured array is neither resident nor differentiable")
    for label, row in (
        ("cotangents", node.cotangents),
        ("backward_workspace", node.backward_workspace),
    ):
        if len(row) != len(node.deps):
            refuse(f"it has {len(node.deps)} deps but {len(row)} {label}")
    for dep, kind in zip(node.deps, node.cotangents, strict=True):
        if kind not in COTANGENTS:
            refuse(f"unknown kind of cotangent {kind!r}")
        if kind == "spread" and len(node.spread_nbytes) != len(node.deps):
            refuse("a spread cotangent needs spread_nbytes, one a dep")
        if kind and not nodes[dep].requires_grad:
            refuse(f"it sends a cotangent to {dep}, which requires no gradient")
    if min((node.nbytes, node.flops, node.backward_flops, node.workspace), default=0) < 0:
        refuse("bytes and FLOPs can't be negative")


def find(nodes: Iterable[Node], name: str) -> int:
    """The position of the node called ``name``; GraphError if there is none."""
    for position, node in enumerate(nodes):
        if node.name == name:
            return position
    raise GraphError(f"no node is called {name!r}")
