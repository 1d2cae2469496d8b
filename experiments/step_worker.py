"""One way of one of `bench_step`'s cases, in this process alone: python step_worker.py CASE WAY

It says on a line when the step is ready, and then of each line that comes in what a step took:
``once``, ``twice`` (two in a row, and of the second), or ``results PATH``: loss and gradients, in a
file.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from step_ways import CASES, CHAINS, CLOCK, Step

from ckpt.tape.core.tree import rebuild


def timed(step: Step) -> dict[str, float]:
    """CPU seconds of one thread, or of several the time that they take; and page faults."""
    pages, start = _faults(), CLOCK()
    step()
    seconds = CLOCK() - start
    return {
        "seconds": getattr(step, "seconds", seconds),
        "faults": _faults() - pages,
        "cpu": time.process_time(),
    }


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def serve(case: str, way: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints is no answer
    step = CASES[case].ways()[way]()
    print(json.dumps("ready"), file=answers)
    for line in sys.stdin:
        what, *path = line.split()
        gc.collect()
        if what == "results":
            Path(*path).write_bytes(pickle.dumps(rebuild(step(), np.asarray)))
            answer: Any = "written"
        else:
            if what == "twice":
                step()
            answer = timed(step)
        print(json.dumps(answer), file=answers)


def main() -> None:
    case, way = sys.argv[1:]
    if case not in CHAINS:
        serve(case, way)
        return
    sys.setrecursionlimit(10**6)
    threading.stack_size(2**29)
    thread = threading.Thread(target=serve, args=(case, way))
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
