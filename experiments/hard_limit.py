"""Training where the plain step can't: a child process with a hard limit on its address space.

Question: does a plan make possible what was impossible?
Theory says: the plain step needs n activations, a plan of the same step about 2 sqrt n.
Run: python experiments/hard_limit.py
Found: the plain step dies with MemoryError and leaves the parameters as they were; the planned one
trains under the same limit.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

ROOM = 0.45
"""The limit: what the process holds before the step, and this share of what store-all needs."""


def main() -> None:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    for kind in ("plain", "planned"):
        done = subprocess.run([sys.executable, __file__, kind], env=environment, check=False)
        print(f"  exit code {done.returncode}", flush=True)
    sys.exit(done.returncode)


def child(kind: str) -> int:
    import resource

    import numpy as np

    import ckpt
    from ckpt.models import build
    from ckpt.tape.core import tree
    from ckpt.units import format_bytes

    workload = build("mlp", depth=64, width=256, batch=8192)
    params, x = workload.arrays(seed=0)
    program = ckpt.trace(workload.loss, *workload.specs())
    whole = ckpt.profile(program, planner="store_all").simulated
    room = int(ROOM * (whole.peak + whole.gradients_beside))
    step: Any = program.plain
    if kind == "planned":
        step = ckpt.plan(program, budget=room - whole.gradients_beside - room // 4)
    np.ones((256, 256), np.float32) @ np.ones((256, 256), np.float32)  # BLAS takes its buffers
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + room, held + room))
    before = program.digest(params)
    print(
        f"{kind}: a step needs {format_bytes(whole.peak + whole.gradients_beside)} with all kept; "
        f"the limit leaves {format_bytes(room)}",
        flush=True,
    )
    try:
        for number in range(1, 4):
            loss, grads = step(params, x)
            for p, g in zip(tree.leaves(params), tree.leaves(grads), strict=True):
                p -= 0.1 * g
            del grads
            print(f"  step {number}: loss {loss:.6f}", flush=True)
    except MemoryError as error:
        print(f"  MemoryError: {error}")
        print(f"  parameters as before the step: {program.digest(params) == before}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(child(sys.argv[1]))
    main()
