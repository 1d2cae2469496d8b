"""Random generators: the state before a draw, and the same draw once more."""

from __future__ import annotations

from typing import Any

import numpy as np


def random_state(params: dict[str, Any] | None) -> Any:
    """The state of a random op's generator before it draws, for a replay to start from."""
    assert params is not None
    return params["rng"].bit_generator.state


def replayed(params: dict[str, Any], state: Any) -> np.random.Generator:
    """A generator like the op's, in an earlier state."""
    bits = type(params["rng"].bit_generator)()
    bits.state = state
    return np.random.Generator(bits)
