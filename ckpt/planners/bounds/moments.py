"""Which moments to look at: a search for those whose pair program proves most.

Two do on transformers, many on chains at tight budgets. The first is the Backward by which nearly
all of the forward has been computed. Others are looked for in some stretches of the backward, the
shorter the earlier, among the Backwards that leave least room. Each is tried beside the first; the
best of each stretch are tried together; then one more is added at a time. What effort is left goes
into `branches` of the program that proved most.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ckpt.graph import Graph
from ckpt.planners.base import clock
from ckpt.planners.base.cost import Cost
from ckpt.planners.bounds import first_order, highs
from ckpt.planners.bounds.boxes import BoxProgram, Solved
from ckpt.planners.bounds.branches import Tree
from ckpt.planners.bounds.pairs import Pairs
from ckpt.planners.bounds.reduced import Reduced
from ckpt.planners.bounds.simple import Bound

NAME = "linear program"
HIGHS, BUILT_IN = "HiGHS", "the built-in first-order method"

FORWARD_SHARE = 0.9
"""Of the items are computed at the first moment."""

STRETCHES, EACH, EARLY = 8, 3, 8
"""So many stretches of the backward, candidates in each, and in the first."""

SAME = 4
"""Candidates of a stretch that leave equal room, as equal layers do at the same step, before those
that leave more have their turn."""

ENOUGH = 1 / 50
"""A round that closes less of the gap is the last."""

TRIES = 12
"""In a round."""

OVERHEAD = 10_000
"""What an iteration of the first-order method costs beside the entries, in entries."""

ENTRIES = 200
"""That are a unit of work."""

ITERATIONS = 2_000
"""Of the first-order method, for each program."""

FOLD = 300
"""Of graphs of more items equal layers are made one while moments are compared."""

CLOSE = 1 / 1000
"""A gap of this share of the forward is no longer worth a search."""

SEARCH = 900_000_000
"""Of the effort, what goes at most into the choice of moments."""

WEIGHTS = {HIGHS: 1, BUILT_IN: 2}
"""What an entry counts."""

LARGEST = 400_000_000
"""Programs that are expected to take more effort by themselves are passed over."""


def pair_bound(
    graph: Graph,
    budget: int,
    cost: Cost,
    *,
    effort: int,
    at_least: int = 0,
    known: int | None = None,
    solver: str | None = None,
) -> Bound | None:
    """The best bound of the pair programs that ``effort`` allows; None if none is solved.

    ``effort`` is counted in entries of a matrix, each time a solver's iteration passes over them:
    a hundred million are a second or so. More never proves less. ``at_least`` is proven already,
    and ``known`` the recompute of a plan: no more need be proven. ``solver``: HIGHS or BUILT_IN;
    by default the former where SciPy is installed.
    """
    if not graph.steps:
        return None
    reduced = Reduced(graph, budget, cost)
    if not len(reduced) or clock.stopped():
        return None
    search = MomentSearch(reduced, effort, at_least, known, solver or _solver())
    search.run()
    if search.refuted:
        return Bound(NAME, None, search.solver)
    return Bound(NAME, search.best, search.solver) if search.solved else None


def _solver() -> str:
    try:
        import scipy  # noqa: F401
    except ModuleNotFoundError:
        return BUILT_IN
    return HIGHS


@dataclass
class MomentSearch:
    reduced: Reduced
    effort: int
    at_least: int
    known: int | None
    solver: str
    best: int = 0
    chosen: tuple[int, ...] = ()
    score: int = -1
    """What the chosen moments prove as they were compared: with equal layers made one."""
    refuted: bool = False
    solved: int = 0
    root: tuple[Pairs, Solved] | None = None
    """The program that proved most."""
    reserve: int = 0
    """Of the effort, what isn't for now."""
    scores: dict[int, int] = field(default_factory=dict)
    unconfirmed: set[tuple[int, ...]] = field(default_factory=set)

    def run(self) -> None:
        """The same programs in the same order, whatever the effort: it only cuts them off."""
        if min(self.reduced.rooms) < 0:
            self.refuted, self.solved = True, 1
            return
        self.reserve = max(0, self.effort - SEARCH)
        self._choose()
        self.reserve = 0
        if self.root is not None and self._open():
            self._branch(*self.root)

    def _choose(self) -> None:
        first = self._first()
        stretches = self._stretches(first)
        self._try((first,))
        self._beside(first, stretches[0])
        self._confirm()
        self._beside(first, [q for s in stretches[1:] for q in s[:1]])
        self._together(first, stretches)
        self._confirm()
        self._beside(first, [q for s in stretches[1:] for q in s[1:]])
        while self._open() and self._one_more():
            self._confirm()

    def _branch(self, pairs: Pairs, solved: Solved) -> None:
        """Whole numbers, for the program that proved most."""
        tree = Tree(pairs, solved, self._solve, self._open)
        proven = tree.run()
        self.refuted |= proven is None
        self.best = max(self.best, proven or 0)

    def _first(self) -> int:
        last = sorted(self.reduced.first)[int(FORWARD_SHARE * (len(self.reduced) - 1))]
        return min(int(last), len(self.reduced.rooms) - 1)

    def _stretches(self, first: int) -> list[list[int]]:
        """Candidates, the one that leaves least room first, no two of a stretch reading alike."""
        rooms = self.reduced.rooms
        rest = len(rooms) - first - 1
        ends = [first + 1 + int(rest * (k / STRETCHES) ** 1.5) for k in range(STRETCHES + 1)]
        found: list[list[int]] = []
        for k in range(STRETCHES):
            by_room = sorted(range(ends[k], ends[k + 1]), key=lambda q: (rooms[q], q))
            distinct = {tuple(self.reduced.reads[q]): q for q in reversed(by_room)}
            turns: dict[int, int] = {}
            alike: Counter[int] = Counter()
            for q in sorted(distinct.values()):
                turns[q] = alike[rooms[q]] // SAME
                alike[rooms[q]] += 1
            stretch = sorted(turns, key=lambda q: (turns[q], rooms[q], q))[: EACH if k else EARLY]
            found.append(stretch)
        return found

    def _beside(self, first: int, candidates: list[int]) -> None:
        """Each candidate beside the first moment."""
        for q in candidates:
            if self._open():
                self.scores[q] = self._try((first, q))

    def _together(self, first: int, stretches: list[list[int]]) -> None:
        """The best of each stretch; of every second one; of every fourth."""
        for width in (4, 2, 1):
            picked = []
            for k in range(0, STRETCHES, width):
                scored = [q for s in stretches[k : k + width] for q in s if q in self.scores]
                picked += [max(scored, key=lambda q: (self.scores[q], -q))] if scored else []
            if self._open():
                self._try((first, *picked))

    def _one_more(self) -> bool:
        """Add to the chosen moments the first one that helps; False if none of some does."""
        before, base = self.score, self.chosen
        ranked = sorted(self.scores, key=lambda q: (-self.scores[q], q))
        for q in [q for q in ranked if q not in base][:TRIES]:
            if self._open():
                self.scores[q] = self._try((*base, q))
            if self._worth(before):
                return True
        return False

    def _open(self, proven: int = 0) -> bool:
        """May more be proven than is (in the branches: ``proven``), and is there effort left?"""
        proven = max(self.best, self.at_least, proven)
        close = int(CLOSE * sum(self.reduced.costs))
        done = self.known is not None and (proven >= self.known or self.known - proven < close)
        return not (done or self.refuted or clock.stopped()) and self.effort > self.reserve

    def _worth(self, before: int) -> bool:
        top = sum(self.reduced.costs) if self.known is None else self.known
        return self.score - before > ENOUGH * max(0, top - before)

    def _try(self, numbers: tuple[int, ...]) -> int:
        """What the program of these moments proves, with equal layers made one in large graphs; 0
        if it isn't solved."""
        numbers = tuple(sorted(set(numbers)))
        pairs = self._pairs(numbers)
        if len(self.reduced) > FOLD and pairs.fold():
            self.unconfirmed.add(numbers)
        proven = self._prove(pairs)
        if proven > self.score:
            self.score, self.chosen = proven, numbers
        return proven

    def _confirm(self) -> None:
        """The whole program of the chosen moments, where layers were made one."""
        if self.chosen in self.unconfirmed and self._open():
            self.unconfirmed.remove(self.chosen)
            self._prove(self._pairs(self.chosen))

    def _pairs(self, numbers: tuple[int, ...]) -> Pairs:
        return Pairs(self.reduced, [self.reduced.moment(q) for q in numbers])

    def _prove(self, pairs: Pairs) -> int:
        solved = self._solve(pairs.program)
        if solved is None:
            return 0
        self.solved += 1
        self.refuted |= pairs.refuted(solved.duals)
        proven = pairs.recompute(solved.duals)
        if proven > self.best:
            self.best = proven
            self.root = pairs, solved
        return proven

    def _solve(self, program: BoxProgram) -> Solved | None:
        """None where the program is too large, or the effort is spent."""
        entries = self._entries(program)
        if not entries or self._expected(program) > LARGEST:
            return None
        allowed = (self.effort - self.reserve) // entries
        if self.solver == HIGHS:
            found = highs.solve(program, allowed)
        else:
            found = first_order.solve(program, min(ITERATIONS, allowed))
        self.effort -= max(1, found.used) * entries
        clock.spend(max(1, found.used) * entries // ENTRIES)
        return None if found.duals is None else found

    def _entries(self, program: BoxProgram) -> int:
        """What an iteration takes."""
        overhead = OVERHEAD if self.solver == BUILT_IN else 0
        return WEIGHTS[self.solver] * (len(program.entries[0]) + overhead)

    def _expected(self, program: BoxProgram) -> int:
        iterations = ITERATIONS if self.solver == BUILT_IN else program.rows // 2
        return self._entries(program) * iterations
