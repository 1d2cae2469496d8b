"""The page for whoever doesn't see it, hasn't a mouse, or prints it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ckpt
from ckpt.reports.pages import page
from tests.graphs import chain
from tests.reports.browser.choosing import choose
from tests.reports.test_pages import reel

NAMELESS = """
() => [...document.querySelectorAll("button, select, input, canvas, svg, table")]
  .filter((one) => one.checkVisibility())
  .filter((one) => !one.labels?.length && !one.getAttribute("aria-label"))
  .filter((one) => !one.textContent.trim())
  .map((one) => one.outerHTML)
"""

UNREACHED = """
() => [...document.querySelectorAll("main *")]
  .filter((one) => one.scrollWidth > one.clientWidth + 1 && one.tabIndex < 0)
  .filter((one) => getComputedStyle(one).overflowX === "auto")
  .map((one) => one.outerHTML.slice(0, 120))
"""
"""What is scrolled, and only by a mouse."""

FAINT = """
() => {
  const numbers = (text) => text.match(/[0-9.]+/g).map(Number);
  const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (one) => {
    const own = numbers(getComputedStyle(one).backgroundColor);
    if (own[3] !== 0) return own.slice(0, 3);
    return one.parentElement ? ground(one.parentElement) : [255, 255, 255];
  };
  const says = (one) => [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.querySelectorAll("body *")]
    .filter((one) => one.checkVisibility() && !one.disabled && says(one))
    .map((one) => {
      const style = getComputedStyle(one), ink = one.closest("svg") ? style.fill : style.color;
      const both = [light(numbers(ink).slice(0, 3)), light(ground(one))];
      const contrast = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
      return [contrast, one.outerHTML.slice(0, 120)];
    })
    .filter(([contrast]) => contrast < 4.5);
}
"""
"""Text whose contrast is below what WCAG 2.1 asks of small text (1.4.3)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_has_a_name_and_can_be_read(visit: Any, scheme: str) -> None:
    found = ckpt.frontier(chain(40), planners=["store_all", "chain"], points=4)
    tab = visit(found.page(), color_scheme=scheme)
    choose(tab, 2)
    assert tab.evaluate(NAMELESS) == []
    assert tab.evaluate(FAINT) == []
    levels = [int(h.evaluate("h => h.tagName[1]")) for h in tab.locator("h1, h2, h3").all()]
    assert levels[0] == 1 and set(levels[1:]) == {2}
    assert tab.locator("main").count() == 1
    assert tab.locator("select[aria-valuetext]").count() == 0
    assert not tab.evaluate(UNREACHED)
    assert tab.get_attribute("#bytes", "aria-label").startswith("bytes live, at instruction")


def test_all_is_reached_by_keyboard(opened: Any) -> None:
    opened.evaluate("document.body.focus()")
    met: list[str] = []
    while not met or met.count(met[0]) < 2:
        opened.keyboard.press("Tab")
        met.append(opened.evaluate("document.activeElement.id || document.activeElement.tagName"))
        assert len(met) < 200
    wanted = {"choice0", "play", "back", "step", "peak", "speed", "position", "pebbles", "levels"}
    assert wanted <= {*met}


def test_it_is_printed_light_with_what_it_stands_at(visit: Any, tmp_path: Path) -> None:
    tab = visit(page("chain", [reel(chain(40), "sqrt")]), color_scheme="dark")
    assert tab.pdf(path=tmp_path / "a.pdf")[:5] == b"%PDF-"
    tab.emulate_media(media="print")
    assert not tab.locator("#play").is_visible()
    assert tab.locator("#bytes").is_visible() and tab.locator("#live tr").count()
