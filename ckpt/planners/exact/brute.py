"""The exact optimum of a small graph, by search over everything that a schedule can do."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count

from ckpt.errors import UsageError
from ckpt.graph import Graph
from ckpt.planners.base.memory import Memory, memory_of, store_all_instructions
from ckpt.planners.base.registry import over_budget, planner, within
from ckpt.schedule import Backward, Compute, Free, Instruction, Schedule
from ckpt.simulate import simulate


@planner("brute")
def brute(
    graph: Graph, budget: int | None = None, *, max_nodes: int = 20, max_states: int = 2_000_000
) -> Schedule:
    """The least recompute FLOPs of any schedule that `ckpt.simulate` accepts within the budget.

    Source: A* (Hart, Nilsson, Raphael 1968) over states (live values, next Backward, captured
    arrays already dropped). The estimate is the FLOPs of all that a pending Backward or an output
    still wants and that isn't live, with what those need in turn: each must be computed once more,
    so it never overestimates.
    Guarantee: optimal over *all* schedules - any order of computing, any pattern of freeing. Of two
    optimal schedules the one met first is returned; its peak is within the budget, not minimal.
    Ignores: nothing of the memory model. A buffer is freed only when what comes next doesn't fit,
    and with all its views at once, which loses nothing: a schedule that frees earlier, or only the
    owner, can be replayed with more values live in no more bytes.
    Cost: exponential, O(2^nodes x Backwards) states; UsageError for a graph of more than
    ``max_nodes`` computed nodes, or when ``max_states`` were visited.
    """
    search = _Search(graph, max_states)
    if len(search.nodes) > max_nodes:
        raise UsageError(
            f"brute: the graph computes {len(search.nodes)} nodes and this search is exponential; "
            f"it takes at most {max_nodes} (max_nodes), so choose another planner, such as auto"
        )
    everything = Schedule(
        tuple(store_all_instructions(graph)), graph=graph.digest, planner="brute", budget=budget
    )
    ceiling = simulate(graph, everything).peak
    found = search.run(ceiling if budget is None else budget)
    if found is None:
        assert budget is not None
        low, high = budget, ceiling  # `low` fails, `high` succeeds
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if search.run(middle) is not None else (middle, high)
        smallest = search.run(high)
        assert smallest is not None
        raise over_budget(
            graph,
            simulate(graph, Schedule(tuple(smallest), planner="brute")),
            "brute",
            budget,
        )
    notes = {"states": search.visited, "assumptions": "none: optimal over all schedules"}
    return within(
        graph,
        Schedule(tuple(found), graph=graph.digest, planner="brute", budget=budget, notes=notes),
        budget,
    )


class _Search:
    """The graph in bits: one for each node that is computed, in the order of the program."""

    def __init__(self, graph: Graph, max_states: int) -> None:
        self.nodes = [i for i in sorted(graph.needed) if not graph.nodes[i].resident]
        self.max_states = max_states
        self.visited = 0
        self.memory: Memory = memory_of(graph)
        self.order = graph.backward_order
        bit = {node: 1 << b for b, node in enumerate(self.nodes)}

        def mask(nodes: tuple[int, ...]) -> int:
            return sum({bit[j] for j in nodes if j in bit})

        rows = [graph.nodes[i] for i in self.nodes]
        self.deps = [mask(node.deps) for node in rows]
        self.flops = [node.flops for node in rows]
        self.workspace = [node.workspace for node in rows]
        self.captured = mask(tuple(i for i in self.nodes if graph.nodes[i].captured))
        self.residuals = [mask(graph.nodes[i].residuals) for i in self.order]
        self.outputs = mask(graph.outputs)

        members: dict[int, list[int]] = {}
        for i in self.nodes:
            members.setdefault(graph.owners[i], []).append(i)
        # Buffers: the nodes that share each, and its bytes (a view of an input costs none).
        self.buffers = [
            (mask(tuple(shared)), 0 if graph.nodes[owner].resident else graph.nodes[owner].nbytes)
            for owner, shared in members.items()
        ]
        by_node = {i: b for b, owner in enumerate(members) for i in members[owner]}
        self.buffer_of = [by_node[i] for i in self.nodes]

        # useful[k]: what can still serve a Backward from the k-th on, or an output.
        wanted = self.outputs
        self.useful = [self._with_ancestors(wanted)]
        self.wanted = [wanted]
        for residuals in reversed(self.residuals):
            wanted |= residuals
            self.wanted.insert(0, wanted)
            self.useful.insert(0, self._with_ancestors(wanted))

    def _with_ancestors(self, wanted: int) -> int:
        for b in range(len(self.nodes) - 1, -1, -1):
            if wanted >> b & 1:
                wanted |= self.deps[b]
        return wanted

    def _estimate(self, k: int, live: int, spent: int) -> int | None:
        """FLOPs that every continuation must spend; None if it wants a captured array again."""
        missing = self.wanted[k] & ~live
        total = 0
        for b in range(len(self.nodes) - 1, -1, -1):
            if missing >> b & 1:
                missing |= self.deps[b] & ~live
                total += self.flops[b]
        return None if missing & spent else total

    def run(self, budget: int) -> list[Instruction] | None:
        """The cheapest schedule within ``budget`` bytes, or None."""
        last = len(self.order)
        start = (0, 0, 0)  # Backwards done, live values, captured arrays dropped
        tie = count()
        best = {start: 0}
        came_from: dict[tuple[int, int, int], tuple[tuple[int, int, int], list[Instruction]]] = {}
        closed = set()
        queue = [(self._estimate(*start), 0, next(tie), start)]
        while queue:
            _, _, _, state = heappop(queue)
            if state in closed:
                continue
            closed.add(state)
            self.visited += 1
            if self.visited > self.max_states:
                raise UsageError(
                    f"brute: {self.max_states} states visited (max_states) without an answer; "
                    "choose another planner, such as auto"
                )
            k, live, _ = state
            if k == last and not self.outputs & ~live:
                return self._path(came_from, state)
            for cost, nxt, steps in self._moves(state, budget):
                total = best[state] + cost
                if nxt in closed or best.get(nxt, total + 1) <= total:
                    continue
                estimate = self._estimate(*nxt)
                if estimate is not None:
                    best[nxt] = total
                    came_from[nxt] = (state, steps)
                    # Among equals, the one that is furthest along.
                    heappush(queue, (total + estimate, -nxt[0], -next(tie), nxt))
        return None

    def _moves(
        self, state: tuple[int, int, int], budget: int
    ) -> list[tuple[int, tuple[int, int, int], list[Instruction]]]:
        """What may come next: (FLOPs, the state after it, its instructions)."""
        k, live, spent = state
        memory = self.memory
        held = sum(size for shared, size in self.buffers if shared & live)
        room = budget - held - memory.between[k]
        moves = []
        wants_room = False
        if k < len(self.order) and not self.residuals[k] & ~live:
            if held + memory.during[k] <= budget:
                steps: list[Instruction] = [Backward(self.order[k])]
                left = live
                dropped = spent
                for shared, _ in self.buffers:
                    if shared & left and not shared & self.useful[k + 1]:
                        steps += self._free(shared & left)
                        left &= ~shared
                        dropped |= shared & self.captured
                after = (0, (k + 1, left, dropped), steps)
                if memory.between[k + 1] <= memory.between[k]:
                    return [after]  # waiting gains nothing: all that follows has more room
                moves.append(after)
            else:
                wants_room = True
        for b, i in enumerate(self.nodes):
            if live >> b & 1 or spent >> b & 1 or not self.useful[k] >> b & 1:
                continue
            if self.deps[b] & ~live:
                continue
            shared, size = self.buffers[self.buffer_of[b]]
            if (0 if shared & live else size) + self.workspace[b] <= room:
                moves.append((self.flops[b], (k, live | 1 << b, spent), [Compute(i)]))
            else:
                wants_room = True
        if wants_room:
            for shared, size in self.buffers:
                if size and shared & live:
                    freed = (k, live & ~shared, spent | (shared & self.captured))
                    moves.append((0, freed, self._free(shared & live)))
        return moves

    def _free(self, mask: int) -> list[Instruction]:
        return [Free(i) for b, i in enumerate(self.nodes) if mask >> b & 1]

    @staticmethod
    def _path(
        came_from: dict[tuple[int, int, int], tuple[tuple[int, int, int], list[Instruction]]],
        state: tuple[int, int, int],
    ) -> list[Instruction]:
        pieces = []
        while state in came_from:
            state, steps = came_from[state]
            pieces.append(steps)
        return [step for steps in reversed(pieces) for step in steps]
