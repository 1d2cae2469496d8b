"""For pytest, which loads it by its entry point: a marker and a fixture, both ``ckpt_peak``.

::

    @pytest.mark.ckpt_peak("64MiB", recompute=0.3)
    def test_memory(ckpt_peak):
        ckpt_peak(loss, params, x, y)

Nothing else is imported until a test takes the fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any
from weakref import WeakSet

import pytest

_MARKER = (
    "ckpt_peak(at_most, *, recompute=None, whole=False, measured=False, witness=None, argnums=0, "
    "has_aux=False): what the fixture ckpt_peak holds each step to: its peak to at_most bytes "
    '("64MiB"), its recompute to that share of a forward.'
)
_NAMED = "ckpt_peak marks this test"
_held: WeakSet[pytest.Item] = WeakSet()
"""Tests that have held a step to it."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A limit that nothing is held to would pass for ever. That of a class or a module is for those
    of its tests that take the fixture."""
    if _marks_itself(item) and "ckpt_peak" not in getattr(item, "fixturenames", ()):
        pytest.fail(f"{_NAMED}, which doesn't take the fixture ckpt_peak", pytrace=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, None]:
    """Likewise of a test that passed and has called the fixture never."""
    report = (yield).get_result()
    if call.when == "call" and report.passed and _marks_itself(item) and item not in _held:
        report.outcome, report.longrepr = "failed", f"{_NAMED}, which holds nothing to it"


def _marks_itself(item: pytest.Item) -> bool:
    return any(mark.name == "ckpt_peak" for mark in item.own_markers)


@pytest.fixture
def ckpt_peak(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call it with a loss function and its arguments: `ckpt.testing.assert_peak`, with what the
    test is marked with. Options of the call come before those of the marker."""
    from ckpt.testing import assert_peak, assert_recompute

    marker = request.node.get_closest_marker("ckpt_peak")
    marked: dict[str, Any] = {}
    if marker is not None:
        if len(marker.args) > 1:
            pytest.fail(f"{_NAMED} with more than a peak: name what else there is", pytrace=False)
        marked = {**dict(zip(("at_most",), marker.args, strict=False)), **marker.kwargs}

    def check(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        _held.add(request.node)
        wanted = {**marked, **options}
        share = wanted.pop("recompute", None)
        if share is not None:
            both = {name: wanted[name] for name in ("argnums", "has_aux") if name in wanted}
            found = assert_recompute(function, *args, at_most=share, **both)
            if "at_most" not in wanted:
                return found
        return assert_peak(function, *args, **wanted)

    return check
