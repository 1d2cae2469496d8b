"""Run the programs of many seeds; see `tests.random_programs`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from tests.random_programs.checking import PLANNERS, DiscardedError, ViolationError, check, chosen
from tests.random_programs.shrinking import shrink
from tests.random_programs.writing import write


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.random_programs", description=__doc__)
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="A", help="first seed")
    parser.add_argument("--to", dest="end", type=int, default=1000, metavar="B", help="one past it")
    parser.add_argument("--shard", default="1/1", metavar="K/N", help="the K-th of N shares")
    parser.add_argument(
        "--planners",
        type=int,
        default=len(PLANNERS),
        metavar="N",
        help="of the quick planners so many in turn (all); of every 50th program the slow ones too",
    )
    given = parser.parse_args(argv)
    share, shares = map(int, given.shard.split("/"))
    seen: Counter[str] = Counter()
    for seed in range(given.first + share - 1, given.end, shares):
        written, planners = write(seed), chosen(seed, given.planners)
        try:
            checked = check(written, planners)
            seen["held"] += 1
            seen["schedules"] += checked.schedules
            seen["with finite differences"] += checked.differences == "right"
        except DiscardedError as refusal:
            seen["discarded"] += 1
            seen[f"discarded: {refusal}"] += 1
        except ViolationError as violation:
            seen["violations"] += 1
            small = shrink(written, violation, planners)
            print(f"seed {seed}: {violation}\n\n{small.script}\n", flush=True)
        except Exception as error:  # of the checking itself: the other seeds are still tried
            seen["violations"] += 1
            print(f"seed {seed}: {type(error).__name__}: {error}\n\n{written.script}\n", flush=True)
    for what, count in seen.most_common():
        print(f"{count:>7} {what}")
    return 1 if seen["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
