"""`@checkpoint` regions as a schedule: what is dropped, replayed, and kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.schedule import Backward, Compute
from ckpt.timeline import Timeline
from tests.graphs import ZOO, Build, with_regions


def program(*regions: tuple[int, ...], keep: tuple[int, ...] = ()) -> Graph:
    """A chain of `exp` (which read their own output), one for each given path of regions."""
    b = Build()
    x = b.resident(10)
    for position, path in enumerate(regions):
        b.regions = path
        x = b.op("exp", x, nbytes=10, flops=1, reads=["out"], keep=position in keep)
    return b.graph(x)


def run(graph: Graph) -> Timeline:
    return simulate(graph, make_schedule(graph, "as_written"))


def test_without_regions_it_is_store_all() -> None:
    graph = ZOO["mlp"]()
    assert (
        make_schedule(graph, "as_written").instructions
        == make_schedule(graph, "store_all").instructions
    )


def test_a_region_drops_all_but_what_is_read_outside() -> None:
    timeline = run(program((1,), (1,), (1,), (), ()))
    # nodes 1, 2 are replayed; 3 is read by 4, outside, and stays
    assert list(timeline.counts) == [0, 2, 2, 1, 1, 1]
    # in Backward 3: 1 and 2 again, 3, the output, and two cotangents; store-all holds 4 as well
    assert timeline.peak == 60
    assert run(program((), (), (), (), ())).peak == 70


def test_a_policy_keeps_a_value() -> None:
    timeline = run(program((1,), (1,), (1,), (), keep=(0,)))
    assert list(timeline.counts) == [0, 1, 2, 1, 1]


def test_nested_regions_are_dropped_again_in_the_replay() -> None:
    timeline = run(program((1,), (1, 2), (1, 2), (1,), ()))
    # 1: dropped, replayed with region 1. 2: belongs to region 2: forward, replay of 1 (to reach 3),
    # replay of 2. 3 is read in region 1 and belongs to it. 4 is read outside.
    assert list(timeline.counts) == [0, 2, 3, 2, 1, 1]


def test_a_value_the_inner_policy_keeps_belongs_to_the_outer_region() -> None:
    timeline = run(program((1,), (1, 2), (1, 2), (1,), (), keep=(1,)))
    assert list(timeline.counts) == [0, 2, 2, 2, 1, 1]


def test_replay_goes_only_as_far_as_backward_needs() -> None:
    b = Build()
    x = b.resident(10)
    b.regions = (1,)
    first = b.op("exp", x, nbytes=10, reads=["out"])
    second = b.op("shift", first, nbytes=10, kinds="handed")
    b.regions = ()
    timeline = run(b.graph(b.op("sum", second, nbytes=1, kinds="view")))
    assert list(timeline.counts) == [0, 2, 1, 1]


def test_a_region_is_replayed_at_its_first_backward_and_freed_behind_it() -> None:
    graph = program((1,), (1,), (2,), (2,), ())
    actions = [s for s in make_schedule(graph, "as_written") if isinstance(s, Compute | Backward)]
    assert actions == [
        Compute(1), Compute(2), Compute(3), Compute(4), Compute(5),
        Backward(0), Compute(3), Backward(1), Backward(2), Compute(1), Backward(3), Backward(4),
    ]  # fmt: skip


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_the_zoo_program(n: int) -> None:
    graph = with_regions(n)
    timeline = run(graph)
    plain = simulate(graph, make_schedule(graph, "store_all"))
    assert timeline.recompute_flops < 2 * plain.forward_flops
    assert all(
        count <= len(node.regions) + 1 for count, node in zip(timeline.counts, graph, strict=True)
    )
    if n > 2:
        assert timeline.peak < plain.peak


def test_regions_do_not_change_the_graph_that_is_planned() -> None:
    graph = with_regions(3)
    bare = replace(graph, nodes=tuple(replace(n, regions=(), keep=False) for n in graph))
    assert bare.digest == graph.digest
    assert run(bare).recomputations == 0
