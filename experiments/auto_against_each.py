"""Is `auto` ever worse than a planner that could have been asked instead of it?

Question: on every net of the presets, at a quarter, a half and three quarters of the store-all
peak, does any planner that answers within auto's time limit recompute less than auto?
Theory says: auto asks most of them itself, on long nets for a few of the equal blocks only, and
keeps the best; `ilp` and `lp_round` it asks on small graphs alone, and of dtr's heuristics two.
Run: python experiments/auto_against_each.py [--models gpt ...] [--nodes 2500] [--seconds 60]
Every planner has so many CPU seconds, in a process of its own, so that other work on the machine
cuts nobody; auto ends by itself once they are over, and the others are ended.
Found: in the 10 questions asked so far, on busy cores, none did: resnet20 at 25, 50 and 75 % (78.9,
5.3 and 0.6 % of a forward), unet-416x608 at 50 % (38.6) and the default unet at 50 and 75 % (77.9
and 5.6), where beam alone comes to the same; vgg16 at 25 and 50 %, unet and unet-416x608 at 25 %,
for which none has a plan. By the clock, on a machine three times too busy, auto is stopped at its
60 seconds and may end above a planner that has them for itself (resnet20 at 25 %: 81.5).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

from planning import Row, plan_row, simulated, trace

from ckpt.models.presets import PRESETS
from ckpt.planners.base import registry
from ckpt.planners.base.clock import Deadline
from ckpt.planners.online.heuristics import HEURISTICS
from ckpt.reports.table import show

SHARES = (0.25, 0.5, 0.75)
NOT_RIVALS = {"store_all", "auto", "brute"}
"""Which takes no budget, which is asked, and which takes tiny graphs only."""


def rivals() -> list[str]:
    names = [name for name in registry.names() if name not in NOT_RIVALS]
    return [*names, *(f"dtr:{name}" for name in HEURISTICS)]


def answer(model: str, share: float, planner: str, seconds: int) -> Row | None:
    """What the planner makes of it; None where the time is over before."""
    command = [sys.executable, __file__, "--child", model, str(share), planner, str(seconds)]
    most = seconds * (2 if planner == "auto" else 1)  # which needn't hear at once that it is over
    try:
        made = subprocess.run(
            command, check=True, capture_output=True, text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (most, most)),
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        if error.returncode < 0:
            return None
        raise SystemExit(f"{planner} on {model} at {share:.0%}: {error.stderr}") from None
    row: Row = json.loads(made.stdout)
    return row


def child(model: str, share: str, planner: str, seconds: str) -> None:
    """Print the row of one plan."""
    graph = trace(model)
    budget = int(float(share) * simulated(graph, "store_all").peak)
    if planner != "auto":
        print(json.dumps(plan_row(graph, planner, budget)))
        return
    with Deadline(int(seconds), clock=time.process_time).running():
        print(json.dumps(plan_row(graph, planner, budget, time_limit=None)))


def rows(models: list[str], seconds: int) -> Iterator[Row]:
    """A row for every question: what auto recomputes, the best of the others, and who is better."""
    for model in models:
        for share in SHARES:
            auto = answer(model, share, "auto", seconds)
            found = {name: answer(model, share, name, seconds) for name in rivals()}
            plans = {
                name: row["recompute_overhead"]
                for name, row in found.items()
                if row is not None and "recompute_overhead" in row
            }
            mine = (auto or {}).get("recompute_overhead")
            best = min(plans, key=lambda name: plans[name], default="")
            yield {
                "graph": model,
                "budget_share": share,
                "auto_overhead": mine,
                "best_overhead": plans.get(best),
                "best_planner": best or "none",
                "better": ", ".join(n for n, o in plans.items() if mine is None or o < mine) or "-",
                "too_slow": ", ".join(n for n, row in found.items() if row is None) or "-",
            }


def main() -> int:
    """Print the rows as they come; 1 if a planner was better."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(PRESETS))
    parser.add_argument("--nodes", type=int, default=2500, help="leave out larger nets")
    parser.add_argument("--seconds", type=int, default=60, help="that a planner has")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return 0
    asked = [name for name in options.models if len(trace(name)) <= options.nodes]
    found = []
    for row in rows(asked, options.seconds):
        found.append(row)
        print(*row.values(), sep="  ", file=sys.stderr, flush=True)
    show(found)
    return int(any(row["better"] != "-" for row in found))


if __name__ == "__main__":
    sys.exit(main())
