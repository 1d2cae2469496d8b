"""The exact optimum of a small graph, by search over everything that a schedule can do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import count

from ckpt.errors import UsageError
from ckpt.graph import Graph, Overwrites
from ckpt.machine import simulate
from ckpt.planners.base import clock
from ckpt.planners.base.cost import Cost, flops
from ckpt.planners.base.emit import compute_all
from ckpt.planners.base.registry import over_budget, planner
from ckpt.schedule import Backward, Compute, Free, Instruction, Proof, Schedule

State = tuple[int, int, int]
"""Backwards done, live values, captured values already dropped."""
Move = tuple[int, State, list[Instruction]]
"""What it costs, the state after it, its instructions."""


@planner("brute")
def brute(
    graph: Graph,
    budget: int | None = None,
    *,
    cost: Cost | None = None,
    max_nodes: int = 20,
    max_states: int = 2_000_000,
) -> Schedule:
    """The least cost of recomputing of any schedule that `ckpt.simulate` accepts in the budget.

    Source: A* (Hart, Nilsson, Raphael 1968) over states (live values, next Backward, captured
    values already dropped). The estimate is the cost of all that a pending Backward or an output
    still wants and that isn't live, with what those need in turn: each must be computed once more,
    so it never overestimates.
    Guarantee: optimal over *all* schedules - any order of computing, any pattern of freeing. Where
    a value that has views may be overwritten, over all but those that compute it again beside a
    view of it: a second buffer, which could be overwritten though the first is pinned. Of two
    optimal schedules the one met first is returned; its peak is within the budget, not minimal.
    Ignores: nothing of the memory model. A buffer is freed only when what comes next doesn't fit,
    and with all that shares it, or but for its owner where that may be overwritten then; which
    loses nothing: a schedule that frees earlier, or only the owner, can be replayed with more
    values live in no more bytes.
    Cost: exponential, O(2^nodes x Backwards) states; UsageError for a graph of more than
    ``max_nodes`` computed nodes, when ``max_states`` were visited, or for one in which a
    recomputation takes bytes that a first Compute doesn't (a generator's state, more workspace).
    """
    if len(graph.computed) > max_nodes:
        raise UsageError(
            f"brute: the graph computes {len(graph.computed)} nodes and this search is "
            f"exponential; it takes at most {max_nodes} (max_nodes), so choose another planner, "
            "such as auto"
        )
    if any(node.state_nbytes or node.workspace_again for node in graph):
        raise UsageError("brute: the graph has values that take more bytes when computed again")
    price = cost or flops(graph)
    search = _Search(graph, price, max_states)
    ceiling = simulate(graph, Schedule(tuple(compute_all(graph)))).peak
    found = search.run(ceiling if budget is None else budget)
    if found is None:
        assert budget is not None
        low, high = budget, ceiling  # `low` fails, `high` succeeds
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if search.run(middle) is not None else (middle, high)
        smallest = search.run(high)
        assert smallest is not None
        raise over_budget(graph, simulate(graph, Schedule(tuple(smallest))), "brute", budget)
    spent = price.recompute(simulate(graph, Schedule(tuple(found))).counts)
    return Schedule(
        tuple(found),
        graph.digest,
        "brute",
        budget,
        proof=Proof(spent, price.unit, search.assumptions(), "exact search"),
        notes={"states": search.visited},
    )


class _Search:
    """The graph in bits: one for each node that is computed, in the order of the program."""

    def __init__(self, graph: Graph, cost: Cost, max_states: int) -> None:
        self.graph = graph
        self.nodes = graph.computed
        self.max_states = max_states
        self.visited = 0
        self.bit = {node: 1 << b for b, node in enumerate(self.nodes)}
        self.costs = [cost.nodes[i] for i in self.nodes]
        self.deps = [self._mask(graph[i].deps) for i in self.nodes]
        self.captured = self._mask(i for i in self.nodes if graph[i].captured)
        self.reads = [self._mask(step.reads) for step in graph.steps]
        self.outputs = self._mask(graph.outputs)
        self.buffers = list(self._buffers())
        """What shares each buffer, and its bytes (a view of an input costs none)."""
        self.made = [
            [buffer for buffer in self.buffers if buffer[0] & self.bit[i]] for i in self.nodes
        ]
        over = [node.overwrites for node in graph] + [step.overwrites for step in graph.steps]
        self.overwritable = self._mask(value for pairs in over for value, _ in pairs)
        # useful[k]: what can still serve a Backward from the k-th on, or an output.
        wanted = self.outputs
        self.useful = [self._with_ancestors(wanted)]
        self.wanted = [wanted]
        for reads in reversed(self.reads):
            wanted |= reads
            self.wanted.insert(0, wanted)
            self.useful.insert(0, self._with_ancestors(wanted))

    def _mask(self, nodes: Iterable[int]) -> int:
        return sum({self.bit[i] for i in nodes if i in self.bit})

    def _buffers(self) -> Iterator[tuple[int, int]]:
        """A call has a share in the buffers of its results."""
        graph = self.graph
        for owner, sharers in graph.sharers.items():
            calls = [d for d in graph[owner].deps if graph[d].call]
            shared = self._mask((*sharers, *calls))
            if shared:
                yield shared, 0 if graph[owner].resident else graph[owner].nbytes

    def _with_ancestors(self, wanted: int) -> int:
        for b in range(len(self.nodes) - 1, -1, -1):
            if wanted >> b & 1:
                wanted |= self.deps[b]
        return wanted

    def _estimate(self, k: int, live: int, spent: int) -> int | None:
        """The cost of every continuation, at least; None if it wants a captured value again."""
        missing = self.wanted[k] & ~live
        total = 0
        for b in range(len(self.nodes) - 1, -1, -1):
            if missing >> b & 1:
                missing |= self.deps[b] & ~live
                total += self.costs[b]
        return None if missing & spent else total

    def assumptions(self) -> tuple[str, ...]:
        for shared, _ in self.buffers:
            owned = shared & self.overwritable
            if owned and any(self.graph[i].alias_of is not None for i in self._nodes(shared)):
                return ("no value is computed again beside a view of it",)
        return ()

    def run(self, budget: int) -> list[Instruction] | None:
        """The cheapest schedule within ``budget`` bytes, or None."""
        last = len(self.reads)
        start = (0, 0, 0)
        tie = count()
        best = {start: 0}
        came_from: dict[State, tuple[State, list[Instruction]]] = {}
        closed = set()
        queue = [(self._estimate(*start), 0, next(tie), start)]
        while queue:
            _, _, _, state = heappop(queue)
            if state in closed:
                continue
            closed.add(state)
            self.visited += 1
            clock.check()
            if self.visited > self.max_states:
                raise UsageError(
                    f"brute: {self.max_states} states visited (max_states) without an answer; "
                    "choose another planner, such as auto"
                )
            k, live, _ = state
            if k == last and not self.outputs & ~live:
                return self._path(came_from, state)
            for cost, after, instructions in self._moves(state, budget):
                total = best[state] + cost
                if after in closed or best.get(after, total + 1) <= total:
                    continue
                estimate = self._estimate(*after)
                if estimate is not None:
                    best[after] = total
                    came_from[after] = (state, instructions)
                    # Among equals, the one that is furthest along.
                    heappush(queue, (total + estimate, -after[0], -next(tie), after))
        return None

    def _moves(self, state: State, budget: int) -> list[Move]:
        """What may come next."""
        k, live, spent = state
        between = self.graph.between
        held = sum(size for shared, size in self.buffers if shared & live)
        moves: list[Move] = []
        wants_room = False
        ready = k < len(self.reads) and not self.reads[k] & ~live
        if ready and (k or not self.outputs & ~live):
            fits, moves = self._backward(state, budget - held)
            if fits and between[k + 1] <= between[k] and (k or not self.outputs):
                return moves  # waiting gains nothing: all that follows has more room
            wants_room = not fits
        room = budget - held - between[k]
        for b, i in enumerate(self.nodes):
            if live >> b & 1 or spent >> b & 1 or not self.useful[k] >> b & 1:
                continue
            if self.deps[b] & ~live:
                continue
            after = live | 1 << b
            need = self._need(b, live)
            if need <= room:
                moves.append((self.costs[b], (k, after, spent), [Compute(i)]))
                continue
            wants_room = True
            kept = self.outputs if k else 0
            for dying, saved in self._dying(self.graph[i].overwrites, after, kept):
                if need - saved <= room:
                    left = after & ~dying
                    gone = (k, left, spent | dying & self.captured)
                    moves.append((self.costs[b], gone, [Compute(i), *self._free(dying)]))
        if wants_room:
            for mask in self._freeable(live):
                if not (k and mask & self.outputs):
                    freed = k, live & ~mask, spent | mask & self.captured
                    moves.append((0, freed, self._free(mask)))
        return moves

    def _freeable(self, live: int) -> Iterator[int]:
        """What is freed together: all that share a buffer, or but for an owner to overwrite."""
        for shared, size in self.buffers:
            if size and shared & live:
                yield shared & live
            others = shared & live & ~self.overwritable
            if others and others != shared & live:
                yield others

    def _need(self, b: int, live: int) -> int:
        """The bytes that computing node b adds to what is live."""
        node = self.graph[self.nodes[b]]
        if node.call:
            return self.graph.making[self.nodes[b]]
        return node.workspace + sum(size for shared, size in self.made[b] if not shared & live)

    def _backward(self, state: State, room: int) -> tuple[bool, list[Move]]:
        """Does the next Backward fit? And the move, with what is of no use after it freed; or else
        those in which it fits since it may write over something more."""
        k, live, spent = state
        step = self.graph.steps[k]
        idle = 0
        for shared, _ in self.buffers:
            if shared & live and not shared & self.useful[k + 1]:
                idle |= shared & live
        choices = list(self._dying(step.overwrites, live, self.outputs))
        fitting = []
        for more in (0, *(dying for dying, _ in choices)):
            gone = idle | more
            saved = max((saves for dying, saves in choices if dying & gone), default=0)
            if step.during - saved <= room:
                after = (k + 1, live & ~gone, spent | gone & self.captured)
                move = 0, after, [Backward(k), *self._free(gone)]
                if not more:
                    return True, [move]
                fitting.append(move)
        return False, fitting

    def _dying(self, overwrites: Overwrites, live: int, kept: int) -> Iterator[tuple[int, int]]:
        """What may be overwritten, as nobody shares its buffer; and what that saves."""
        for value, saved in overwrites:
            bit = self.bit.get(value, 0)
            shared = next((shared for shared, _ in self.buffers if shared & bit), 0)
            if bit and shared & live == bit and not bit & kept:
                yield bit, saved

    def _free(self, mask: int) -> list[Instruction]:
        return [Free(i) for i in self._nodes(mask)]

    def _nodes(self, mask: int) -> list[int]:
        return [i for b, i in enumerate(self.nodes) if mask >> b & 1]

    @staticmethod
    def _path(
        came_from: dict[State, tuple[State, list[Instruction]]], state: State
    ) -> list[Instruction]:
        pieces = []
        while state in came_from:
            state, instructions = came_from[state]
            pieces.append(instructions)
        return [instruction for piece in reversed(pieces) for instruction in piece]
