"""Is a sweep the same wherever it is done, and how long does it take there?

Question: 60 points in one process, in two of our own, and on a Dask cluster of two workers: do
digests, predictions and measured peaks agree, and what is the price of the way there?
Theory says: the points are independent, so two processes take half the time on two free cores; all
rows but for times are equal, and measured peaks within a hundredth.
Run: python experiments/sweep_workers.py [--width 64]   (pip install 'ckpt-profiler[dask]')
Seconds are of the wall clock, from the call to the last row, workers' start included.
Found: all 60 digests and predictions equal, and measured peaks the same to 0.001 %; 19.0 s in one
process, 9.6 in two, 10.0 on Dask's two, on two cores that had nothing else to do.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

from ckpt.studies.sweep import plan, run

DEPTHS = (3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24)
PREDICTED = ("predicted_peak_nbytes", "recompute_flops", "agrees", "untrusted")
STRATEGIES = ("store_all", "per_layer", "sqrt", "every:4", "recompute_all")


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--depths", type=int, nargs="+", default=list(DEPTHS))
    args = parser.parse_args(argv)
    points = plan(
        depths=args.depths, strategies=list(STRATEGIES), width=args.width, batch=args.batch
    )
    import distributed

    found: dict[str, tuple[float, list[dict[str, Any]]]] = {}
    found["one process"] = timed(lambda: run(points, jobs=1))
    found["two processes"] = timed(lambda: run(points, jobs=2))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        found["Dask, two workers"] = timed(lambda: run(points, cluster=address))
    _, first = found["one process"]
    rows = []
    for name, (seconds, there) in found.items():
        pairs = list(zip(first, there, strict=True))
        row = {
            "where": name,
            "points": len(there),
            "seconds": seconds,
            "digests": sum(same(a, b, "gradients_digest") for a, b in pairs),
            "predictions": sum(same(a, b, *PREDICTED) for a, b in pairs),
            "peaks_apart": max(apart(a, b) for a, b in pairs),
        }
        rows.append(row)
        print(
            f"{name:18} {row['points']} points in {seconds:5.1f} s; equal digests "
            f"{row['digests']}, predictions {row['predictions']}; measured peaks at most "
            f"{100 * row['peaks_apart']:.3f} % apart"
        )
    return rows


def timed(sweep: Any) -> tuple[float, list[dict[str, Any]]]:
    began = time.perf_counter()
    rows = sweep()
    return time.perf_counter() - began, rows


def same(a: dict[str, Any], b: dict[str, Any], *names: str) -> bool:
    return all(a[name] == b[name] for name in names) and a[names[0]] is not None


def apart(a: dict[str, Any], b: dict[str, Any]) -> float:
    """Of two rows' measured peaks, as a share."""
    mine, other = a["measured_peak_nbytes"], b["measured_peak_nbytes"]
    return float(abs(mine - other) / mine)


if __name__ == "__main__":
    main()
