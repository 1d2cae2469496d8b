"""The page in which schedules play: what is in the file; and, where there is a browser, what it
does."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ckpt
from ckpt.graph import Graph, Node
from ckpt.machine import simulate
from ckpt.reports.pages import GHOST_POINTS, Reel, page
from ckpt.schedule import Compute, Free
from tests.graphs import chain

HOSTILE = "</script><script>alert(1)</script><b>\"'&\x1b]0;x\x07"


def reel(graph: Graph, planner: str, at: tuple[str, ...] = ()) -> Reel:
    kept = simulate(graph, ckpt.make_schedule(graph, "store_all"))
    return Reel(graph, simulate(graph, ckpt.make_schedule(graph, planner)), at, kept)


def data_of(text: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found is not None
    return json.loads(found[1])


def test_the_file_needs_nothing_else() -> None:
    text = page("a chain", [reel(chain(12), "sqrt")])
    assert not re.search(r"""(src|href)\s*=|url\(|@import|https?://""", text)
    assert len(text) < 150_000


def test_the_data_are_the_schedule_and_its_buffers() -> None:
    one = reel(chain(12), "sqrt")
    data = data_of(page("a chain", [one]))
    (found,) = data["reels"]
    spelt = [
        3 * i.node + isinstance(i, Free) if isinstance(i, Compute | Free) else 3 * i.step + 2
        for i in one.timeline.schedule
    ]
    assert found["instructions"] == spelt
    assert found["high"] == list(one.timeline.columns["high"])
    assert len(found["born"]) == len(one.timeline.buffers)
    assert found["budget"] is None
    assert one.ghost is not None
    assert max(found["ghost"]) == one.ghost.peak
    assert len(found["ghost"]) <= GHOST_POINTS


def test_one_graph_is_there_once_and_choices_are_in_order() -> None:
    graph = chain(12)
    reels = [reel(graph, "store_all", ("100 %",)), reel(graph, "sqrt", ("50 %",))]
    gone = {("1 %",): "nothing fits"}
    data = data_of(page("a chain", reels, choices=["budget"], missing=gone))
    assert len(data["graphs"]) == 1
    assert data["choices"] == [{"name": "budget", "options": ["100 %", "50 %", "1 %"]}]
    assert [r["at"] for r in data["reels"]] == [[0], [1]]
    assert data["missing"] == {"2": "nothing fits"}


def test_no_text_of_a_users_becomes_markup() -> None:
    nodes = (
        Node(name=HOSTILE, op="input", resident=True, shape=(1,)),
        Node(name=HOSTILE, op=HOSTILE, deps=(0,), nbytes=4, source=HOSTILE, scope=HOSTILE),
    )
    graph = Graph(nodes, outputs=(1,), name=HOSTILE)
    text = page(HOSTILE, [reel(graph, "store_all")], verdict=HOSTILE)
    assert "<script>alert" not in text
    assert "<b>" not in text
    assert text.count("</script>") == 2
    assert any(HOSTILE in words for words in data_of(text)["graphs"][0]["texts"])


# -- in a browser ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright, to drive a browser")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium")
    with api.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    graph = chain(40)
    reels = [reel(graph, "store_all", ("100 %",)), reel(graph, "sqrt", ("50 %",))]
    text = page("chain", reels, choices=["budget"], missing={("1 %",): "nothing fits 1 %"})
    path = tmp_path / "page.html"
    path.write_text(text, encoding="utf-8")
    tab = browser.new_page(viewport={"width": 1000, "height": 1200})
    said: list[str] = []
    tab.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    tab.on("pageerror", lambda e: said.append(str(e)))
    tab.goto(path.as_uri())
    yield tab
    assert not said
    tab.close()


def choose(tab: Any, option: int) -> None:
    tab.evaluate(
        f"c = document.getElementById('choice0'); c.value = {option};"
        "c.dispatchEvent(new Event('input'))"
    )


def test_it_steps_and_scrubs_and_jumps(opened: Any) -> None:
    state = lambda: opened.evaluate("ckpt.state()")  # noqa: E731
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
    opened.click("#pebbles", position={"x": 60, "y": 5})
    assert "computed at" in opened.inner_text("#life")
