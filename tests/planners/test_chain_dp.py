"""The chain's dynamic programme against Revolve's closed form and a brute force of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from math import comb
from random import Random

import pytest

from ckpt.planners.base.clock import Deadline
from ckpt.planners.chain.kinds import Kind, Operation, Tape, Visit, crossing_beside
from ckpt.planners.chain.runs import Runs, run_work, spans_of
from ckpt.planners.chain.table import ADDED, Table


def random_kind(rng: Random, tapes: int = 2, scale: int = 6) -> Kind:
    """A stage as a graph could have it: keeping less costs more, storing all costs least."""
    crossing = rng.randint(1, scale)
    once = rng.randint(1, 20)
    cotangents = rng.randint(0, scale)
    full = crossing + rng.randint(0, 2 * scale)
    options, held, flops = [], full, once
    for _ in range(tapes):
        peak = held + rng.randint(0, scale)
        options.append(Tape(held, flops, peak, held + cotangents + rng.randint(0, scale)))
        held, flops = max(crossing, held - rng.randint(1, scale)), flops + rng.randint(1, once)
    advance = rng.randint(max(once // 2, 1), once)
    visits = [Visit(once, full + cotangents + rng.randint(0, scale))]
    visits.append(
        Visit(once + rng.randint(1, 5), max(visits[0].peak - rng.randint(1, 5), cotangents))
    )
    longer = tuple(rng.randint(0, crossing) for _ in range(rng.randint(0, 1)))
    return Kind(
        once_cost=once,
        advance_cost=advance,
        advance_peak=crossing + rng.randint(0, scale),
        crossing=(crossing, *longer),
        cotangents=cotangents,
        tapes=tuple(options),
        visits=tuple(visits),
    )


def every_schedule(kinds: Sequence[Kind], s: int, t: int) -> Iterator[tuple[Operation, ...]]:
    """All persistent schedules of stages s..t, by what they do and in no order of cost."""

    @cache
    def between(s: int, t: int) -> tuple[tuple[Operation, ...], ...]:
        if s == t:
            return tuple((Operation("visit", s, v),) for v in range(len(kinds[s].visits)))
        found = []
        for o in range(len(kinds[s].tapes)):
            tape, back = Operation("tape", s, o), Operation("backward", s, o)
            found += [(tape, *rest, back) for rest in between(s + 1, t)]
        for j in range(s + 1, t + 1):
            for right in between(j, t):
                advance = Operation("advance", s, j - 1)
                found += [(advance, *right, *left) for left in between(s, j - 1)]
        return tuple(found)

    yield from between(s, t)


def price(kinds: Sequence[Kind], operations: Sequence[Operation]) -> tuple[int, int]:
    """(peak, extra FLOPs) of a schedule, by holding what it says and adding it up. Bytes that were
    made in stage i and cross several cuts are held once, however many snapshots need them."""
    snapshots: set[int] = set()
    taped: dict[int, int] = {}
    last = len(kinds) - 1  # the stage whose backward comes next
    peak, flops = 0, -sum(kind.once_cost for kind in kinds)

    def held(cuts: set[int]) -> int:
        total = sum(taped.values())
        for i, kind in enumerate(kinds):
            if i not in taped:
                crossing = [
                    kind.crossing[j - i - 1] for j in cuts if 0 < j - i <= len(kind.crossing)
                ]
                total += max(crossing, default=0)
            # a tape holds all that crosses from its stage
        return total

    for word, first, choice in operations:
        if word == "advance":
            for k in range(first, choice + 1):
                high = held(snapshots | {k}) + kinds[k].advance_peak + kinds[last].cotangents
                peak = max(peak, high)
                flops += kinds[k].advance_cost
            snapshots.add(choice + 1)
        elif word == "tape":
            tape = kinds[first].tapes[choice]
            peak = max(peak, held(snapshots) + tape.forward_peak + kinds[last].cotangents)
            taped[first] = tape.held
            flops += tape.cost
        else:
            if word == "backward":
                del taped[first]
                high = kinds[first].tapes[choice].backward_peak
            else:
                high = kinds[first].visits[choice].peak
                flops += kinds[first].visits[choice].cost
            assert first == last
            peak = max(peak, held(snapshots) + high)
            snapshots.discard(first)
            last -= 1
    assert last == -1
    return peak, flops


def frontier(table: Table) -> dict[int, int]:
    return dict(zip(table.steps(), table.costs(table.steps()), strict=True))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("repeating", [False, True])
def test_equals_brute_force_over_persistent_schedules(seed: int, repeating: bool) -> None:
    rng = Random(seed)
    size = rng.randint(2, 5)
    kinds = [random_kind(rng, tapes=rng.randint(1, 2)) for _ in range(2 if repeating else size)]
    sequence = [i % len(kinds) for i in range(size)]
    stages = [kinds[k] for k in sequence]
    priced = [price(stages, schedule) for schedule in every_schedule(stages, 0, size - 1)]
    table = Table(kinds, sequence, slots=1000)
    assert table.nbytes(1) == 1  # the table is exact
    found = frontier(table)
    assert table.least == min(peak for peak, _ in priced)
    for budget in range(table.least, table.slots + 1):
        best = min(flops for peak, flops in priced if peak <= budget)
        assert found[max(m for m in found if m <= budget)] == best
    for m in found:
        peak, flops = price(stages, table.operations(m))
        assert peak <= m
        assert flops == found[m]


def uniform(tape: int) -> Kind:
    """Revolve's stage: one byte crosses, one FLOP; what it needs while it works is free."""
    return Kind(1, 1, 0, (1,), 0, (Tape(tape, 1, tape, tape),), (Visit(1, 0),))


@pytest.mark.parametrize("n", [2, 5, 17, 40, 100])
def test_homogeneous_limit_is_revolve(n: int) -> None:
    """Griewank & Walther 2000: n steps in s snapshots take r n - C(s+r, r-1) untaped forwards.

    The initial state is one of the s and lies outside the table; instead the table counts the state
    that a visit begins with. An untaped forward is an advance, and each of the n visits is a taped
    one, so the extra FLOPs are the untaped forwards.
    """
    table = Table([uniform(10 * n)], [0] * n, slots=10 * n * n)
    found = frontier(table)
    for snapshots in range(1, n + 1):
        r = next(r for r in range(n + 1) if comb(snapshots + r, snapshots) >= n)
        untaped = r * n - comb(snapshots + r, r - 1) if r else 0
        assert found[max(m for m in found if m <= snapshots)] == untaped


def test_homogeneous_limit_is_mixed() -> None:
    """Maddison 2024: a slot holds a state or a tape of equal size. Totals count all forwards."""

    @cache
    def mixed(n: int, s: int) -> int:
        if n <= s + 1:
            return n
        if s == 1:
            return n * (n + 1) // 2 - 1
        split = (i + mixed(i, s) + mixed(n - i, s - 1) for i in range(2, n))
        return min(1 + mixed(n - 1, s - 1), *split)

    for n in (3, 8, 20, 50):
        found = frontier(Table([uniform(1)], [0] * n, slots=n))
        for slots in range(1, n):
            assert found[max(m for m in found if m <= slots)] + n == mixed(n, slots), (n, slots)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("slots", [40, 200])
def test_rounding_never_needs_more_than_it_was_given(seed: int, slots: int) -> None:
    rng = Random(seed)
    kinds = [random_kind(rng, tapes=3, scale=10_000) for _ in range(rng.choice([2, 3, 30]))]
    sequence = [i % len(kinds) for i in range(30)]
    stages = [kinds[k] for k in sequence]
    table = Table(kinds, sequence, slots)
    assert table.slots <= 2 * slots
    previous = None
    for m in table.steps():
        peak, flops = price(stages, table.operations(m))
        assert peak <= table.nbytes(m)
        assert table.within(table.nbytes(m)) >= m
        assert previous is None or flops < previous
        previous = flops
    assert previous == 0  # the last step stores all


def test_storing_everything_loses_nothing_to_rounding() -> None:
    rng = Random(0)
    kinds = [random_kind(rng, tapes=1, scale=9_999) for _ in range(60)]
    table = Table(kinds, range(60), slots=100)
    stored = [Operation("tape", s, 0) for s in range(59)]
    returned = [Operation("backward", s, 0) for s in range(58, -1, -1)]
    peak, flops = price(kinds, [*stored, Operation("visit", 59, 0), *returned])
    assert flops == 0
    assert table.nbytes(table.steps()[-1]) <= peak + table.nbytes(2)


@pytest.mark.parametrize("period", [1, 2, 5])
def test_equal_stages_share_their_segments(period: int) -> None:
    rng = Random(period)
    kinds = [random_kind(rng, tapes=2, scale=500) for _ in range(period + 2)]
    size = 120
    sequence = [period, *(i % period for i in range(size - 2)), period + 1]
    table = Table(kinds, sequence, slots=size * 5)
    # Apart from the two stages that are alone, p distinct segments a length.
    assert table.distinct <= (period + 2) * size
    apart = Table([kinds[k] for k in sequence], range(size), slots=size * 5)
    assert apart.distinct == size * (size + 1) // 2
    # Sharing is only a saving: given the same slots, both tables say the same.
    if (apart.unit, apart.scale) == (table.unit, table.scale):
        assert apart.costs(apart.steps()) == table.costs(table.steps())


def test_a_value_that_passes_through_is_counted_once() -> None:
    """A skip from the first stage to the last: every snapshot between them holds it already."""

    def stage(crossing: tuple[int, ...]) -> Kind:
        return Kind(4, 4, 8, crossing, 1, (Tape(20, 4, 20, 22),), (Visit(4, 22),))

    size = 9
    skipping = [stage((8, *[6] * (size - 2))), *(stage((1,)) for _ in range(size - 1))]
    plain = [stage((8,)), *(stage((1,)) for _ in range(size - 1))]
    by_skip = Table(skipping, range(size), slots=1000)
    by_none = Table(plain, range(size), slots=1000)
    # One copy of the skip's six bytes is all the difference there can be.
    for m, flops in frontier(by_skip).items():
        best = [f for n, f in frontier(by_none).items() if n <= m]
        assert best
        assert min(best) <= flops
    for m, flops in frontier(by_none).items():
        assert min(f for n, f in frontier(by_skip).items() if n <= m + 6) <= flops


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("period", [1, 2])
def test_runs_of_equal_blocks_keep_what_their_table_says_and_lose_little(
    seed: int, period: int
) -> None:
    rng = Random(seed)
    kinds = [random_kind(rng) for _ in range(period + 2)]
    sequence = [period, *(k % period for k in range(45 * period)), period + 1]
    spans = spans_of(sequence)
    assert spans[0] == (0, 1) and len(spans) < 50
    assert spans[-2][1] - spans[-2][0] == period  # the last of the blocks is one by itself
    assert [k for a, b in spans for k in range(a, b)] == list(range(len(sequence)))
    runs = Runs(kinds, sequence, spans)
    table = Table(runs.kinds, runs.sequence, 10**6)
    stages = [kinds[k] for k in sequence]
    exact = Table(kinds, sequence, 10**6)  # bytes are small whole numbers here
    assert exact.unit == table.unit == table.scale == 1
    best = frontier(exact)
    lost = []
    for m in range(exact.steps()[0], exact.slots, exact.slots // 10):
        able = max((s for s in table.steps() if s <= m), default=None)
        if able is None:
            continue  # runs are coarser, and need more
        peak, again = price(stages, runs.operations(table.operations(able)))
        assert peak <= able
        assert again <= table.costs([able])[0]
        least = best[max(s for s in best if s <= m)]
        assert again >= least
        lost.append((again - least) / sum(stage.once_cost for stage in stages))
    assert len(lost) > 5
    assert sum(lost) / len(lost) < 0.06 and max(lost) < 0.25  # of a forward, at the tightest


def test_what_runs_take_by_themselves_is_foreseen() -> None:
    """A thousand blocks of twenty stages are cut into few runs, but of some hundred stages each."""
    rng = Random(0)
    period = 14
    kinds = [random_kind(rng) for _ in range(period)]
    sequence = [k % period for k in range(250 * period)]
    spans = spans_of(sequence)
    deadline = Deadline()
    with deadline.running():
        Runs(kinds, sequence, spans)
    foreseen = run_work({tuple(sequence[a:b]) for a, b in spans})
    assert foreseen / 4 < deadline.spent * ADDED < foreseen * 4


def test_what_crosses_behind_a_run_is_the_sum_over_its_stages() -> None:
    rng = Random(1)
    kinds = [random_kind(rng) for _ in range(3)]
    far = replace(kinds[1], crossing=tuple(range(90, 0, -1)))
    kinds.append(far)
    sequence = [2, 3, *(k % 2 for k in range(160)), 2]
    runs = Runs(kinds, sequence, spans_of(sequence))
    beside = crossing_beside([kinds[k] for k in sequence])
    for k, ((a, b), label) in enumerate(zip(runs.spans, runs.sequence, strict=True)):
        crossing = runs.kinds[label].crossing
        for n, (_, end) in enumerate(runs.spans[k:]):
            made = int(beside[a, end] - beside[b, end])
            assert made == (crossing[n] if n < len(crossing) else 0)
