"""The local search where blocks are equal: what is done to a value is done to its like in all."""

from __future__ import annotations

from dataclasses import replace

from ckpt.graph import Graph
from ckpt.planners.base import clock
from ckpt.planners.base.cost import Cost
from ckpt.planners.search.drafts import Draft, Sheet, gaps
from ckpt.planners.search.improve import Drop, Improver
from ckpt.repeats import Repeats
from ckpt.schedule import Backward, Schedule

ROUNDS = 12
"""What is let go of to make a schedule fit, at most."""


def improve_alike(
    graph: Graph, schedule: Schedule, budget: int, repeats: Repeats, cost: Cost
) -> Schedule | None:
    """A schedule within the budget, of no more cost if the one given is; None if that fails.

    Where it doesn't fit, the cheapest values per byte are let go of in as many blocks as need be.
    Then what there is room for is kept, and what is held when the backward begins is let go of in
    all blocks, one value of a block after the other, if others are dearer per byte.

    Cost: passes over the instructions, as many as a block has values.
    """
    search = Improver(Sheet(graph, cost), budget, by_time=False)
    draft = _shed(search, Draft(search.sheet, search.sheet.actions_of(schedule)), repeats)
    if draft.peak > budget:
        return None
    draft = search.fill(draft)
    tried = set[_Kind]()
    while not clock.stopped():
        dearest = max((g.saved / max(search.bytes_of(draft, g), 1) for g in gaps(draft)), default=0)
        rows = _by_price(search, draft, repeats)
        worth = [row for row in rows if row[0] < dearest and row[1] not in tried]
        if not worth:
            break
        _, kind, drops = worth[0]
        tried.add(kind)
        trial, spared = search.swapped(draft, None, drops)
        if trial.peak <= budget:
            trial = search.fill(search.fill(trial, spared))
            draft = min(draft, trial, key=lambda d: d.key)
    return replace(schedule, instructions=draft.instructions())


def _shed(search: Improver, draft: Draft, repeats: Repeats) -> Draft:
    """Let go of the cheapest, in as many blocks as it takes, until what is left fits; or, if that
    takes long, as far as it goes."""
    for _ in range(ROUNDS):
        missing = draft.peak - search.budget
        if missing <= 0 or clock.stopped():
            break
        for _, _, drops in _by_price(search, draft, repeats):
            every = max(1, len(drops) * drops[0].nbytes // missing)
            trial, _ = search.swapped(draft, None, drops[::every])
            if trial.peak < draft.peak:
                draft = trial
                break
        else:
            break
    return draft


_Kind = tuple[int, int]
"""A value's place in its block, and how many Computes it takes to have it again."""


def _by_price(
    search: Improver, draft: Draft, repeats: Repeats
) -> list[tuple[float, _Kind, list[Drop]]]:
    """What could be let go of in all blocks, the cheapest per byte first."""
    found = _drops(search, draft, repeats).items()
    prices = [sum(d.cost for d in drops) / sum(d.nbytes for d in drops) for _, drops in found]
    return sorted((price, kind, drops) for price, (kind, drops) in zip(prices, found, strict=True))


def _drops(search: Improver, draft: Draft, repeats: Repeats) -> dict[_Kind, list[Drop]]:
    """What could be let go of over the start of the backward, by its place in a block and what it
    takes to have it again."""
    start = next(t for t, action in enumerate(draft.actions) if isinstance(action, Backward))
    found: dict[_Kind, list[Drop]] = {}
    for drop in search.drops(draft):
        owner = search.sheet.graph.owners[drop.insert[-1]]
        if 0 <= repeats.block(owner) < repeats.count and drop.start <= start < drop.stop:
            kind = (owner - repeats.start) % repeats.period, len(drop.insert)
            found.setdefault(kind, []).append(drop)
    return found
