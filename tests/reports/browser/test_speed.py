"""How quick a large step is; `experiments/bench_page.py` prints the figures."""

from __future__ import annotations

from typing import Any

from ckpt.reports.pages import page
from tests.graphs import chain
from tests.reports.test_pages import reel


def test_a_large_step_plays_within_a_frames_time(visit: Any) -> None:
    """2,400 instructions: at most 8 ms of script a frame, at the 95th percentile."""
    graph = chain(700)
    one = reel(graph, "sqrt")
    assert len(one.timeline) >= 2400
    tab = visit(page("large", [one]))
    tab.select_option("#speed", "0")
    tab.evaluate("ckpt.frames.length = 0; ckpt.play(true)")
    tab.wait_for_function("ckpt.frames.length >= 240 || !ckpt.state().playing", timeout=30_000)
    frames = sorted(tab.evaluate("ckpt.frames"))
    assert len(frames) >= 60
    assert frames[int(0.95 * len(frames))] <= 8


def test_a_hundred_thousand_instructions_load_within_two_seconds(visit: Any) -> None:
    one = reel(chain(7_000), "sqrt")
    assert len(one.timeline) >= 100_000
    text = page("very large", [one])
    loads = []
    for _ in range(3):  # the best of them: other processes only ever add to it
        tab = visit(text)
        assert tab.evaluate("ckpt.state().count") == len(one.timeline)
        loads.append(
            tab.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
        )
    assert min(loads) <= 2000
