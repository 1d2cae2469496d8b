"""How near does a training step come to the NumPy that one would write by hand for it?

Question: of steps that are mostly calls, mostly memory and mostly products, how much time does the
eager tape take, and a planned step (store-all, bound to its arrays), over the same step written by
hand with fresh arrays? How much of it do the planned step's calls take by themselves, and what do
hand-written reused buffers, HIPS autograd, PyTorch, jax.jit and micrograd take?
Theory says: the products and ufuncs are the same, so where arrays are large an eager step comes to
one, and where they are small it is the price of its nodes. A planned step pays no Python but the
calls, and page faults for its gradients alone.
Run: python experiments/bench_step.py [--rounds 5] [--sets 1] [--only mlp16 ...] [--ways ...]
[--threads 1 2] [--pages kept "given back"] [--json] [--folder plots], and --rows FILE ... to draw
what --json said
Each way has a process of its own, as its user has, and is measured in turns with the step by hand,
which has another (steps below 0.1 s twice in a row, the second timed): on one thread in CPU
seconds, on several (of BLAS as of ckpt) by the clock. A row is the median over rounds, and over so
many sets of processes, of the ratio to the hand-written one in the same round. Gradients are
compared. How many cores other processes had meanwhile is said with the rows. Page faults are
malloc's: whether it gives the pages of freed arrays back to the kernel hangs on what a process
freed before and on what lies behind those arrays, so that the same step by hand has none in one
process and 18,000 in another. So the figures are those with pages kept (MALLOC_TRIM_THRESHOLD_ and
MALLOC_MMAP_THRESHOLD_ set), which are the same from run to run; what malloc does by itself stands
beside them, with the page faults of a step. "Calls alone" is the planned step's floor: the
median time of each of its calls in its place, added up.
Found: (one thread, CPU seconds, pages kept; the first two rows on an idle machine, the others
beside a busy core) over the step by hand, planned and eagerly: MLP 100 x 16 0.76 and 2.87, 100 x
256 1.00 and 1.08, 24 x 256 at batch 8192 1.00 and 1.02, gelu of 16 MiB 0.72 and 0.92, transformer
at batch 8 1.07 and 1.21, at batch 64 1.05 and 1.21, conv net 0.73 and 0.81 (0.71 another time;
PyTorch 0.43); HIPS autograd takes 1.2 to 38, jax.jit 0.96 to 2.3. Chains of 900 and 100,000 scalars
take 0.84 and 0.44 of micrograd's time, by a number 0.65 and 0.39: of 100,000 a third is the
collector's, which passes five times over what lives.
What is below that? The wide MLP's products are the same by hand and 0.80 of its time, so that all
else is a fifth, of which tiles save little that the page faults don't: its calls alone are 0.995.
MLP 100 x 256: products 0.85, its calls 0.98. A gelu takes 22 calls on tiles that are there, two of
them tanh: 12.6 ms, by hand 18.6. The transformer's calls alone are 1.00 to 1.03 at batch 8, for by
hand norms and softmax go back by formulas of fewer calls, and the maximum's gradient, which is
zero, isn't taken at all. The conv net's calls are 0.70. (Of calls below some microseconds, as the
MLP 100 x 16 has, reading the clock is a part.)
Where malloc gives pages back, in one such set of processes: 1.35 and 1.06 (100 x 256: the planned
step's gradients meet 6,000 page faults), 0.61 and 0.81, 0.50 and 0.90, 0.80 and 1.37, 1.03 and
1.77, 0.57 and 0.64.
On two threads, over the step by hand with as many of BLAS, on two idle cores: 0.78, 0.96, 0.98,
0.84, 1.02, 1.19, 1.03. Three hours before, with all ways in one process (plots/bench_step.png),
they were 0.73, 0.94, 0.96, 0.47, 1.15, 1.18, 0.90: the code of then, run again beside this one,
took as long as this one, so the gelu's 0.47 was the machine's. Between products OpenBLAS's own
threads spin on the second core; with OPENBLAS_THREAD_TIMEOUT=4 they sleep, and the wide MLP took
0.81 where it took 0.92.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bench_nn
import numpy as np
from figure_speed import speed_figure
from step_ways import CASES, CHAINS

from ckpt.reports.figure import save
from ckpt.tape.core.tree import leaves
from ckpt.witness import malloc

LONG = 0.1
"""Seconds of a step from which on nothing of a cache is left from its beginning at its end."""
SPIN = 0.05
"""Seconds after which threads of BLAS that are out of work sleep."""
PAGES = {"given back": {}, "kept": malloc.keeping()}
"""What malloc does with the pages of arrays that are freed: by itself, and as its variables say."""


class Worker:
    """A process that takes one way of a case."""

    def __init__(self, case: str, way: str, threads: int, pages: str) -> None:
        counted = ("OPENBLAS", "OMP", "MKL")
        numbers = {f"{library}_NUM_THREADS": str(threads) for library in counted}
        clean = {k: v for k, v in os.environ.items() if k not in malloc.VARIABLES}
        clean["PYTHONPATH"] = os.pathsep.join(sys.path)  # the same ckpt as here
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("step_worker.py"), case, way],
            env={**clean, "VECLIB_MAXIMUM_THREADS": str(threads), **numbers, **PAGES[pages]},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.name, self.pause = f"{case}, {way}", SPIN * (threads > 1)
        self.taken: list[dict[str, float]] = []
        self._answer()
        for _ in range(2):  # what is made once, and malloc's thresholds come to rest
            warm = self.ask("once")
        self.what = "twice" if warm["seconds"] < LONG else "once"

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: its process ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, what: str) -> Any:
        assert self.process.stdin is not None
        print(what, file=self.process.stdin, flush=True)
        return self._answer()

    def step(self) -> float:
        self.taken.append(self.ask(self.what))
        time.sleep(self.pause)
        return self.taken[-1]["seconds"]

    def results(self) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "results"
            self.ask(f"results {path}")
            return pickle.loads(path.read_bytes())

    @property
    def faults(self) -> float:
        return statistics.median(each["faults"] for each in self.taken)

    @property
    def cpu(self) -> float:
        """Seconds that its process has had."""
        return self.taken[-1]["cpu"]

    def end(self) -> None:
        with self.process:  # closes its pipes, at which it ends, and waits for that
            pass


@contextmanager
def working(*given: Any) -> Iterator[Worker]:
    worker = Worker(*given)
    try:
        yield worker
    finally:
        worker.end()


def check(want: Any, got: Any, way: str) -> None:
    """The gradients are those that are found by hand, to float32's rounding."""
    for a, b in zip(leaves(got[1]), leaves(bench_nn._like(want[1], got[1])), strict=True):
        error = np.abs(np.asarray(a) - b).max() / np.abs(b).max()
        if not error < 1e-2:
            raise AssertionError(f"{way}: a gradient is off by {error:.1e}")


def measured(name: str, threads: int, pages: str, options: Any) -> list[dict[str, Any]]:
    """The rows of a case: the first way's seconds, and of each other one the ratio to it.

    Each way is measured in turns with the first, both in processes of their own that nothing else
    runs in.
    """
    case = CASES[name]
    first, *others = case.ways()
    others = [way for way in others if way in (options.ways or others)]
    rounds = options.rounds * (1 + case.more)
    base: list[dict[str, float]] = []
    ratios: dict[str, list[float]] = {way: [] for way in others}
    faults: dict[str, list[float]] = {way: [] for way in others}
    began, before, own = time.monotonic(), _seconds_of_all(), time.process_time()
    spent = 0.0
    for _ in range(options.sets):
        with working(name, first, threads, pages) as hand:
            for way in others:
                with working(name, way, threads, pages) as worker:
                    for _ in range(rounds):
                        seconds = hand.step()
                        ratios[way].append(worker.step() / seconds)
                    if name not in CHAINS:
                        check(hand.results(), worker.results(), way)
                    faults[way].append(worker.faults)
                    spent += worker.cpu
            base.extend(hand.taken)
            spent += hand.cpu
    elapsed = time.monotonic() - began
    busy = _seconds_of_all() - before - (time.process_time() - own) - spent
    middle = {key: statistics.median(each[key] for each in base) for key in ("seconds", "faults")}
    found = [(first, middle["seconds"], middle["faults"])]
    found += [
        (way, statistics.median(ratios[way]), statistics.median(faults[way])) for way in others
    ]
    return [
        {
            "case": case.title, "way": way, "measured": figure, "threads": threads,
            "pages": pages, "faults": pages_of, "others": max(busy, 0.0) / elapsed,
        }
        for way, figure, pages_of in found
    ]  # fmt: skip


def _seconds_of_all() -> float:
    """CPU seconds of all processes since the machine started, as Linux says; nan where nobody
    does."""
    try:
        said = Path("/proc/stat").read_text().split(maxsplit=8)[1:8]
    except OSError:
        return math.nan
    user, nice, system, _idle, _waiting, *interrupts = map(int, said)
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sets", type=int, default=1, help="of processes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--ways", nargs="+", help="no others than these")
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--pages", nargs="+", choices=PAGES, default=["kept", "given back"])
    parser.add_argument("--folder", type=Path, help="where to draw the figure (plots)")
    parser.add_argument("--note", default="", help="more words below the figure")
    parser.add_argument("--rows", nargs="+", type=Path, help="what --json said, to draw it")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for path in options.rows or ():
        rows.extend(json.loads(path.read_text()))
    if not options.rows:
        for name in options.only:
            for threads in options.threads if name not in CHAINS else [1]:
                for pages in options.pages if name not in CHAINS else options.pages[:1]:
                    found = measured(name, threads, pages, options)
                    rows.extend(found)
                    print(said(found), file=sys.stderr, flush=True)
    print(json.dumps(rows) if options.json else table(rows))
    if options.folder:
        taken = max(row["others"] for row in rows)
        busy = f"others had {taken:.1f} of {os.cpu_count()} cores at most" * (taken == taken)
        caption = f"float32, medians of paired rounds; {busy}. {options.note}"
        figure = speed_figure(drawn(rows), caption.strip())
        for kind in ("png", "svg"):
            print("wrote", save(figure, options.folder / f"bench_step.{kind}"), file=sys.stderr)
    return rows


def drawn(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each case, way and number of threads the row with pages kept, if there is one."""
    found: dict[Any, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["pages"] == "kept"):
        found[row["case"], row["way"], row["threads"]] = row
    return [row for row in rows if row in list(found.values())]


def said(rows: Sequence[dict[str, Any]]) -> str:
    """What was found of a case, as soon as it was."""
    first, *others = rows
    ways = ", ".join(f"{row['way']} {row['measured']:.2f}" for row in others)
    return (
        f"{first['case']}, {first['threads']} threads, pages {first['pages']}: {first['way']} "
        f"{first['measured']:.3g} s, {ways}; others had {first['others']:.1f} cores"
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line a case and way, a column a number of threads and what becomes of pages."""
    columns = list(dict.fromkeys((row["threads"], row["pages"]) for row in rows))
    heads = [f"{n} thread{'s' * (n > 1)}, {pages}" for n, pages in columns]
    lines = [f"{'':58}" + "".join(f"{head:>24}" for head in heads) + "   (page faults a step)"]
    cells = {(row["case"], row["way"], row["threads"], row["pages"]): row for row in rows}
    firsts = {row["case"]: row["way"] for row in reversed(rows)}
    for case, way in dict.fromkeys((row["case"], row["way"]) for row in rows):
        first = firsts[case] == way
        line = f"{case if first else '':36}{way:22}"
        for column in columns:
            row = cells.get((case, way, *column))
            if row is None:
                line += " " * 24
            else:
                shown = f"{row['measured']:.3g} s" if first else f"{row['measured']:.2f} x"
                line += f"{shown:>15} {'(' + format(row['faults'], ',.0f') + ')':>8}"
        lines.append(line.rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    main()
