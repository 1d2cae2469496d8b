"""What a checkpointed region notices of plain memory: its fingerprint, and when it is looked at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt import Value
from ckpt.errors import MutationError
from ckpt.tape.eager.region import _PRIME, fingerprint

RNG = np.random.default_rng(0)
WORDS = 5 * _PRIME + 17
"""Five whole rows of 64-bit words, and a tail."""


def random_bytes(count: int) -> Any:
    return RNG.integers(0, 256, count, dtype=np.uint8)


@pytest.mark.parametrize(
    "at",
    [
        0,
        8 * 3 * _PRIME + 5,  # in the middle of a row
        8 * 5 * _PRIME - 1,  # the last byte of the last whole row
        8 * 5 * _PRIME,  # the first one of the tail
        8 * WORDS - 1,  # of its last word
        8 * WORDS,  # beyond the last whole word
        8 * WORDS + 2,  # the last byte of all
    ],
)
def test_every_byte_counts(at: int) -> None:
    array = random_bytes(8 * WORDS + 3)
    before = fingerprint(array)
    array[at] ^= 1
    assert fingerprint(array) != before


@pytest.mark.parametrize("count", [1, 7, 8, 100, 8 * 4 * _PRIME - 1])
def test_every_byte_of_a_small_array_counts(count: int) -> None:
    array = random_bytes(count)
    for at in {0, count // 2, count - 1}:
        changed = array.copy()
        changed[at] ^= 128
        assert fingerprint(changed) != fingerprint(array)


@pytest.mark.parametrize("distance", [1, 2, 8, 1024, 4096])
def test_words_that_change_places_are_seen(distance: int) -> None:
    """The same sums over the whole, and over rows of any power of two."""
    array = RNG.standard_normal(WORDS)
    swapped = array.copy()
    swapped[[100, 100 + distance]] = swapped[[100 + distance, 100]]
    assert fingerprint(swapped) != fingerprint(array)


@pytest.mark.parametrize("columns", [16, 128, 1000])
def test_swapped_rows_are_seen(columns: int) -> None:
    array = RNG.standard_normal((64, columns))
    swapped = array.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    assert fingerprint(swapped) != fingerprint(array)


def test_an_array_moved_by_one_word_is_seen() -> None:
    array = RNG.standard_normal(WORDS)
    assert fingerprint(np.roll(array, 1)) != fingerprint(array)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[::2],
        lambda a: a[:, ::-1],
        lambda a: a[:, 1:-1],
        np.asfortranarray,
    ],
    ids=["transposed", "rows", "reversed", "columns", "F"],
)
def test_in_any_layout_its_elements_count_and_no_others(view: Any) -> None:
    array = RNG.standard_normal((120, 90))
    seen = view(array)
    before = fingerprint(seen)
    assert fingerprint(seen) == before
    seen[7, 3] += 1
    assert fingerprint(seen) != before


def test_what_lies_beside_a_view_does_not_count() -> None:
    array = RNG.standard_normal((120, 90))
    before = fingerprint(array[::2])
    array[1] += 1
    assert fingerprint(array[::2]) == before


# -- when it is looked at --------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, WORDS - 1], ids=["first", "last"])
def test_a_change_between_forward_and_backward_is_named(at: int) -> None:
    w, plain = Value(1.0), RNG.standard_normal(WORDS)
    loss = np.sum(ckpt.checkpoint(lambda w: np.tanh(w * plain) * plain)(w))
    plain[at] += 1.0
    with pytest.raises(MutationError, match=rf"test_region\.py:\d+: a {WORDS} float64 array"):
        loss.backward()


def test_the_data_of_a_leaf_is_plain_memory_as_well() -> None:
    w = Value(RNG.standard_normal(20))
    loss = np.sum(ckpt.checkpoint(lambda w: np.tanh(w) * w)(w))
    w.data[3] = 7.0
    with pytest.raises(MutationError, match="20 float64"):
        loss.backward()


def test_it_is_looked_at_in_a_nested_region_too() -> None:
    w, plain = Value(1.0), RNG.standard_normal(20)
    inner = ckpt.checkpoint(lambda w: np.tanh(w * plain) * plain)
    loss = np.sum(ckpt.checkpoint(lambda w: np.sin(inner(w)))(w))
    plain[0] += 1.0
    with pytest.raises(MutationError, match="20 float64"):
        loss.backward()


def test_every_descent_looks_again() -> None:
    """A change after the first backward, and before a second one that was asked for."""
    w, plain = Value(1.0), RNG.standard_normal(20)
    loss = np.sum(ckpt.checkpoint(lambda w: np.tanh(w * plain) * plain)(w))
    loss.backward(retain_graph=True)
    plain[0] += 1.0
    with pytest.raises(MutationError):
        loss.backward()
