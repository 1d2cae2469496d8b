"""Does a planned step of PyTorch keep its promises on a GPU?

Question: on this card, are loss, gradients and buffers those of the plain step bit for bit, is the
peak of requested bytes the predicted one, and what do eager, checkpoint around each block,
selective checkpointing (SAC) and planned steps at three budgets cost in time and memory?
Theory says: a plan orders the same kernels, so bits and requested bytes carry over; what libraries
keep for good (cuBLAS's workspace) is allocated before anything is measured.
With --jax the same is asked of ckpt.jax: temporaries and time of plain steps, of `jax.checkpoint`
(which XLA keeps on a GPU) and of planned steps, for an MLP and a transformer.
Run: python experiments/cuda_check.py [--jax] [--small] [--folder plots] (torch 2.11 or later, or
jax; no network; under 4 minutes). Without a GPU, or with --cpu, tiny models run on CPU: that tries
the script alone.
Found: nothing yet on any GPU: it has only been run on CPU.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts

from ckpt.reports.figure import save

try:
    import torch
    from torch_steps import GPT, Case, ResNet, figure_of, measured, print_rows
except ImportError:  # with --jax alone it isn't needed
    pass

Row = dict[str, Any]

PLOTS = Path(__file__).resolve().parent.parent / "plots"


def cases(device: str, small: bool) -> dict[str, Callable[[], Case]]:
    def tokens(vocabulary: int, batch: int, length: int) -> torch.Tensor:
        return torch.randint(vocabulary, (batch, length), device=device)

    if small:
        return {
            "GPT": lambda: Case("GPT, tiny", GPT(4, 64, 4, 200, 32).to(device), tokens(200, 4, 32)),
            "ResNet": lambda: Case(
                "ResNet, tiny", ResNet((1, 1), 8).to(device),
                torch.randn(2, 3, 32, 32, device=device),
            ),
            "dropout": lambda: Case(
                "transformer, tiny, bf16", GPT(3, 64, 4, 200, 32, 0.1).to(device),
                tokens(200, 4, 32), autocast=True,
            ),
        }  # fmt: skip
    return {
        "small": lambda: Case(
            "GPT-2 small", GPT(12, 768, 12, 50257, 1024).to(device), tokens(50257, 4, 512)
        ),
        "medium": lambda: Case(
            "GPT-2 medium", GPT(24, 1024, 16, 50257, 1024).to(device), tokens(50257, 4, 512)
        ),
        "ResNet": lambda: Case(
            "ResNet-50", ResNet().to(device), torch.randn(32, 3, 224, 224, device=device)
        ),
        "dropout": lambda: Case(
            "transformer, dropout, bf16", GPT(12, 768, 12, 8192, 1024, 0.1).to(device),
            tokens(8192, 8, 512), autocast=True,
        ),
    }  # fmt: skip


def jax_rows(options: argparse.Namespace) -> list[Row]:
    """The same for JAX: two models, and three budgets of temporaries."""
    if options.cpu:
        os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import jax_steps

    device = jax.devices()[0]
    print(f"{device.device_kind}, jax {jax.__version__}", flush=True)
    small = options.small or device.platform == "cpu"
    made = (
        [jax_steps.mlp(6, 32, 64), jax_steps.transformer(2, 32, 2, 16)]
        if small
        else [jax_steps.mlp(32, 2048, 8192), jax_steps.transformer(8, 1024, 8, 1024)]
    )
    rows: list[Row] = []
    for case in made:
        found = jax_steps.measured(case, ("75%", "50%", "30%"), rounds=options.rounds)
        jax_steps.print_rows(found)
        rows += found
    caption = f"{device.device_kind}, jax {jax.__version__}; temporaries by XLA's memory analysis."
    for kind in ("png", "svg"):
        title = "Temporaries and time of a step, by how it is run"
        figure = jax_steps.figure_of(rows, title=title, caption=caption)
        save(figure, options.folder / f"cuda_check_jax.{kind}")
    return rows


def main(argv: Sequence[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--jax", action="store_true", help="ckpt.jax, and not ckpt.torch")
    parser.add_argument("--small", action="store_true", help="tiny models")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=PLOTS)
    options = parser.parse_args(argv)
    if options.jax:
        return jax_rows(options)
    gpu = torch.cuda.is_available() and not options.cpu
    device, card = "cpu", "CPU, a dry run"
    if gpu:
        device, card = "cuda", torch.cuda.get_device_name()
        torch.backends.cudnn.deterministic = True
        torch.use_deterministic_algorithms(True, warn_only=True)
    print(f"{card}, torch {torch.__version__}", flush=True)
    rows: list[Row] = []
    try:
        for make in cases(device, options.small or not gpu).values():
            torch.manual_seed(0)
            found = measured(
                make(), (0.75, 0.6, 0.5), rounds=options.rounds, planner="chain",
                others=("per block", "SAC"),
            )  # fmt: skip
            print_rows(found)
            rows += found
            if gpu:
                torch.cuda.empty_cache()
    finally:
        if gpu:
            torch.use_deterministic_algorithms(False)
    caption = (
        f"{card}, torch {torch.__version__}; peaks of "
        + ("requested bytes, seconds of the GPU" if gpu else "allocated bytes, CPU seconds")
        + "; medians of interleaved steps."
    )
    for kind in ("png", "svg"):
        figure = figure_of(rows, title="Peak and time of a step, by how it is run", caption=caption)
        save(figure, options.folder / f"cuda_check.{kind}")
    return rows


if __name__ == "__main__":
    main()
