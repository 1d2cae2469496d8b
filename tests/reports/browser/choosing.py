"""What a test does with a page's controls."""

from __future__ import annotations

from typing import Any


def choose(tab: Any, option: int) -> None:
    tab.evaluate(
        f"c = document.getElementById('choice0'); c.value = {option};"
        "c.dispatchEvent(new Event('input'))"
    )
