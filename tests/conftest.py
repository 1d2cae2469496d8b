"""Hypothesis profiles: a quick one for every run, a deep one for `pytest -m slow` runs."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from typing import Any

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


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """OpenBLAS raises the flag of an invalid operation of finite numbers now and then, once in
    thousands of tests (numpy#24067), and NumPy warns of it: a test that fails so is run again. What
    is not finite fails it again."""
    try:
        return (yield)
    except RuntimeWarning as error:
        if "invalid value encountered in matmul" not in str(error):
            raise
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    return pyfuncitem.obj(**arguments) or True
