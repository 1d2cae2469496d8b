"""The page in which schedules play: what is in the file, and what its scripts make of that."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt import units
from ckpt.graph import Graph, Node
from ckpt.machine import simulate
from ckpt.reports import pages
from ckpt.reports.pages import GHOST_POINTS, Reel, page
from ckpt.schedule import Compute, Free
from ckpt.text import printable
from ckpt.timeline import KINDS
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
    assert any(printable(HOSTILE) in words for words in data_of(text)["graphs"][0]["texts"])


def test_one_alone_is_told_by_the_pages_verdict() -> None:
    one = reel(chain(12), "sqrt")
    assert data_of(page("a", [one]))["reels"][0]["verdict"] == one.verdict
    text = page("a", [one], verdict="whole")
    assert data_of(text)["reels"][0]["verdict"] == ""
    assert '<p class="verdict">whole</p>' in text


def test_store_all_is_not_drawn_over_itself() -> None:
    assert data_of(page("a", [reel(chain(12), "store_all")]))["reels"][0]["ghost"] is None


def test_what_was_measured_is_beside_what_was_simulated() -> None:
    found = ckpt.profile(lambda w: np.sum(np.tanh(w) ** 2), np.ones((64, 8)))
    (data,) = data_of(found.page())["reels"]
    assert found.measured is not None
    assert data["seen"] == list(found.measured.columns["high"])
    assert len(data["seen"]) == len(data["high"])
    assert data_of(page("a", [reel(chain(12), "sqrt")]))["reels"][0]["seen"] is None


@pytest.mark.parametrize("name", ["plan-gpt", "frontier-gpt", "sweep"])
def test_the_demo_pages_are_those_of_today(name: str) -> None:
    """By `ckpt plan gpt --budget 25%`, `ckpt frontier gpt --depth 4`, `ckpt sweep --depth 20`, each
    with `-o plots/….html`."""
    made = (Path(__file__).parents[2] / "plots" / f"{name}.html").read_text(encoding="utf-8")
    assert pages.script() in made


# -- the scripts' own logic, which needs no page ---------------------------------------------------

NODE = shutil.which("node")


def in_node(expression: str, data: Any = None) -> Any:
    """What a JavaScript expression is where ``reel.js`` was read and ``data`` is there."""
    if NODE is None:
        pytest.skip("needs node")
    script = (Path(pages.__file__).parent / "page" / "reel.js").read_text(encoding="utf-8")
    script += f"const data = {json.dumps(data)};\nconsole.log(JSON.stringify({expression}));"
    done = subprocess.run([NODE, "-"], input=script, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_bytes_are_written_as_on_the_terminal() -> None:
    sizes = [k * 2**e // 7 for e in range(45) for k in (5, 7, 11, 6998)]
    assert in_node("data.map(bytes)", sizes) == [units.format_bytes(size) for size in sizes]


@pytest.mark.parametrize("most", [1, 7, 1000, 1536, 55.5 * 2**20, 3e12])
def test_ticks_are_round_and_few(most: float) -> None:
    for found in (in_node(f"ticks({most}, 5)"), in_node(f"byteTicks({most}, 5)")):
        assert found[0] == 0 and most * 0.39 <= found[-1] <= most * (1 + 1e-9)
        assert 2 <= len(found) <= 6


SEEN = """
(data) => {
  const reel = new Reel(data.reels[0], data.graphs[0]), all = [...reel.high.keys()];
  const held = all.map((p) => reel.held(p));
  return {
    live: reel.live.map((row) => [...row.slice(0, reel.count)]),
    again: reel.recomputes,
    peak: reel.peak,
    held: held.map((there) => there.length),
    words: all.map((p) => reel.words(p)),
    groups: held.map((there) => groups(reel, there).reduce((sum, row) => sum + row.nbytes, 0)),
    tree: held.map((there) => tree(reel, there, false).nbytes),
  };
}
"""


@pytest.mark.parametrize("planner", ["sqrt", "revolve"])
def test_the_scripts_hold_what_the_timeline_holds(planner: str) -> None:
    """Live bytes by kind, what is computed again, the peak and the buffers, at each instruction."""
    one = reel(chain(12), planner)
    timeline = one.timeline
    found = in_node(f"({SEEN})(data)", data_of(page("a", [one])))
    columns = timeline.columns
    for kind, row in zip(KINDS, found["live"], strict=False):
        assert row == list(columns[kind])
    assert len(found["again"]) == timeline.recomputations
    assert columns["high"][found["peak"]] == timeline.peak
    assert found["peak"] == timeline.peak_position
    assert found["held"] == [
        sum(b.born <= p < b.died for b in timeline.buffers) for p in range(len(timeline))
    ]
    whole = [sum(row[p] for row in found["live"]) for p in range(len(timeline))]
    assert found["groups"] == found["tree"] == whole
    assert sum(words.startswith("compute again") for words in found["words"]) == len(found["again"])


def test_a_row_is_a_scope_and_a_loop_has_a_period() -> None:
    texts = ["", "a/x", "a/y", "b", "f.py:1", "f.py:2"]
    graph = {"texts": texts, "scopes": [0, 1, 1, 2, 3], "lines": [4, 4, 5, 4, 5]}
    rows = in_node("scopeRows(data, [0, 1, 2, 3, 4], 9)", graph)
    assert [(row["name"], row["nodes"]) for row in rows] == [
        ("", [0]), ("a/x", [1, 2]), ("a/y", [3]), ("b", [4]),
    ]  # fmt: skip
    fewer = in_node("scopeRows(data, [0, 1, 2, 3, 4], 3)", graph)
    assert [row["name"] for row in fewer] == ["", "a", "b"]
    assert in_node("scopeRows(data, [0, 1, 2, 3, 4], 1)", graph) is None
    looped = {"lines": [4, *[5, 6, 6, 7] * 9, 8]}
    assert in_node("period(data, data.lines.map((_, k) => k))", looped) == 4
    assert in_node("period({lines: [1, 2, 3]}, [0, 1, 2])") == 1
