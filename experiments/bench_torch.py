"""Does the PyTorch front end keep what it promises, and what does it cost?

Question: are peaks those that are predicted; is a planned step as fast as the plain one where it
recomputes nothing, and faster than checkpoint around each block, and than selective checkpointing
(SAC), at their peaks; what does half of eager's peak cost?
Theory says: the same kernels run, less Python around them; a plan recomputes what is cheap first.
Run: python experiments/bench_torch.py [model ...] [xl] (CPU, one thread; CPU seconds, medians of
interleaved rounds; needs the extra ``torch``).
Found: every peak as predicted, to the byte, and the same bits. Encoder and MLP: 0.83 and 0.70 of
the time of checkpoint around each block at its peak, 0.80 and 0.84 of SAC's at its, 1.13 and 1.01
of eager's at half its peak; storing everything 1.00 and 1.01, and 1.04 on a step of half a
millisecond. GPT, U-Net and ResNet-50 as `torch_memory_time.py` says, with which the geometric means
are 0.76 (blocks) and 0.85 (SAC). GPT-2 XL: 7 to 8 CPU s without imports, 470 to 478 MiB. The
machine was busy with other work.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch_memory_time import CASES
from torch_steps import GPT, Blocks, Case, Row, measured, print_rows

import ckpt.torch
from ckpt.units import format_bytes

ROUNDS = 7


class Stack(Blocks):
    """Blocks one behind the other, and a head."""

    def __init__(self, blocks: Iterable[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(blocks), head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = self.through(block, x)
        found: torch.Tensor = self.head(x).square().mean()
        return found


def _mlp(width: int, depth: int) -> Stack:
    blocks = (nn.Sequential(nn.Linear(width, width), nn.GELU()) for _ in range(depth))
    return Stack(blocks, nn.Linear(width, width))


def _encoder() -> Stack:
    layers = (nn.TransformerEncoderLayer(256, 8, 1024, 0.1, batch_first=True) for _ in range(6))
    return Stack(layers, nn.Linear(256, 256))


MODELS: dict[str, Callable[[], Case]] = {
    "tiny": lambda: Case("MLP 4 x 16", _mlp(16, 4), torch.randn(8, 16)),
    "MLP": lambda: Case("MLP 24 x 256", _mlp(256, 24), torch.randn(1024, 256)),
    "encoder": lambda: Case("encoder 6 x 256", _encoder(), torch.randn(4, 128, 256)),
    **{name: lambda make=make: make(False) for name, make in CASES.items()},  # type: ignore[misc]
}


def bench(name: str) -> list[Row]:
    torch.manual_seed(0)
    rows = measured(
        MODELS[name](), (0.5,), rounds=100 if name == "tiny" else ROUNDS, planner="chain",
        others=("per block", "SAC"),
    )  # fmt: skip
    print_rows(rows)
    return rows


def summary(found: dict[str, list[Row]]) -> None:
    """The figures that are asked for, each with its limit."""
    planned = [row for rows in found.values() for row in rows if "predicted_peak_nbytes" in row]
    off = max(abs(row["peak_nbytes"] - row["predicted_peak_nbytes"]) for row in planned)
    same = sum(row["same_bits"] for row in planned)
    print(f"peaks off by at most {off} B (16); {same} of {len(planned)} steps have eager's bits")
    for label, over, each, mean in (
        ("store all", "eager", 1.05, None), ("planned at per block", "per block", 0.95, 0.88),
        ("planned at SAC", "SAC", 0.97, 0.93), ("planned at 50%", "eager", 1.20, None),
    ):  # fmt: skip
        ratios = {}
        for name, rows in found.items():
            times = {row["way"]: row["time"] for row in rows if "time" in row}
            if label in times and over in times and (name != "tiny" or over == "eager"):
                ratios[name] = times[label] / times[over]
        if ratios:
            text = ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
            if mean is not None:
                middle = statistics.geometric_mean(ratios.values())
                text += f", geometric mean {middle:.3f} ({mean})"
            print(f"{label} over {over} ({each} each): {text}", flush=True)


def gpt2_xl() -> None:
    """48 blocks of width 1600, vocabulary 50257, one sequence of 1024: from shapes alone."""
    for size, budget in (((2, 32, 2, 50, 16), "80%"), ((48, 1600, 25, 50257, 1024), "50%")):
        start = time.process_time()
        with ckpt.torch.shapes_alone():
            model, tokens = GPT(*size, 0.1), torch.randint(size[3], (1, size[4]))
        step = ckpt.torch.plan(model, tokens, planner="chain", accumulate=True, budget=budget)
        taken = time.process_time() - start
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"GPT-2 XL: built, captured and planned in {taken:.1f} CPU s without imports, RSS "
        f"{format_bytes(rss)}; {len(step.graph)} nodes, {len(step.graph.steps)} steps\n{step}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    wanted = sys.argv[1:] or [*MODELS, "xl"]
    found = {name: bench(name) for name in wanted if name != "xl"}
    if found:
        summary(found)
    if "xl" in wanted:
        gpt2_xl()
