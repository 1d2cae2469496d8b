"""A number of random programs, and those that were found; `python -m tests.random_programs` runs
thousands."""

from __future__ import annotations

import pytest

from tests.random_programs.checking import DiscardedError, check, chosen
from tests.random_programs.found import FOUND, program
from tests.random_programs.writing import write


@pytest.mark.parametrize("name", FOUND)
def test_found(name):
    check(program(name))


@pytest.mark.parametrize("tens", range(8))
def test_a_few(tens):
    for seed in range(10 * tens, 10 * tens + 10):
        try:
            check(write(seed), chosen(seed, several=3))
        except DiscardedError:
            continue
        except AssertionError as violation:
            raise AssertionError(f"seed {seed}: {violation}\n{write(seed).script}") from violation
