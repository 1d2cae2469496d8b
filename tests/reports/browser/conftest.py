"""A page opened in a real browser, where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ckpt.reports.pages import page
from tests.graphs import chain
from tests.reports.test_pages import reel


@pytest.fixture(scope="session")
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
def visit(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens a page, and finds at the end that no console said anything."""
    said: list[str] = []
    tabs = []

    def go(text: str, **options: Any) -> Any:
        path = tmp_path / f"{len(tabs)}.html"
        path.write_text(text, encoding="utf-8")
        tab = browser.new_page(**{"viewport": {"width": 1000, "height": 1200}, **options})
        tab.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
        tab.on("pageerror", lambda e: said.append(str(e)))
        tab.on("request", lambda r: None if r.url.startswith("file:") else said.append(r.url))
        tab.goto(path.as_uri())
        tabs.append(tab)
        return tab

    yield go
    assert not said
    for tab in tabs:
        tab.close()


@pytest.fixture
def opened(visit: Any) -> Any:
    graph = chain(40)
    reels = [reel(graph, "store_all", ("100 %",)), reel(graph, "sqrt", ("50 %",))]
    return visit(page("chain", reels, choices=["budget"], missing={("1 %",): "nothing fits 1 %"}))
