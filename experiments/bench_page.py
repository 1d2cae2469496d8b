"""How large is the page in which a schedule plays, and how quick?

Question: does a step of 2,400 instructions play without a frame that is late, does one of 100,000
open at once, and can the page be sent by mail?
Theory says: a frame draws three pictures and the pebbles that are live, so its script grows with
what is live and not with the schedule; loading reads each instruction a few times.
A chain in sqrt segments, in headless Chromium: the script's milliseconds a frame as the page itself
counts them, all that is called in it included, and as the browser does, for all it runs, layout and
painting left out.
Run: python experiments/bench_page.py   (needs Chromium and pip install 'ckpt-profiler[browser]')
Found: on two cores under a load of 16, 3,011 instructions play in 449 frames at 0.3 ms of script
each (median; 2.3 at the 95th percentile, 30 at most; by the browser's own count 2.3 on average);
128,620 instructions load in 1.4 s (median of five), from 5.2 MiB of data. The page without data is
42 KiB.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ckpt.graph import BackwardStep, Graph, Node
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.reports.pages import Reel, page


def chain(length: int) -> Graph:
    """Values of 64 bytes, each of the one before; backward reads both."""
    nodes = [Node(name="x", op="input", shape=(64,), dtype="uint8", nbytes=64, resident=True)]
    nodes += [
        Node(
            name=f"squash{k}", op="squash", deps=(k,), shape=(64,), dtype="uint8", nbytes=64,
            flops=64, source="chain.py:1", requires_grad=True,
        )
        for k in range(length)
    ]  # fmt: skip
    steps = [
        BackwardStep(label="squash", at=k, reads=(k - 1, k) if k > 1 else (k,), flops=128)
        for k in range(length, 0, -1)
    ]
    return Graph(tuple(nodes), steps=tuple(steps), outputs=(length,), name="chain")


def reel(instructions: int) -> Reel:
    """A chain whose schedule has at least so many, and at most half as many more."""
    length, count = 8, 0
    while count < instructions:
        graph = chain(length)
        timeline = simulate(graph, make_schedule(graph, "sqrt"))
        count = len(timeline)
        length = length * instructions // count + 1
    return Reel(graph, timeline, ghost=simulate(graph, make_schedule(graph, "store_all")))


def played(tab: Any) -> list[tuple[str, float, str]]:
    """Milliseconds of script a frame while all is played in twelve seconds."""
    probe = tab.context.new_cdp_session(tab)
    probe.send("Performance.enable")

    def spent() -> float:
        found = probe.send("Performance.getMetrics")["metrics"]
        return 1e3 * sum(one["value"] for one in found if one["name"] == "ScriptDuration")

    tab.select_option("#speed", "0")
    tab.evaluate("ckpt.frames.length = 0")
    before = spent()
    tab.evaluate("ckpt.play(true)")
    tab.wait_for_function("!ckpt.state().playing", timeout=60_000)
    frames = sorted(tab.evaluate("ckpt.frames"))
    mean = (spent() - before) / len(frames)
    return [
        ("frames", len(frames), ""),
        ("script a frame, median", frames[len(frames) // 2], "ms"),
        ("script a frame, 95th percentile", frames[int(0.95 * len(frames))], "ms"),
        ("script a frame, most", frames[-1], "ms"),
        ("script a frame, mean, by the browser", mean, "ms"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--play", type=int, default=2_400, help="instructions of the one played")
    parser.add_argument("--load", type=int, default=100_000, help="of the one that is loaded")
    chosen = parser.parse_args()
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as running, tempfile.TemporaryDirectory() as folder:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        file = Path(folder) / "page.html"

        def opened(instructions: int) -> tuple[Any, int, int]:
            text = page("bench", [reel(instructions)])
            data = len(text.partition('id="data">')[2].partition("</script>")[0])
            file.write_text(text, encoding="utf-8")
            tab = browser.new_page(viewport={"width": 1200, "height": 1000})
            tab.goto(file.as_uri())
            return tab, data, len(text)

        tab, data, size = opened(chosen.play)
        rows: list[tuple[str, float, str]] = [
            ("instructions", tab.evaluate("ckpt.state().count"), ""),
            ("page without its data", (size - data) / 1024, "KiB"),
            ("its data", data / 1024, "KiB"),
            *played(tab),
        ]
        tab, data, _ = opened(chosen.load)
        loads = []
        for _ in range(5):
            tab.reload()
            loads.append(tab.evaluate("performance.getEntriesByType('navigation')[0].duration"))
        rows += [
            ("instructions", tab.evaluate("ckpt.state().count"), ""),
            ("its data", data / 1024, "KiB"),
            ("load, median of 5", sorted(loads)[2], "ms"),
            ("load, best of 5", min(loads), "ms"),
        ]
        browser.close()
    for name, value, unit in rows:
        print(f"{name:<38} {value:>10,.{0 if value == int(value) else 1}f} {unit}".rstrip())


if __name__ == "__main__":
    main()
