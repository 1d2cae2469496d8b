"""The table of planners, their options, and the errors that name a way out."""

from __future__ import annotations

import pytest

from ckpt.errors import BudgetError, UsageError
from ckpt.planners import get, make_schedule, names
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
        ("evry", "unknown planner 'evry'; choose from store_all"),
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
