"""What is shown, and what the keys and buttons do."""

from __future__ import annotations

from typing import Any

import pytest

import ckpt
from ckpt.graph import Graph, Node
from ckpt.reports.formats.shown import _Framed
from ckpt.reports.pages import page
from tests.graphs import chain
from tests.reports.browser.choosing import choose
from tests.reports.test_pages import HOSTILE, reel


def test_it_steps_and_scrubs_and_jumps(opened: Any) -> None:
    state = lambda: opened.evaluate("ckpt.state()")  # noqa: E731
    opened.keyboard.press("Home")
    assert state()["position"] == 0
    opened.keyboard.press("ArrowRight")
    assert state()["position"] == 1
    opened.click("#back")
    assert state()["position"] == 0
    opened.click("#peak")
    assert state()["position"] == state()["peak"]
    opened.evaluate("ckpt.seek(7)")
    assert "8 of" in opened.inner_text("#now")
    assert opened.locator("#live tr").count() > 0


def test_it_opens_at_its_peak_and_plays_from_the_beginning(opened: Any) -> None:
    state = opened.evaluate("ckpt.state()")
    assert state["position"] == state["peak"] > 0
    opened.evaluate("ckpt.play(true)")
    assert opened.evaluate("ckpt.state().position") < state["peak"]
    opened.evaluate("ckpt.seek(20); ckpt.play(false); ckpt.play(true)")
    assert opened.evaluate("ckpt.state().position") >= 20


def test_keys_work_where_a_button_has_the_focus(opened: Any) -> None:
    opened.click("#peak")
    at = opened.evaluate("ckpt.state().position")
    opened.keyboard.press("ArrowLeft")
    opened.keyboard.press("Shift+ArrowLeft")
    assert opened.evaluate("ckpt.state().position") == at - 11
    opened.keyboard.press(" ")  # the button's own
    assert opened.evaluate("ckpt.state()") | {"playing": False} == opened.evaluate("ckpt.state()")
    assert opened.evaluate("ckpt.state().position") == at


def test_the_curve_is_scrubbed(opened: Any) -> None:
    box = opened.locator("#bytes").bounding_box()
    opened.mouse.move(box["x"] + 70, box["y"] + 100)
    opened.mouse.down()
    first = opened.evaluate("ckpt.state().position")
    opened.mouse.move(box["x"] + box["width"] - 6, box["y"] + 50, steps=4)
    opened.mouse.up()
    count = opened.evaluate("ckpt.state().count")
    assert first < 0.05 * count
    assert opened.evaluate("ckpt.state().position") > 0.97 * count
    opened.mouse.move(box["x"] + 70, box["y"] + 50)
    assert opened.evaluate("ckpt.state().position") > 0.97 * count


def test_a_choice_plays_another_schedule(opened: Any) -> None:
    assert opened.evaluate("ckpt.state().recomputes") == 0
    choose(opened, 1)
    expected = reel(chain(40), "sqrt").timeline
    assert opened.evaluate("ckpt.state().recomputes") == expected.recomputations
    opened.keyboard.press("r")
    assert "compute again" in opened.inner_text("#now")
    choose(opened, 2)
    assert "nothing fits 1 %" in opened.inner_text("#missing")


def test_live_bytes_are_those_of_the_simulation(opened: Any) -> None:
    choose(opened, 1)
    timeline = reel(chain(40), "sqrt").timeline
    for position in range(0, len(timeline), 7):
        opened.evaluate(f"ckpt.seek({position})")
        live = opened.evaluate("ckpt.state().live")
        assert live[0] == timeline.columns["activations"][position]


def test_it_plays_to_the_end(opened: Any) -> None:
    opened.select_option("#speed", "0")
    opened.evaluate("ckpt.seek(ckpt.state().count - 12)")
    opened.evaluate("ckpt.play(true)")
    opened.wait_for_function("!ckpt.state().playing", timeout=20_000)
    assert opened.evaluate("ckpt.state().position === ckpt.state().count - 1")


def test_a_value_has_a_life(opened: Any) -> None:
    choose(opened, 1)
    opened.click("#pebbles", position={"x": 60, "y": 12})
    assert "computed at" in opened.inner_text("#life")


def test_a_value_is_chosen_by_keyboard(opened: Any) -> None:
    choose(opened, 1)
    opened.focus("#pebbles")
    at = opened.evaluate("ckpt.state().position")
    for key in ("ArrowRight", "ArrowRight", "ArrowRight"):
        opened.keyboard.press(key)
    third = [i for i, node in enumerate(chain(40)) if not node.resident][2]
    assert opened.inner_text("#life").startswith(f"{third}: ")
    assert opened.evaluate("ckpt.state().chosen") == third
    opened.keyboard.press("ArrowDown")
    opened.keyboard.press("ArrowUp")
    assert opened.evaluate("ckpt.state().chosen") == third
    assert opened.evaluate("ckpt.state().position") == at


def test_it_fits_a_narrow_screen_and_is_dark_where_the_screen_is(visit: Any) -> None:
    text = ckpt.frontier(chain(40), planners=["store_all", "chain"], points=4).page()
    narrow = visit(text, viewport={"width": 390, "height": 800}, color_scheme="dark")
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 390
    ground = "getComputedStyle(document.body).backgroundColor"
    assert narrow.evaluate(ground) != "rgb(255, 255, 255)"
    narrow.emulate_media(media="print")
    narrow.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert narrow.evaluate(ground) == "rgb(255, 255, 255)"
    narrow.evaluate("window.dispatchEvent(new Event('afterprint'))")


def test_hostile_names_run_nothing(visit: Any) -> None:
    nodes = [Node(name=HOSTILE, op="input", resident=True, shape=(1,), nbytes=4)]
    nodes += [
        Node(name=HOSTILE, op=HOSTILE, deps=(k,), nbytes=4, flops=1, source=HOSTILE, scope=HOSTILE)
        for k in range(3)
    ]
    graph = Graph(tuple(nodes), outputs=(3,), name=HOSTILE)
    tab = visit(page(HOSTILE, [reel(graph, "store_all")], verdict=HOSTILE))
    tab.on("dialog", lambda dialog: pytest.fail(dialog.message))
    tab.click("#peak")
    tab.click("#pebbles", position={"x": 30, "y": 12})
    tab.select_option("#levels", "scope")
    assert tab.locator("b").count() == 0
    assert "alert(1)" in tab.inner_text("#now")


def test_it_plays_in_a_notebooks_frame(visit: Any) -> None:
    framed = _Framed(page("chain", [reel(chain(40), "sqrt")]))._repr_html_()
    frame = visit(f"<!doctype html><title>a notebook</title>{framed}").frames[1]
    frame.click("#again")
    assert "compute again" in frame.inner_text("#now")
