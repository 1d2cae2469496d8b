"""A conv net on real handwritten digits, with and without checkpointing.

Question: does checkpointing change training in anything but memory and time?
Theory says: no - the losses are the same bits - and sqrt segments cost at most one forward more.
Run: python experiments/train_digits.py [--steps 60]     (needs the extra [experiments])
Found (--steps 30, plots/train_digits.png): losses identical; peak 6.49 MiB, in 3 segments 4.27 MiB,
for 67 % of a forward in recompute.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
from training import compare

from ckpt.models import build


def batches(steps: int, batch: int, seed: int) -> Iterator[tuple[Any, Any]]:
    """Images (batch, 3, 8, 8) of scikit-learn's digits, their one channel thrice; and labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images / 8.0 - 1.0).astype(np.float32)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        rows = rng.integers(0, len(images), batch)
        yield np.repeat(images[rows, None], 3, axis=1), digits.target[rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    options = {"depth": 9, "width": 16, "batch": args.batch, "size": 8}
    compare(
        "train_digits: the same training, checkpointed or not",
        {
            "store_all": build("resnet", **options),
            "sqrt": build("resnet", **options, segments=3),
        },
        lambda: batches(args.steps, args.batch, args.seed),
        rate=1e-3,
        seed=args.seed,
        caption=f"ResNet-20, scikit-learn digits, batch {args.batch}, float32, seed {args.seed}; "
        "live bytes measured with tracemalloc while one step is executed.",
    )


if __name__ == "__main__":
    main()
