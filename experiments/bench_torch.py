"""Does the PyTorch front end keep what it promises, and what does it cost?

Question: are peaks those that are predicted; is a planned step as fast as the plain one where it
recomputes nothing, and faster than `torch.utils.checkpoint` around each block at the same peak?
Theory says: the same kernels run, less Python around them; a plan recomputes what is cheap first.
Run: python experiments/bench_torch.py [model ...] (CPU, one thread; CPU seconds, medians of
interleaved rounds; needs the extra ``torch``).
Found: every peak as predicted, to the byte, and the same bits. At the peak of checkpoint around
each block, 0.70 to 0.82 of its time (MLP, GPT, ResNet; no plan for the encoder). At half of the
plain peak 1.01 to 1.18 of the plain time. Storing everything 0.92 to 1.17 of it (before batch norms
and pools ran once; `torch_memory_time.py` has 0.95 to 0.98 since); 1.1 on a step of half a
millisecond. GPT-2 XL: 7.3 CPU s without imports, 478 MiB. The machine was busy with other work.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint
from torch_steps import GPT

import ckpt.torch
from ckpt.errors import BudgetError
from ckpt.units import format_bytes

ROUNDS = 7


class Blocks(nn.Module):
    """A stem, blocks that may be checkpointed, a head."""

    def __init__(self, stem: nn.Module, blocks: list[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stem, self.blocks, self.head = stem, nn.ModuleList(blocks), head
        self.checkpointed = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
        found: torch.Tensor = self.head(x).float().square().mean()
        return found


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout, self.heads = nn.Dropout(dropout), heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.dropout(self.proj(y.transpose(1, 2).reshape(b, t, c)))
        found: torch.Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return found


class Bottleneck(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 4
        self.body = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True), nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.body(x), inplace=True)


def _encoder() -> Blocks:
    layers: list[nn.Module] = [
        nn.TransformerEncoderLayer(256, 8, 1024, 0.1, batch_first=True) for _ in range(6)
    ]
    return Blocks(nn.Identity(), layers, nn.Linear(256, 256))


def _mlp(width: int, depth: int) -> Blocks:
    layers: list[nn.Module] = [
        nn.Sequential(nn.Linear(width, width), nn.GELU()) for _ in range(depth)
    ]
    return Blocks(nn.Identity(), layers, nn.Linear(width, width))


MODELS: dict[str, Callable[[], tuple[Blocks, torch.Tensor]]] = {
    "tiny mlp": lambda: (_mlp(16, 4), torch.randn(8, 16)),
    "mlp 24 x 256": lambda: (_mlp(256, 24), torch.randn(1024, 256)),
    "gpt 6 x 256": lambda: (
        Blocks(nn.Identity(), [Attention(256, 8, 0.1) for _ in range(6)], nn.Linear(256, 256)),
        torch.randn(4, 128, 256),
    ),
    "encoder 6 x 256": lambda: (_encoder(), torch.randn(4, 128, 256)),
    "resnet 6 x 128": lambda: (
        Blocks(nn.Conv2d(3, 128, 3, 2), [Bottleneck(128) for _ in range(6)], nn.Conv2d(128, 8, 1)),
        torch.randn(4, 3, 64, 64),
    ),
}


def seconds(runs: dict[str, Callable[[], Any]], model: nn.Module) -> dict[str, float]:
    """CPU seconds of forward and backward of each, medians of interleaved rounds."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 1):
        for name, run in runs.items():
            model.zero_grad(set_to_none=True)
            repeats = 20 if "tiny" in name else 1
            start = time.process_time()
            for _ in range(repeats):
                run().backward()
            taken[name].append((time.process_time() - start) / repeats)
    return {name: statistics.median(rows[1:]) for name, rows in taken.items()}


def bench(name: str) -> None:
    torch.manual_seed(0)
    model, x = MODELS[name]()
    start = time.process_time()
    stored = ckpt.torch.plan(model, x, planner="store_all")
    captured = time.process_time() - start
    found = stored.verify(x)
    assert found.plain is not None
    model.checkpointed = True
    blocks = ckpt.torch.measure_peak(model, x).allocated
    model.checkpointed = False
    plans: dict[str, Any] = {}
    for label, budget in (("at the blocks' peak", blocks), ("at half", found.plain // 2)):
        start = time.process_time()
        try:
            step = ckpt.torch.plan(model, x, budget=budget, options={"iterations": 10})
        except BudgetError as error:
            print(f"{name}: {label}: no plan ({error.smallest} bytes is the least found)")
            continue
        plans[label] = step
        seen = step.verify(x)
        print(
            f"{name}: {label}: predicted {seen.promised}, measured {seen.measured} "
            f"({seen.measured - seen.promised:+d} B), same bits; planned in "
            f"{time.process_time() - start:.1f} CPU s",
            flush=True,
        )

    def per_block() -> torch.Tensor:
        model.checkpointed = True
        try:
            return model(x)
        finally:
            model.checkpointed = False

    tiny = " (tiny)" if "tiny" in name else ""
    runs: dict[str, Callable[[], Any]] = {
        f"eager{tiny}": lambda: model(x), f"store-all{tiny}": lambda: stored(x),
        f"per block{tiny}": per_block,
        **{f"{label}{tiny}": (lambda step=step: step(x)) for label, step in plans.items()},
    }  # fmt: skip
    taken = seconds(runs, model)
    base = taken[f"eager{tiny}"]
    print(
        f"{name}: captured and probed in {captured:.1f} CPU s; eager {base * 1e3:.1f} ms, peak "
        f"{format_bytes(found.plain)}; store-all {format_bytes(found.measured)}; per block "
        f"{format_bytes(blocks)}"
    )
    for label, value in taken.items():
        print(f"  {label:28} {value / base:.3f} of eager's time", flush=True)


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
    for wanted in sys.argv[1:] or [*MODELS, "xl"]:
        gpt2_xl() if wanted == "xl" else bench(wanted)
