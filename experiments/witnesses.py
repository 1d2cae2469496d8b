"""Do three witnesses see the same peak of the same step?

Question: `tracemalloc` is told by NumPy, the kernel counts pages, memray hooks malloc and mmap. How
far is each from the predicted peak, on eight models, and where scratch of LAPACK stands beside it?
Theory says: they agree but for what each can't see: `tracemalloc` the scratch, the kernel what lies
in pages held before, memray nothing of this size. Each is compared with what it should see.
Run: python experiments/witnesses.py [--only gpt ...] [--write], with memray installed
Each row of each witness is a process of its own with one BLAS thread; the schedule is store-all.
It writes the table between the README's marks.
Found: see there. `unet` was predicted 4 % too high, in its loss's gradient: since mended.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from planning import write_table

from ckpt.units import format_bytes
from ckpt.witness import WITNESSES

CASES: dict[str, dict[str, Any]] = {
    "mlp": {"depth": 16, "width": 512, "batch": 2048},
    "gpt": {"depth": 4, "batch": 16},
    "lstm": {"depth": 24, "batch": 512},
    "resnet": {"depth": 3, "batch": 64},
    "vgg": {"batch": 256},
    "mobilenet": {"batch": 64},
    "unet": {"batch": 32},
    "wave": {"depth": 64, "size": 256},
    "svd": {"n": 600},
}
"""The last one isn't a model: the sum of the singular values of a square matrix."""

RUN = """
import json, sys
import numpy as np
import ckpt
from ckpt.models import build
name, witness, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
if name == "svd":
    def loss(x):
        return np.sum(np.linalg.svd(x, compute_uv=False))
    args = (np.random.default_rng(0).normal(size=(options["n"], options["n"])),)
    ckpt.value_and_grad(loss)(np.eye(20))  # OpenBLAS's own buffers
else:
    work = build(name, **options)
    loss, args = work.loss, work.arrays(0)
found = ckpt.profile(loss, *args, planner="store_all", witness=witness)
print(json.dumps({
    "model": name, "witness": witness,
    "predicted_nbytes": found.simulated.peak,
    "predicted_with_scratch_nbytes": found.simulated.peak_with_scratch,
    "measured_nbytes": found.peaks[witness],
    "untrusted": found.measured.measured["untrusted"],
}))
"""


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--write", action="store_true", help="write the README's table anew")
    args = parser.parse_args(argv)
    rows = [seen(name, witness, CASES[name]) for name in args.only for witness in WITNESSES]
    table = lines(rows)
    print(*table, sep="\n")
    if args.write:
        write_table("witnesses", table)
    return rows


def seen(name: str, witness: str, options: dict[str, Any]) -> dict[str, Any]:
    """What the witness measures of one step, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, name, witness, json.dumps(options)],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    row: dict[str, Any] = json.loads(done.stdout)
    beside = "_with_scratch" if WITNESSES[witness].sees_scratch else ""
    row["off"] = row["measured_nbytes"] / row[f"predicted{beside}_nbytes"] - 1
    return row


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """A table in Markdown, a line a model."""
    names = list(dict.fromkeys(row["witness"] for row in rows))
    found = [
        f"| step | predicted | scratch | {' | '.join(names)} |",
        f"|---|{'--:|' * (2 + len(names))}",
    ]
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        cells = [f"{format_bytes(r['measured_nbytes'])} ({100 * r['off']:+.1f} %)" for r in mine]
        peak = mine[0]["predicted_nbytes"]
        scratch = mine[0]["predicted_with_scratch_nbytes"] - peak
        options = ", ".join(f"{key} {value}" for key, value in CASES[model].items())
        told = [format_bytes(peak), format_bytes(scratch) if scratch else "–"]
        found.append(f"| {' | '.join([f'`{model}` {options}', *told, *cells])} |")
    found.append(f"| can't see | | | {' | '.join(WITNESSES[name].blind for name in names)} |")
    return found


if __name__ == "__main__":
    main()
