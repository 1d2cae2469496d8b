"""The reference machine: it performs a schedule on bytes and FLOPs alone, and refuses a wrong one.

What it accepts is the grammar of schedules, and the peak it finds is the only judge of a budget.
The memory model, which `execute` keeps to the byte:

- A Compute makes a buffer, or for a view takes a share in its owner's. A buffer goes with its last
  share, so a view that is still live pins an owner that was freed - and a second Compute of that
  owner makes a second buffer.
- A Backward treats one dep at a time. The first cotangent of a dep is kept as it comes: fresh, a
  share in the incoming one, or spread over the dep's shape from a smaller array. The next is added
  in place into whichever of the two is an array of its own; if neither is, into a new one. A
  ``part`` is added into the dep's own cotangent, which starts as zeros. The cotangent of a leaf is
  its gradient: an array of its own, counted apart.
- The incoming cotangent goes when the Backward ends.
"""

from __future__ import annotations

from typing import NamedTuple

from ckpt.errors import ScheduleError
from ckpt.graph import Graph
from ckpt.schedule import (
    Backward,
    Compute,
    Free,
    Instruction,
    Schedule,
    describe_instruction,
)
from ckpt.timeline import BACKWARD, FORWARD, FREE, RECOMPUTE, Timeline

FRESH, SHARED, PART, SPREAD = range(4)
_KIND = {"fresh": FRESH, "handed": SHARED, "view": SHARED, "part": PART, "spread": SPREAD}


def simulate(graph: Graph, schedule: Schedule) -> Timeline:
    """Perform ``schedule`` without arrays and return what was live, when, and what it cost.

    Raises ScheduleError, naming the instruction and what would mend it, for a Compute whose dep is
    freed, that is live already or that was captured; a Backward whose residual is missing or that
    is out of strictly descending order; a Free of what isn't live; a missing Backward or output.
    """
    state = _perform(graph, schedule)
    order = graph.backward_order
    if state.backwards < len(order):
        missing = order[state.backwards]
        raise ScheduleError(
            f"the schedule ends without backward {missing} ({graph.describe(missing)}): add it"
        )
    for output in graph.outputs:
        if not state.live[output]:
            raise ScheduleError(
                f"the schedule ends without output {output} ({graph.describe(output)}) live: "
                "compute it, or don't free it"
            )
    return Timeline(
        schedule=schedule,
        columns=state.columns,
        counts=state.counts,
        resident=graph.resident_nbytes,
        gradients_total=graph.gradient_nbytes,
    )


class _State(NamedTuple):
    """The machine after some instructions: what is live, and which buffer holds it."""

    columns: dict[str, list[int]]
    counts: list[int]
    backwards: int
    live: bytearray
    buffer_of: list[int]
    shares: list[int]
    cotangent_of: list[int]
    cotangent_shares: list[int]
    cotangent_sizes: list[int]


def _perform(graph: Graph, schedule: Schedule, stop: int | None = None) -> _State:
    """Perform the first ``stop`` instructions, in one long loop: calls would double its time."""
    nodes = graph.nodes
    n = len(nodes)
    order = graph.backward_order
    deps = [node.deps for node in nodes]
    residuals = [node.residuals for node in nodes]
    nbytes = [node.nbytes for node in nodes]
    alias_of = [node.alias_of for node in nodes]
    workspace = [node.workspace for node in nodes]
    flops = [node.flops for node in nodes]
    is_captured = [node.captured for node in nodes]
    is_leaf = [node.resident for node in nodes]
    contributions = _contributions(graph)

    live = bytearray(node.resident for node in nodes)
    counts = [0] * n
    buffer_of = [-1] * n  # the buffer that a node's live value has a share in; -1: a resident's
    shares: list[int] = []
    sizes: list[int] = []
    owned_by_captured: list[bool] = []

    cotangent_of = [-1] * n  # likewise for cotangents; these buffers are numbered apart
    is_own = bytearray(n)  # is that cotangent an array of its own, safe to add into?
    cotangent_shares: list[int] = []
    cotangent_sizes: list[int] = []

    activations = captured = cotangents = gradients = 0
    next_backward = 0
    col_activations: list[int] = []
    col_captured: list[int] = []
    col_cotangents: list[int] = []
    col_gradients: list[int] = []
    col_workspace: list[int] = []
    col_high: list[int] = []
    col_flops: list[int] = []
    col_phase: list[int] = []

    for position, (kind, i) in enumerate([(type(s), s[0]) for s in schedule.instructions[:stop]]):
        if not 0 <= i < n:
            raise ScheduleError(f"instruction {position}: the graph has no node {i}", position)

        if kind is Free:
            if not live[i] or is_leaf[i]:
                raise _refusal(graph, schedule, position)
            live[i] = 0
            buffer = buffer_of[i]
            if buffer >= 0:
                shares[buffer] -= 1
                if not shares[buffer]:
                    if owned_by_captured[buffer]:
                        captured -= sizes[buffer]
                    else:
                        activations -= sizes[buffer]
            temporary = cost = 0
            high = activations + captured + cotangents
            phase = FREE

        elif kind is Compute:
            if live[i] or (is_captured[i] and counts[i]):
                raise _refusal(graph, schedule, position)
            for dep in deps[i]:
                if not live[dep]:
                    raise _refusal(graph, schedule, position)
            live[i] = 1
            phase = RECOMPUTE if counts[i] else FORWARD
            counts[i] += 1
            owner = alias_of[i]
            if owner is not None:
                buffer_of[i] = buffer = buffer_of[owner]
                if buffer >= 0:
                    shares[buffer] += 1
            else:
                buffer_of[i] = len(shares)
                shares.append(1)
                sizes.append(nbytes[i])
                owned_by_captured.append(is_captured[i])
                if is_captured[i]:
                    captured += nbytes[i]
                else:
                    activations += nbytes[i]
            temporary = workspace[i]
            cost = flops[i]
            high = activations + captured + cotangents + temporary

        elif kind is Backward:
            if next_backward == len(order) or order[next_backward] != i:
                raise _refusal(graph, schedule, position)
            for residual in residuals[i]:
                if not live[residual]:
                    raise _refusal(graph, schedule, position)
            if not next_backward:
                for loss in graph.losses:
                    if is_leaf[loss]:
                        gradients += nbytes[loss]
                        cotangent_of[loss] = n
                        continue
                    cotangents += nbytes[loss]
                    cotangent_of[loss] = len(cotangent_shares)
                    cotangent_shares.append(1)
                    cotangent_sizes.append(nbytes[loss])
                    is_own[loss] = 1
            next_backward += 1
            incoming = cotangent_of[i]
            held = activations + captured
            temporary = 0
            high = held + cotangents
            for dep, how, work, spread in contributions[i]:
                size = nbytes[dep]
                if is_leaf[dep]:
                    if cotangent_of[dep] < 0:
                        gradients += size
                        cotangent_of[dep] = n
                    elif how == FRESH:
                        work += size
                elif cotangent_of[dep] < 0:
                    if how == SHARED:
                        cotangent_of[dep] = incoming
                        cotangent_shares[incoming] += 1
                    elif how == SPREAD:
                        cotangent_of[dep] = len(cotangent_shares)
                        cotangent_shares.append(1)
                        cotangent_sizes.append(spread)
                        cotangents += spread
                    else:
                        cotangent_of[dep] = len(cotangent_shares)
                        cotangent_shares.append(1)
                        cotangent_sizes.append(size)
                        is_own[dep] = 1
                        cotangents += size
                elif is_own[dep]:
                    if how == FRESH:
                        work += size
                else:  # a share so far: the sum becomes an array of its own
                    old = cotangent_of[dep]
                    cotangent_of[dep] = len(cotangent_shares)
                    cotangent_shares.append(1)
                    cotangent_sizes.append(size)
                    is_own[dep] = 1
                    cotangents += size
                    cotangent_shares[old] -= 1
                    if not cotangent_shares[old]:
                        cotangents -= cotangent_sizes[old]
                        work += cotangent_sizes[old]
                if held + cotangents + work > high:
                    high = held + cotangents + work
                    temporary = work
            cotangent_shares[incoming] -= 1
            if not cotangent_shares[incoming]:
                cotangents -= cotangent_sizes[incoming]
            cotangent_of[i] = -1
            cost = nodes[i].backward_flops
            phase = BACKWARD

        else:
            raise ScheduleError(f"instruction {position}: unknown instruction {kind!r}", position)

        col_activations.append(activations)
        col_captured.append(captured)
        col_cotangents.append(cotangents)
        col_gradients.append(gradients)
        col_workspace.append(temporary)
        col_high.append(high)
        col_flops.append(cost)
        col_phase.append(phase)

    columns = {
        "activations": col_activations,
        "captured": col_captured,
        "cotangents": col_cotangents,
        "gradients": col_gradients,
        "workspace": col_workspace,
        "high": col_high,
        "flops": col_flops,
        "phase": col_phase,
    }
    return _State(
        columns,
        counts,
        next_backward,
        live,
        buffer_of,
        shares,
        cotangent_of,
        cotangent_shares,
        cotangent_sizes,
    )


def _contributions(graph: Graph) -> list[tuple[tuple[int, int, int, int], ...]]:
    """For each node, what its Backward does: (dep, how, workspace, bytes of a spread)."""
    return [
        tuple(
            (dep, _KIND[kind], work, spread)
            for dep, kind, work, spread in zip(
                node.deps,
                node.cotangents,
                node.backward_workspace,
                node.spread_nbytes or (0,) * len(node.deps),
                strict=True,
            )
            if kind is not None
        )
        for node in graph.nodes
    ]


def _refusal(graph: Graph, schedule: Schedule, position: int) -> ScheduleError:
    """Why the instruction at ``position`` can't be performed, found by looking back."""
    step = schedule.instructions[position]
    past = schedule.instructions[:position]
    i = step.node
    node = graph.nodes[i]

    def last(kind: type[Instruction], j: int) -> int | None:
        return next((p for p in range(position - 1, -1, -1) if past[p] == kind(j)
                     and type(past[p]) is kind), None)  # fmt: skip

    def is_live(j: int) -> bool:
        computed, freed = last(Compute, j), last(Free, j)
        return graph.nodes[j].resident or (
            computed is not None and (freed is None or freed < computed)
        )

    def absent(j: int) -> str:
        freed = last(Free, j)
        if freed is None:
            return f"{j} ({graph.describe(j)}) was never computed: put 'compute {j}' before it"
        return (
            f"{j} ({graph.describe(j)}) was freed by instruction {freed}: "
            f"free it later, or put 'compute {j}' before this"
        )

    where = f"instruction {position}, {describe_instruction(step, graph)}"
    if isinstance(step, Free):
        if node.resident:
            why = "an input or parameter is resident and can't be freed: drop this instruction"
        else:
            freed = last(Free, i)
            why = "it isn't live: " + (
                "it was never computed" if freed is None else f"instruction {freed} freed it"
            )
            why += "; drop this instruction"
    elif isinstance(step, Compute):
        missing = next((d for d in node.deps if not is_live(d)), None)
        if node.resident:
            why = "an input or parameter is resident: drop this instruction"
        elif is_live(i):
            why = f"it is live since instruction {last(Compute, i)}: drop this, or free it first"
        elif node.captured:
            why = "a captured array can't be rematerialized: keep it until its last reader"
        else:
            assert missing is not None
            why = f"its dep {absent(missing)}"
    else:
        done = [s.node for s in past if type(s) is Backward]
        order = graph.backward_order
        if i not in graph.backward_set:
            why = "no cotangent reaches this node: drop this instruction"
        elif i in done:
            why = f"instruction {last(Backward, i)} did it already: drop this"
        elif order[len(done)] != i:
            why = (
                f"Backward goes in strictly descending order, so that sums of cotangents keep "
                f"their bits: backward {order[len(done)]} comes next"
            )
        else:
            why = f"its residual {absent(next(r for r in node.residuals if not is_live(r)))}"
    return ScheduleError(f"{where}: {why}", position)


class Holding(NamedTuple):
    """One buffer that is live at some moment: whose, of which kind, and who still reads it."""

    node: int
    kind: str
    nbytes: int
    reader: int | None
    """The node whose Backward reads it next, if any."""


def holdings(graph: Graph, schedule: Schedule, position: int) -> list[Holding]:
    """What is live while instruction ``position`` runs, largest first; the schedule must simulate.

    One row a buffer, under the name of its owner. Workspace has no node, and is not listed.
    """
    found: dict[tuple[str, int], Holding] = {}
    for stop in (position, position + 1):  # what it reads, and what it makes
        state = _perform(graph, schedule, stop)
        done = graph.backward_order[: state.backwards]
        frontier = done[-1] if done else len(graph)
        readers: dict[int, int] = {}
        for i, buffer in enumerate(state.buffer_of):
            if state.live[i] and buffer >= 0:
                for reader in graph.backward_readers[i]:
                    if reader < frontier or (stop == position and reader == frontier):
                        readers[buffer] = max(readers.get(buffer, -1), reader)
        for i, buffer in enumerate(state.buffer_of):
            owner = graph.owners[i]
            if buffer >= 0 and state.shares[buffer] and not graph.nodes[owner].resident:
                kind = "captured" if graph.nodes[owner].captured else "activations"
                nbytes = graph.nodes[owner].nbytes
                found.setdefault((kind, buffer), Holding(owner, kind, nbytes, readers.get(buffer)))
        for i, buffer in enumerate(state.cotangent_of):
            if 0 <= buffer < len(state.cotangent_shares) and not graph.nodes[i].resident:
                nbytes = state.cotangent_sizes[buffer]
                found.setdefault(("cotangents", buffer), Holding(i, "cotangents", nbytes, None))
    return sorted(found.values(), key=lambda h: (-h.nbytes, h.node))
