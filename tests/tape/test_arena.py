"""Where a compiled step's arrays lie: no two that are in use by one call overlap, every one is
aligned, and the arena is as small as what its lines hold at once allows."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import ckpt
from ckpt.planners import make_schedule
from ckpt.tape.core.abstract import AbstractArray
from ckpt.tape.execution.arena import ALIGNMENT, beside, block, padded, place
from ckpt.tape.execution.draws import Draws
from ckpt.tape.execution.lines import Code, Line, Var, write
from tests.programs import choices, make


def call(code: Code, *sources: Var, nbytes: int = 64, workspace: int = 0) -> Var:
    """A line that makes an array of so many bytes, and can write it into its place."""
    result = Var(AbstractArray((nbytes,), "u1"))
    line = Line("call", np.positive, list(sources), result, None, np.positive)
    line.workspace = workspace
    code.lines.append(line)
    return result


def lives(code: Code) -> dict[Var, tuple[int, int]]:
    """The first and the last line that touches each buffer, read off the lines."""
    found: dict[Var, tuple[int, int]] = {}
    for at, line in enumerate(code.lines):
        for var in line.variables():
            if line.kind != "drop":
                found[var.root] = (found.get(var.root, (at, at))[0], at)
    return found


def check(code: Code, size: int) -> None:
    """No two placed arrays whose lives meet overlap, end points included."""
    alive = lives(code)
    placed = [var for var in alive if var.placed]
    for var in placed:
        assert var.offset % ALIGNMENT == 0
        assert 0 <= var.offset <= size - var.array.nbytes
    for a, b in combinations(placed, 2):
        if alive[a][0] <= alive[b][1] and alive[b][0] <= alive[a][1]:
            apart = a.offset + a.array.nbytes <= b.offset or b.offset + b.array.nbytes <= a.offset
            assert apart, (alive[a], a.offset, a.array, alive[b], b.offset, b.array)


arrays = st.lists(
    st.tuples(st.integers(1, 400), st.lists(st.integers(1, 12), max_size=3)), min_size=1
)
"""For each array its bytes, and how far back those lie that its call reads."""


@given(arrays, st.integers(0, 3))
def test_arrays_that_are_in_use_at_once_lie_apart(rows: Any, results: int) -> None:
    code, made = Code(), []
    for nbytes, back in rows:
        sources = [made[-k] for k in back if k <= len(made)]
        made.append(call(code, *sources, nbytes=nbytes))
    code.aux = made[:results]  # which leave with the result, and lie in memory of their own
    size = place(code)
    check(code, size)
    assert not any(var.placed for var in code.aux)
    assert all(var.placed for var in made[results:])
    # Padded, no less than the most that a line touches, and no more than all of them.
    alive = lives(code)
    live = [
        sum(padded(v) for v in made[results:] if alive[v][0] <= at <= alive[v][1])
        for at in range(len(rows))
    ]
    assert max(live) <= size <= sum(padded(v) for v in made[results:])


@given(arrays)
def test_each_lies_at_the_lowest_offset_that_is_free_in_its_life(rows: Any) -> None:
    code, made = Code(), []
    for nbytes, back in rows:
        made.append(call(code, *[made[-k] for k in back if k <= len(made)], nbytes=nbytes))
    place(code)
    alive = lives(code)
    order = sorted(made, key=lambda v: (-v.array.nbytes, alive[v][0]))
    for k, var in enumerate(order):
        first, last = alive[var]
        met = [v for v in order[:k] if alive[v][0] <= last and first <= alive[v][1]]
        offsets = [0, *(v.offset + padded(v) for v in met)]
        assert var.offset == min(
            at
            for at in offsets
            if all(at + padded(var) <= v.offset or v.offset + padded(v) <= at for v in met)
        )


def test_an_array_that_a_call_reads_is_not_the_one_that_it_writes() -> None:
    """x is read for the last time where y is made: line 1 needs both."""
    code = Code()
    x = call(code)
    y = call(code, x)
    z = call(code, y)
    assert place(code) == 2 * ALIGNMENT
    assert x.offset != y.offset != z.offset
    assert z.offset == x.offset  # whose life ended before line 2


def test_a_view_and_what_is_written_over_prolong_a_life() -> None:
    code = Code()
    x = call(code, nbytes=64)
    seen = Var(AbstractArray((4, 16), "u1"), x)
    code.lines.append(Line("view", np.reshape, [x], seen))
    other = call(code, nbytes=64)
    over = Var(AbstractArray((64,), "u1"), x)
    code.lines.append(Line("over", np.add, [x, other], over))
    last = call(code, over, nbytes=64)
    size = place(code)
    check(code, size)
    assert size == 2 * ALIGNMENT
    assert other.offset != x.offset != last.offset


def test_equal_arrays_of_a_chain_take_two_places() -> None:
    code = Code()
    x = call(code, nbytes=1000)
    for _ in range(50):
        x = call(code, x, nbytes=1000)
    assert place(code) == 2 * 1024


def test_a_drop_prolongs_no_life() -> None:
    """What the schedule lets go of later than its last use gives its place up at that use."""
    code = Code()
    x = call(code)
    y = call(code, x)
    z = call(code, y)
    code.lines.append(Line("drop", lambda: None, [x]))
    assert place(code) == 2 * ALIGNMENT
    assert z.offset == x.offset


def test_what_cannot_be_written_into_is_counted_beside() -> None:
    """Lines 0 and 1 make arrays of 100 and 200 bytes of their own, and line 2 needs 50 more."""
    code = Code()
    x = Var(AbstractArray((100,), "u1"))
    code.lines.append(Line("call", np.positive, [], x))
    y = Var(AbstractArray((200,), "u1"))
    code.lines.append(Line("call", np.positive, [x], y))
    z = call(code, y, workspace=50)
    assert place(code) == ALIGNMENT
    assert not (x.placed or y.placed) and z.placed
    assert beside(code) == 300  # at line 1; at line 2 it is 200 + 50
    code.lines[-1].workspace = 150
    assert beside(code) == 350


def test_the_block_is_aligned_and_holds_so_many_bytes() -> None:
    for nbytes in (0, 1, 63, 64, 1000):
        made = block(nbytes)
        assert made.nbytes == nbytes
        assert not nbytes or made.ctypes.data % ALIGNMENT == 0


@given(choices, st.integers(0, 1000), st.sampled_from(["store_all", "recompute_all", "sqrt"]))
def test_in_real_programs(steps: Any, seed: int, planner: str) -> None:
    loss, args = make(steps, seed, 0)
    program = ckpt.trace(loss, *args)
    try:
        schedule = ckpt.make_schedule(program.graph, planner)
    except ckpt.UsageError:
        return  # too short to be cut
    code = write(program.traced, schedule, Draws(program.traced, schedule))
    check(code, place(code))


def test_buffers_of_a_part_that_is_added_count():
    """Backwards, NumPy adds through buffers: at the end, when all of an arena is there."""

    def loss(x, row):
        return np.real(np.sum((x[..., ::-1] * 0.5) * (x + row)))

    rng = np.random.default_rng(0)
    x = rng.standard_normal((436, 600)).astype("f4").view("c8")
    args = x, x[0] * 2
    program = ckpt.trace(loss, *args)
    schedule = make_schedule(program.graph, "store_all")
    promised = ckpt.simulate(program.graph, schedule).peak
    step = program.compile(schedule)
    (_, found), peak = program.measure(step, *args)
    assert peak <= promised * 1.01 + 16 * 1024
    assert found.tobytes() == ckpt.value_and_grad(loss)(*args)[1].tobytes()
