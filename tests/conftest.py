"""Hypothesis profiles: a quick one for every run, a deep one for `pytest -m slow` runs."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("quick", max_examples=25, derandomize=True, **COMMON)
settings.register_profile("deep", max_examples=1000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="module", autouse=True)
def what_was_there_is_not_collected_again() -> Iterator[None]:
    """Each measured run collects garbage first, which takes the longer the more there is to look
    at: late in a long session, most of the time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
