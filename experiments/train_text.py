"""A small GPT on English that ships with Python, with and without checkpointing.

Question: does a transformer with dropout train the same under checkpointing?
Theory says: yes - masks are drawn once, and replayed from the generator's state - bit for bit.
Run: python experiments/train_text.py [--steps 60]
Found (--steps 20, plots/train_text.png): losses identical, with dropout; peak 20.2 MiB, in 3
segments 7.65 MiB, for 55 % of a forward in recompute.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
from training import compare

from ckpt.models import build


def text() -> np.ndarray[Any, Any]:
    """The help pages of Python's `pydoc_data.topics` as bytes: about 700 KB of English."""
    from pydoc_data.topics import topics

    return np.frombuffer("\n".join(topics.values()).encode(), np.uint8)


def batches(
    steps: int, batch: int, length: int, seed: int, dropout: bool
) -> Iterator[tuple[Any, ...]]:
    """Tokens (batch, length), the tokens that follow them, and a generator for dropout."""
    data = text()
    rng = np.random.default_rng(seed)
    draws = np.random.default_rng(seed + 1)
    for _ in range(steps):
        starts = rng.integers(0, len(data) - length - 1, batch)
        windows = data[starts[:, None] + np.arange(length + 1)].astype(np.int64)
        row = (windows[:, :-1], windows[:, 1:])
        yield (*row, draws) if dropout else row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    size = {"depth": 6, "width": 64, "heads": 4, "batch": 8, "sequence": 64, "vocab": 256}
    compare(
        "train_text: the same training, checkpointed or not",
        {
            "store_all": build("gpt", **size, dropout=args.dropout),
            "sqrt": build("gpt", **size, dropout=args.dropout, segments=3),
        },
        lambda: batches(args.steps, 8, 64, args.seed, args.dropout > 0),
        rate=1e-3,
        seed=args.seed,
        caption=f"GPT, 6 layers of width 64, dropout {args.dropout}, bytes of Python's help pages, "
        f"batch 8 x 64, float32, seed {args.seed}; live bytes measured with tracemalloc while one "
        "step is executed.",
    )


if __name__ == "__main__":
    main()
