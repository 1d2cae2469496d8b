"""What does a byte budget cost in time, against the other ways that PyTorch offers?

Question: peak against time of eager, `torch.utils.checkpoint` around each block, selective
checkpointing (SAC), `torch.compile` with `activation_memory_budget`, and `ckpt.torch` over budgets?
Theory says: blocks recompute cheap and dear ops alike; a plan recomputes what costs least a byte.
Run: python experiments/torch_memory_time.py [--compile [0.75 0.5]] [--models GPT U-Net ResNet-50]
(CPU, one thread; CPU seconds, medians of interleaved rounds; needs the extra ``torch``, and a C++
compiler for --compile).
Found: every peak as predicted, to the byte, and the same bits. At the peak of checkpoint around
each block, 0.82 (GPT), 0.71 (U-Net), and 0.76 (ResNet-50) of its time; at SAC's, 0.89, 0.82, 0.89
of its. At half of eager's peak 1.09 and 1.14 of eager's time; ResNet-50 has no plan below 0.64 of
it, and 0.60 is proven for any: its gradients alone are 0.52. Storing everything 0.99, 0.93 and
1.02, the U-Net at 0.91 of eager's peak. `torch.compile` takes 1.02 to 1.05 (GPT) and 0.92 to 0.96
(U-Net) of eager's time at 0.66 to 0.67 of its peak, whatever its budget: planned steps there 1.04
(GPT) and 0.96 to 1.04 (U-Net, at 0.74 and 0.60), since they fuse nothing. ResNet-50 wasn't compiled
within 900 s of wall clock on a machine busy with other work, where another time it took 237 s.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch_steps import GPT, Case, ResNet, Row, UNet, figure_of, measured, print_rows

from ckpt.reports.figure import save

PLOTS = Path(__file__).resolve().parent.parent / "plots"

CASES: dict[str, Callable[[bool], Case]] = {
    "GPT": lambda tiny: Case(
        "GPT, tiny" if tiny else "GPT, 8 x 256, dropout",
        GPT(3, 32, 2, 50, 16, 0.1) if tiny else GPT(8, 256, 8, 1000, 128, 0.1),
        torch.randint(50, (2, 16)) if tiny else torch.randint(1000, (4, 128)),
    ),
    "U-Net": lambda tiny: Case(
        "U-Net, tiny" if tiny else "U-Net, 16 to 128 channels",
        UNet(4, 2) if tiny else UNet(16, 3),
        torch.randn(1, 3, 16, 16) if tiny else torch.randn(4, 3, 96, 96),
    ),
    "ResNet-50": lambda tiny: Case(
        "ResNet, tiny" if tiny else "ResNet-50, 8 images of 96²",
        ResNet((1, 1), 8) if tiny else ResNet(),
        torch.randn(2, 3, 32, 32) if tiny else torch.randn(8, 3, 96, 96),
    ),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES))
    compiler = next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    parser.add_argument(
        "--compile", nargs="*", type=float, default=[0.75, 0.5] if compiler else [],
        help="values of activation_memory_budget; none without a C++ compiler",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=int, default=900, help="seconds that torch.compile may take for a budget"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--planner", default="chain")
    parser.add_argument("--folder", type=Path, default=PLOTS)
    options = parser.parse_args(argv)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows: list[Row] = []
    try:
        for name in options.models:
            torch.manual_seed(0)
            found = measured(
                CASES[name](options.tiny), (0.9, 0.75, 0.6, 0.5, 0.4, 0.3), rounds=options.rounds,
                planner=options.planner, others=("per block", "SAC"), compiled=options.compile,
                limit=options.limit,
            )  # fmt: skip
            print_rows(found)
            rows += found
    finally:
        torch.set_num_threads(threads)
    draw(rows, options.folder)
    return rows


def draw(rows: Sequence[Row], folder: Path) -> None:
    assert all(row.get("same_bits", True) for row in rows)
    compiled = any(row["way"].startswith("compile") for row in rows)
    caption = (
        f"torch {torch.__version__}, one thread of a CPU; peaks by torch's own memory events, CPU "
        "seconds of forward and backward, medians of interleaved steps, and as bars the quartiles "
        "of each round's ratio to eager; bars that overlap tell no difference. Steps: the best "
        "plans so far. Every planned step gave eager's bits."
        + ("" if compiled else " torch.compile wasn't run: it needs a C++ compiler.")
    )
    for kind in ("png", "svg"):
        figure = figure_of(
            rows, title="The same step within fewer bytes: what it costs in time", caption=caption
        )
        save(figure, folder / f"torch_memory_time.{kind}")


if __name__ == "__main__":
    main()
