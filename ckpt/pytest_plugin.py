"""For pytest, which loads it by its entry point: a marker and a fixture, both ``ckpt_peak``.

::

    @pytest.mark.ckpt_peak("64MiB", recompute=0.3)
    def test_memory(ckpt_peak):
        ckpt_peak(loss, params, x, y)

Nothing else is imported until a test takes the fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

_MARKER = (
    "ckpt_peak(at_most, *, recompute=None, whole=False, measured=False, witness=None, argnums=0, "
    "has_aux=False): what the fixture ckpt_peak holds each step to: its peak to at_most bytes "
    '("64MiB"), its recompute to that share of a forward.'
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A limit that nothing is held to would pass for ever."""
    if item.get_closest_marker("ckpt_peak") and "ckpt_peak" not in getattr(
        item, "fixturenames", ()
    ):
        pytest.fail(
            "ckpt_peak marks this test, which doesn't take the fixture ckpt_peak", pytrace=False
        )


@pytest.fixture
def ckpt_peak(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Call it with a loss function and its arguments: `ckpt.testing.assert_peak`, with what the
    test is marked with. Options of the call come before those of the marker."""
    from ckpt.testing import assert_peak, assert_recompute

    marker = request.node.get_closest_marker("ckpt_peak")
    marked: dict[str, Any] = {}
    if marker is not None:
        marked = dict(marker.kwargs)
        marked.update(zip(("at_most",), marker.args, strict=False))
    calls = 0

    def check(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        nonlocal calls
        calls += 1
        wanted = {**marked, **options}
        share = wanted.pop("recompute", None)
        if share is not None:
            both = {name: wanted[name] for name in ("argnums", "has_aux") if name in wanted}
            found = assert_recompute(function, *args, at_most=share, **both)
            if "at_most" not in wanted:
                return found
        return assert_peak(function, *args, **wanted)

    yield check
    if marker is not None and not calls:
        pytest.fail("ckpt_peak marks this test, which holds nothing to it", pytrace=False)
