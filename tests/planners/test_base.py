"""The table of planners, their options, and the errors that name a way out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ckpt
from ckpt.errors import BudgetError, UsageError
from ckpt.planners import get, make_schedule, names
from ckpt.planners.base import registry
from tests.graphs import ZOO


def test_names_begin_with_the_simplest() -> None:
    assert names()[:2] == ["store_all", "recompute_all"]
    assert "auto" in names()


def test_a_value_after_the_colon_sets_the_main_option() -> None:
    planner, options = get("every:7")
    assert (planner.name, options) == ("every", {"k": 7})
    assert get("revolve:3")[1] == {"slots": 3}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("evry", "unknown planner 'evry'; did you mean every"),
        ("sqrt:3", "takes no value"),
        ("every:x", "'x' in 'every:x' is no int"),
        ("every:0", "at least one stage"),
        ("revolve:0", "needs one"),
        ("mixed:-1", "needs one"),
    ],
)
def test_bad_names(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_schedule(ZOO["mlp"](), name)


def test_an_unknown_option_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="no option 'slot'; its options are slots"):
        make_schedule(ZOO["mlp"](), "revolve", slot=3)
    with pytest.raises(UsageError, match="it has no options"):
        make_schedule(ZOO["mlp"](), "store_all", k=3)


def test_a_budget_that_cannot_be_met_names_the_smallest_and_what_sets_it() -> None:
    graph = ZOO["mlp"]()
    with pytest.raises(BudgetError, match="backward") as caught:
        make_schedule(graph, "store_all", 100)
    assert caught.value.smallest == 1288
    assert caught.value.instruction == "backward 10 (of tanh)"


@pytest.mark.parametrize("name", names())
def test_every_planner_says_where_it_comes_from(name: str) -> None:
    try:
        doc = get(name)[0].doc
    except ModuleNotFoundError as error:
        pytest.skip(f"planner {name} isn't written yet: {error.name}")
    assert len(doc) > 100


# -- a planner of one's own ------------------------------------------------------------------------


@pytest.fixture
def mine() -> Iterator[str]:
    """Everything is computed, nothing is freed; with ``often``, one value again and again."""

    @ckpt.planner("mine", takes="often")
    def mine(
        graph: ckpt.Graph, budget: int | None = None, *, often: int = 0, first: int | None = None
    ) -> ckpt.Schedule:
        """Keep all."""
        again = graph.computed[0] if first is None else first
        forward = [ckpt.Compute(i) for i in graph.computed]
        more = [i for _ in range(often) for i in (ckpt.Free(again), ckpt.Compute(again))]
        backward = [ckpt.Backward(k) for k in range(len(graph.steps))]
        return ckpt.Schedule((*forward, *more, *backward))

    yield "mine"
    registry._REGISTRY.pop("mine")


def test_a_planner_of_ones_own_is_asked_by_name(mine: str) -> None:
    graph = ZOO["mlp"]()
    assert mine in names()
    schedule = make_schedule(graph, mine)
    assert (schedule.planner, schedule.graph) == ("mine", graph.digest)
    assert ckpt.simulate(graph, make_schedule(graph, "mine:3")).recomputations == 3
    assert ckpt.plan(graph, planner="mine:2").timeline.recomputations == 2
    assert ckpt.frontier(graph, planners=["mine", "sqrt"], points=2).rows


def test_its_options_are_its_own(mine: str) -> None:
    graph = ZOO["mlp"]()
    again = graph.computed[1]
    assert ckpt.plan(graph, planner=mine, often=1, first=again).timeline.counts[again] == 2
    with pytest.raises(UsageError, match="planner mine has no option 'k'; its options are often"):
        make_schedule(graph, mine, k=4)
    with pytest.raises(UsageError, match="no option 'often'"):
        make_schedule(graph, "every", often=4)


def test_it_is_held_to_the_budget_and_to_the_grammar(mine: str) -> None:
    graph = ZOO["mlp"]()
    most = ckpt.simulate(graph, make_schedule(graph, mine)).peak
    with pytest.raises(BudgetError, match="mine: no schedule within") as caught:
        make_schedule(graph, mine, 1000)
    assert caught.value.smallest == most
    with pytest.raises(ckpt.ScheduleError, match="resident and can't be freed"):
        make_schedule(graph, mine, 1000, often=1, first=0)


def test_a_budget_of_just_the_store_all_peak_is_met() -> None:
    graph = ZOO["mlp"]()
    most = ckpt.simulate(graph, make_schedule(graph, "store_all")).peak
    assert ckpt.simulate(graph, make_schedule(graph, "store_all", most)).peak == most
    assert ckpt.simulate(graph, make_schedule(graph, "auto", "100%")).recompute_flops == 0
    with pytest.raises(BudgetError):
        make_schedule(graph, "store_all", most - 1)
