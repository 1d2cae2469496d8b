"""The waist, 1 of 3: what a program computes, and its backward as data.

A Graph is *nodes*, the values of the forward in the order of the program; *steps*, the backward's
ops in the order in which they run; and *rows*, the bytes that backward makes and still has after a
step. That order is fixed, so planners need to know nothing of derivatives: only what each step
reads, and what it holds meanwhile. Plain data, standard library only; saved to and loaded from
JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from itertools import accumulate, pairwise
from sys import intern
from typing import Any, Literal

from ckpt.errors import GraphError
from ckpt.reading import MOST, check_format, checked
from ckpt.text import printable
from ckpt.units import format_bytes

FORMAT = "ckpt-graph"
VERSION = 2

Overwrites = tuple[tuple[int, int], ...]
"""Pairs (value, bytes saved): whose buffer may be taken over, and by how much the instruction then
needs less. One is, where the value's Free is in the run of Frees right behind and nobody shares the
buffer, which then dies at that instruction; of several, the one that saves most. A value that owns
its buffer, and no view."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One value of the program: an array, a scalar, or an effect of 0 bytes.

    Positions (deps, alias_of, overwrites) index the graph's nodes. Sizes are in bytes; FLOPs count
    a multiply-add as 2.
    """

    name: str
    op: str
    deps: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    nbytes: int = 0
    """Bytes of the value as seen; a view (``alias_of``) costs none of its own."""
    flops: int = 0
    moved_nbytes: int = 0
    """Bytes that computing it reads and writes."""
    workspace: int = 0
    """Bytes needed only while it is computed, beyond the result."""
    workspace_again: int = 0
    """The same, on top, of a second or later Compute."""
    scratch: int = 0
    """Bytes beyond result and workspace that are held while libraries allocate out of sight of the
    front end's witness; in no peak."""
    state_nbytes: int = 0
    """Of a random draw: its generator's state, held from the first Compute to the last if there
    are several."""
    resident: bool = False
    """An input or a parameter: live from beginning to end, never computed or freed."""
    captured: bool = False
    """Computed once and never again: a plain array first met while the function ran, a draw that
    can't be replayed, an effect on state."""
    requires_grad: bool = True
    call: bool = False
    """An op with several results: the nodes whose only dep it is. Each has a buffer of its own,
    which is made with the call, and there as long as the call or the result (or a view of it) is
    live. ``nbytes`` are those of results that have no node."""
    alias_of: int | None = None
    """The dep whose buffer this view shares."""
    overwrites: Overwrites = ()
    regions: tuple[int, ...] = ()
    """The `@checkpoint` regions around this node, outermost first."""
    keep: bool = False
    """A policy of the innermost region says to keep this value."""
    scope: str = ""
    source: str = ""
    """Where it came from: ``model.py:7``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackwardStep:
    """One op of the backward."""

    label: str
    """What it is the backward of: an op's name."""
    reads: tuple[int, ...] = ()
    """Any nodes, which must be live when it runs."""
    flops: int = 0
    moved_nbytes: int = 0
    during: int = 0
    """The most bytes held beside the activations while it runs, rows included."""
    scratch: int = 0
    overwrites: Overwrites = ()
    at: int | None = None
    """The value whose cotangent it takes, if there is one and it is known."""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackwardRow:
    """Bytes that backward makes in step ``first`` and lets go of in step ``last``."""

    kind: Literal["seed", "cotangent", "gradient"]
    nbytes: int
    first: int
    last: int
    """As many as there are steps: it is there at the end."""
    whose: int | None = None
    """The node whose cotangent or gradient it is; None: nobody's."""


ROW_KINDS = ("seed", "cotangent", "gradient")
GRADIENTS = ("beforehand", "appear", "added")
"""Whether gradients are constants beside the peak, allocated ``beforehand``; ``appear`` as backward
makes them, and count; or are ``added`` to ones that exist, each new one counted while it lasts."""

_FIELDS = {
    kind: {f.name: f.default for f in fields(kind)} for kind in (Node, BackwardStep, BackwardRow)
}
"""Of each kind of row the fields with their defaults, or a mark that there is none."""

_UNHASHED = ("name", "label", "scope", "source", "regions", "keep")
_HASHED = {
    kind: {name: default for name, default in found.items() if name not in _UNHASHED}
    for kind, found in _FIELDS.items()
}


@dataclass(frozen=True)
class Graph:
    """Nodes in the order of the program, and the backward in the order in which it runs.

    ``outputs`` are live from before the first step to the end. Raises GraphError where the parts
    don't form a graph.
    """

    nodes: tuple[Node, ...]
    steps: tuple[BackwardStep, ...] = ()
    rows: tuple[BackwardRow, ...] = ()
    outputs: tuple[int, ...] = ()
    gradients: str = "beforehand"
    """One of GRADIENTS."""
    name: str = ""
    lines: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """What the source says, by the sources of nodes and steps, as far as it was saved."""

    def __post_init__(self) -> None:
        for name in ("nodes", "steps", "rows"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "outputs", tuple(dict.fromkeys(self.outputs)))
        _check(self)

    def __len__(self) -> int:
        return len(self.nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, position: int) -> Node:
        return self.nodes[position]

    # -- the forward -------------------------------------------------------------------------------

    @cached_property
    def needed(self) -> frozenset[int]:
        """Nodes that some output or some step depends on; the rest is never computed."""
        wanted = {*self.outputs, *(r for step in self.steps for r in step.reads)}
        for position in range(len(self.nodes) - 1, -1, -1):
            if position in wanted:
                wanted.update(self.nodes[position].deps)
        return frozenset(wanted)

    @cached_property
    def computed(self) -> tuple[int, ...]:
        """Those that are ever computed, ascending: what is needed and not resident."""
        return tuple(i for i in sorted(self.needed) if not self.nodes[i].resident)

    @cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the nodes whose Compute reads it, ascending."""
        return _inverted(len(self.nodes), (node.deps for node in self.nodes))

    @cached_property
    def owners(self) -> tuple[int, ...]:
        """For each node, the node that owns its buffer (itself, unless it is a view)."""
        owners: list[int] = []
        for position, node in enumerate(self.nodes):
            owners.append(position if node.alias_of is None else owners[node.alias_of])
        return tuple(owners)

    @cached_property
    def sharers(self) -> dict[int, tuple[int, ...]]:
        """For each node that owns a buffer, the nodes that share it: itself and its views."""
        found: dict[int, list[int]] = {}
        for position, owner in enumerate(self.owners):
            found.setdefault(owner, []).append(position)
        return {owner: tuple(row) for owner, row in found.items()}

    @cached_property
    def results(self) -> dict[int, tuple[int, ...]]:
        """For each call its results, ascending."""
        return {i: self.readers[i] for i, node in enumerate(self.nodes) if node.call}

    @cached_property
    def making(self) -> tuple[int, ...]:
        """For each node, the most bytes that its first Compute adds: result and workspace.

        A call makes all its results at once, so for the results nothing is left to add.
        """
        made = [node.workspace + (node.nbytes if node.alias_of is None else 0) for node in self]
        for call, results in self.results.items():
            for i in results:
                made[call] += self.nodes[i].nbytes
                made[i] -= self.nodes[i].nbytes
        return tuple(made)

    @property
    def resident_nbytes(self) -> int:
        """Inputs and parameters: a constant beside the peak."""
        return sum(node.nbytes for node in self.nodes if node.resident)

    @property
    def forward_flops(self) -> int:
        return sum(self.nodes[i].flops for i in self.needed)

    # -- the backward ------------------------------------------------------------------------------

    @cached_property
    def step_readers(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the steps that read it, in running order."""
        return _inverted(len(self.nodes), (step.reads for step in self.steps))

    @cached_property
    def positions(self) -> tuple[int, ...]:
        """For each step, where in the forward it belongs: `BackwardStep.at`, or the nearest that
        its reads allow. Not below the highest computed node that it or a later step reads, nor
        above the step before; so they never ascend."""
        least = [0] * len(self.steps)
        highest = 0
        for k in range(len(self.steps) - 1, -1, -1):
            reads = (r for r in self.steps[k].reads if not self.nodes[r].resident)
            least[k] = highest = max(highest, *reads, 0)
        found: list[int] = []
        for k, step in enumerate(self.steps):
            place = max(least[k], -1 if step.at is None else step.at)
            found.append(min(place, found[-1]) if found else place)
        return tuple(found)

    @cached_property
    def cotangents(self) -> tuple[int, ...]:
        """Entry k: bytes of seeds and cotangents live once k steps are done (0: before any is)."""
        return self._live("seed", "cotangent")

    @cached_property
    def rested(self) -> tuple[int, ...]:
        """Entry k: bytes of gradients that are there once k steps are done."""
        return self._live("gradient")

    @cached_property
    def between(self) -> tuple[int, ...]:
        """Entry k: what of both counts in the peak."""
        if not self.counts_gradients:
            return self.cotangents
        return tuple(map(sum, zip(self.cotangents, self.rested, strict=True)))

    def _live(self, *kinds: str) -> tuple[int, ...]:
        change = [0] * (len(self.steps) + 2)
        for row in self.rows:
            if row.kind in kinds:
                change[row.first + 1] += row.nbytes
                change[row.last + 1] -= row.nbytes
        return tuple(accumulate(change[:-1]))

    @property
    def counts_gradients(self) -> bool:
        return self.gradients != "beforehand"

    @property
    def gradient_nbytes(self) -> int:
        """Gradients that exist beforehand: a constant beside the peak."""
        if self.gradients == "appear":
            return 0
        largest: dict[Any, int] = {}
        for k, row in enumerate(self.rows):
            if row.kind == "gradient":  # each leaf has one, however often it is added to
                whose = row.whose if row.whose is not None else -1 - k
                largest[whose] = max(row.nbytes, largest.get(whose, 0))
        return sum(largest.values())

    @property
    def backward_flops(self) -> int:
        return sum(step.flops for step in self.steps)

    # -- in words ----------------------------------------------------------------------------------

    def describe(self, position: int) -> str:
        """One value in words: ``64x256 float32, 64 KiB, output of tanh, model.py:7``."""
        node = self.nodes[position]
        shape = "x".join(map(str, node.shape)) or "scalar"
        what = node.op if node.resident or node.captured else f"output of {node.op}"
        parts = [f"{shape} {node.dtype}", format_bytes(node.nbytes), what]
        if node.name and node.name != node.op:
            parts[2] += f" {node.name!r}"
        return printable(", ".join([*parts, *filter(None, [node.scope, node.source])]))

    def describe_step(self, step: int) -> str:
        """One step in words: ``backward of tanh, layer 3, model.py:7``."""
        found = self.steps[step]
        scope = "" if found.at is None else self.nodes[found.at].scope
        return printable(
            ", ".join(filter(None, [f"backward of {found.label}", scope, found.source]))
        )

    # -- JSON --------------------------------------------------------------------------------------

    @cached_property
    def digest(self) -> str:
        """A hash of the structure: equal for two traces of the same program on the same shapes."""
        import hashlib  # it loads OpenSSL: a quarter of the time that ``ckpt --help`` takes

        made = hashlib.sha256()  # fed row by row: a text of all would dwarf the graph
        spelled = json.JSONEncoder(separators=(",", ":")).encode
        rows: tuple[Node | BackwardStep | BackwardRow, ...]
        rows = (*self.nodes, *self.steps, *self.rows)
        for row in rows:
            made.update(spelled(_as_dict(row, _HASHED[type(row)])).encode())
        made.update(json.dumps([self.outputs, self.gradients]).encode())
        return made.hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "outputs": list(self.outputs),
            "gradients": self.gradients,
            "nodes": [_as_dict(node) for node in self.nodes],
            "steps": [_as_dict(step) for step in self.steps],
            "rows": [_as_dict(row) for row in self.rows],
            **({"lines": self.lines} if self.lines else {}),
        }

    @classmethod
    def from_json(cls, data: Any) -> Graph:
        """Read what `to_json` wrote; GraphError for anything else, naming what is wrong."""
        check_format(data, FORMAT, VERSION, GraphError)
        try:
            return cls(
                nodes=tuple(_read(Node, row) for row in data["nodes"]),
                steps=tuple(_read(BackwardStep, row) for row in data["steps"]),
                rows=tuple(_read(BackwardRow, row) for row in data["rows"]),
                outputs=checked("outputs", "tuple[int, ...]", _tuples(data["outputs"])),
                gradients=checked("gradients", "str", data["gradients"]),
                name=checked("name", "str", data["name"]),
                lines=checked("lines", "dict[str, str]", data.get("lines", {})),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise GraphError(f"this {FORMAT} document is damaged: {error!r}") from None


def _as_dict(
    row: Node | BackwardStep | BackwardRow, kept: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The fields, or those ``kept``, that aren't what they are by default."""
    defaults = _FIELDS[type(row)] if kept is None else kept
    return {
        name: value
        for name, default in defaults.items()
        if (value := getattr(row, name)) is not default and value != default
    }


def _tuples(value: Any) -> Any:
    """JSON's lists, and those in them, as the tuples that they were."""
    if not isinstance(value, list):
        return value
    return tuple(tuple(item) if isinstance(item, list) else item for item in value)


def _read(kind: type[Any], row: Any) -> Any:
    """What `_as_dict` wrote; TypeError where a field is missing, unknown, or of another type."""
    types = _TYPES[kind]
    found = {}
    for name, value in row.items():
        value = _tuples(value)
        if name in types:
            checked(name, types[name], value)
        found[name] = intern(value) if name in _ALIKE else value
    return kind(**found)


_TYPES = {kind: {f.name: f.type for f in fields(kind)} for kind in _FIELDS}
_ALIKE = ("op", "dtype", "label", "scope", "source", "kind")
"""Texts that many rows share, one copy of which is enough."""


def _inverted(count: int, rows: Iterator[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """For each of ``count`` numbers, the rows that it stands in."""
    found: list[list[int]] = [[] for _ in range(count)]
    for number, row in enumerate(rows):
        for item in dict.fromkeys(row):
            found[item].append(number)
    return tuple(map(tuple, found))


# -- what makes a graph ----------------------------------------------------------------------------


def _check(graph: Graph) -> None:
    nodes, steps = graph.nodes, graph.steps
    total = 0
    for position, node in enumerate(nodes):
        why = _fault(position, node, nodes)
        if why:
            raise GraphError(f"node {position} ({node.name or node.op}): {why}")
        total += node.nbytes + node.workspace + node.workspace_again + node.state_nbytes
    for k, step in enumerate(steps):
        why = _step_fault(step, nodes)
        if why:
            raise GraphError(f"backward step {k} ({step.label}): {why}")
        total += step.during
    for k, row in enumerate(graph.rows):
        why = _row_fault(row, len(nodes), len(steps))
        if why:
            raise GraphError(f"row {k} of the backward: {why}")
        total += row.nbytes
    if total >= MOST:
        raise GraphError(f"all its bytes come to {total:.3g}, and 2**63 can't be counted")
    if graph.gradients not in GRADIENTS:
        raise GraphError(f"gradients are {' or '.join(GRADIENTS)}, not {graph.gradients!r}")
    for k, (step, around) in enumerate(zip(steps, pairwise(graph.between), strict=True)):
        if step.during < max(around):
            raise GraphError(
                f"backward step {k} ({step.label}): it holds {step.during} bytes, and the rows "
                f"that are there before or after it {max(around)}"
            )
        for read, saved in step.overwrites:
            if saved > step.during - around[1] + nodes[read].nbytes:
                raise GraphError(
                    f"backward step {k} ({step.label}): by overwriting {read} it saves more than "
                    "it holds"
                )
    for output in graph.outputs:
        if not 0 <= output < len(nodes) or nodes[output].call:
            raise GraphError(f"output {output} is no value of the {len(nodes)} nodes")


def _fault(position: int, node: Node, nodes: tuple[Node, ...]) -> str:
    """Why this is no node, or nothing."""
    for dep in node.deps:
        if not 0 <= dep < position:
            return f"its dep {dep} does not come before it"
        if nodes[dep].call and (len(node.deps) > 1 or node.alias_of is not None):
            return f"it reads the call {dep}, and isn't a result of it: let it read one"
    if node.alias_of is not None and node.alias_of not in node.deps:
        return f"it is a view of {node.alias_of}, which is no dep of it"
    if node.resident and (node.deps or node.captured or node.call):
        return "an input is neither computed nor captured, and no call"
    if node.call and node.alias_of is not None:
        return "a call is no view"
    if len(node.deps) == 1 and (call := nodes[node.deps[0]]).call:
        if node.call:
            return "a result of a call is no call"
        if call.captured and not node.captured:
            return "a result of a captured call is captured too"
    if min(_sizes(node)) < 0 or max(_sizes(node)) >= MOST:
        return _UNCOUNTED
    for dep, saved in node.overwrites:
        if dep not in node.deps:
            return f"it overwrites {dep}, which is no dep of it"
        if nodes[dep].alias_of is not None:
            return f"it overwrites {dep}, which is a view: name the value that owns the buffer"
        if not 0 <= saved <= node.workspace + nodes[dep].nbytes:
            return f"by overwriting {dep} it saves more than it holds"
    return ""


_UNCOUNTED = "bytes and FLOPs can't be negative, nor reach 2**63"


def _sizes(node: Node) -> tuple[int, ...]:
    return (
        node.nbytes, node.flops, node.moved_nbytes, node.workspace, node.workspace_again,
        node.scratch, node.state_nbytes,
    )  # fmt: skip


def _step_fault(step: BackwardStep, nodes: tuple[Node, ...]) -> str:
    for read in step.reads:
        if not 0 <= read < len(nodes) or nodes[read].call:
            return f"it reads {read}, which is no value"
    if step.at is not None and not 0 <= step.at < len(nodes):
        return f"it is at {step.at}, which is no node"
    sizes = step.flops, step.moved_nbytes, step.during, step.scratch
    if min(sizes) < 0 or max(sizes) >= MOST:
        return _UNCOUNTED
    for read, saved in step.overwrites:
        if read not in step.reads:
            return f"it overwrites {read}, which it doesn't read"
        if nodes[read].alias_of is not None:
            return f"it overwrites {read}, which is a view: name the value that owns the buffer"
        if saved < 0:
            return f"by overwriting {read} it can't save less than nothing"
    return ""


def _row_fault(row: BackwardRow, nodes: int, steps: int) -> str:
    if row.kind not in ROW_KINDS:
        return f"its kind is {' or '.join(ROW_KINDS)}, not {row.kind!r}"
    if row.nbytes < 0:
        return "bytes can't be negative"
    if not 0 <= row.first <= row.last <= steps:
        return f"it is there from step {row.first} to step {row.last} of {steps}"
    if row.whose is not None and not 0 <= row.whose < nodes:
        return f"it is that of {row.whose}, which is no node"
    return ""
