"""What the experiments on PyTorch share: models of blocks, ways to run a step, rows, a figure."""

from __future__ import annotations

import gc
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

import ckpt.torch
from ckpt.errors import BudgetError
from ckpt.reports.canvas import byte_axis, dress, legend, new_figure
from ckpt.reports.drawing import best_of
from ckpt.reports.style import BLACK, BLUE, ORANGE, PURPLE, VERMILLION
from ckpt.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
aten = torch.ops.aten

KEPT = [
    getattr(aten, name).default
    for name in (
        "mm", "addmm", "bmm", "convolution", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
    if hasattr(aten, name)
]  # fmt: skip
"""What selective checkpointing (SAC) keeps: matrix products, convolutions, attention."""


class Blocks(nn.Module):
    """A model whose blocks run as ``way`` says: ``eager``, ``per block`` or ``SAC``."""

    way = "eager"

    def through(self, block: nn.Module, *xs: torch.Tensor) -> torch.Tensor:
        if self.way == "eager":
            return block(*xs)
        options: dict[str, Any] = {}
        if self.way == "SAC":
            options["context_fn"] = partial(create_selective_checkpoint_contexts, KEPT)
        return checkpoint(block, *xs, use_reentrant=False, **options)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.dropout, self.heads = nn.Dropout(dropout), heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.dropout(self.proj(y.transpose(1, 2).reshape(b, t, c)))
        return x + self.dropout(self.mlp(self.norm2(x)))


class GPT(Blocks):
    """GPT-2's shape: tied embeddings, learned positions, norms first."""

    def __init__(
        self, depth: int, width: int, heads: int, vocabulary: int, length: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        at = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.wte(tokens) + self.wpe(at)
        for block in self.blocks:
            x = self.through(block, x)
        logits = self.norm(x) @ self.wte.weight.t()
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens.roll(-1, 1).flatten())


class Bottleneck(nn.Module):
    def __init__(self, width: int, inner: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True), nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or width != out:
            self.skip = nn.Sequential(
                nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.body(x) + self.skip(x), inplace=True)


class ResNet(Blocks):
    """ResNet-50 (He et al. 2015) for ``depths`` (3, 4, 6, 3) and width 64."""

    def __init__(self, depths: Sequence[int] = (3, 4, 6, 3), width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        blocks, there = [], width
        for stage, depth in enumerate(depths):
            inner = width << stage
            for k in range(depth):
                stride = 2 if stage and not k else 1
                blocks.append(Bottleneck(there, inner, 4 * inner, stride))
                there = 4 * inner
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(there, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = self.through(block, x)
        return self.head(x.mean((2, 3))).float().logsumexp(1).mean()


class UNet(Blocks):
    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(_pair(width << k, width << k + 1) for k in range(levels))
        self.up = nn.ModuleList(
            _pair((width << k + 1) + (width << k), width << k) for k in reversed(range(levels))
        )
        self.last = nn.Conv2d(width, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        skips = []
        for block in self.down:
            skips.append(x)
            x = self.through(block, F.max_pool2d(x, 2))
        for block in self.up:
            wide = F.interpolate(x, scale_factor=2.0)
            x = self.through(block, torch.cat([wide, skips.pop()], 1))
        return self.last(x).float().square().mean()


def _pair(a: int, b: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True),
        nn.Conv2d(b, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True),
    )  # fmt: skip


@dataclass
class Case:
    """A model, the argument of its loss, and whether it runs in bf16 autocast."""

    name: str
    model: Blocks
    x: torch.Tensor
    autocast: bool = False

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        if not self.autocast:
            return self.model(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.model(x)

    def in_the_way(self, way: str) -> torch.Tensor:
        self.model.way = way
        try:
            return self.loss(self.x)
        finally:
            self.model.way = "eager"


def measured(
    case: Case, fractions: Iterable[float], *, rounds: int, planner: str,
    others: Sequence[str] = (), compiled: Iterable[float] = (), limit: int = 0,
) -> list[Row]:  # fmt: skip
    """A row for each way to run a step of ``case``: its peak and time, of planned steps also the
    predicted peak and whether loss, gradients and buffers are eager's bits.

    ``fractions`` of eager's peak are budgets, as are the peaks of the ``others`` (``per block``,
    ``SAC``), which are measured too. ``compiled``: values of ``activation_memory_budget``, and
    ``limit`` the seconds that the compiler may take for one; then its row says so in ``failed``.
    """
    rows: dict[str, Row] = {}
    failed: list[Row] = []
    runs: dict[str, Callable[[], torch.Tensor]] = {}
    for way in ("eager", *others):
        runs[way] = partial(case.in_the_way, way)
        rows[way] = {"peak_nbytes": _peak(runs[way], case)}
    for share in compiled:
        way = f"compile {share:g}"
        run = _compiled(case, share)
        start = time.perf_counter()
        try:
            with stopped_after(limit):
                rows[way] = {"peak_nbytes": _peak(run, case)}
        except Exception as error:  # whatever its compiler says, the other rows count
            over = limit and time.perf_counter() - start >= limit
            why = f"did not compile within {limit} s" if over else f"{type(error).__name__}"
            failed.append({"model": case.name, "way": way, "failed": why})
            print(f"{case.name}: {way}: {why}: {str(error)[:200]}", flush=True)
            continue
        runs[way] = run
    program = ckpt.torch.trace(case.loss, case.x, name=case.name)
    with program.restored(case.x):
        plain = program.digest(program.plain(case.x))
    plain_peak = rows["eager"]["peak_nbytes"]
    budgets = {f"planned at {share:.0%}": int(share * plain_peak) for share in fractions}
    budgets |= {f"planned at {way}": rows[way]["peak_nbytes"] for way in others}
    for label, budget in {"store all": None, **budgets}.items():
        how = "store_all" if budget is None else planner
        try:
            schedule = ckpt.make_schedule(program.graph, how, budget)
        except BudgetError as error:
            print(f"{case.name}: {label}: no plan within {budget} B, only {error.smallest}")
            continue
        step = program.compile(schedule)
        if program.gpu is not None:
            with program.restored(case.x):
                program.measure(step, case.x)
        with program.restored(case.x):
            outcome, peak = program.measure(step, case.x)
        rows[label] = {
            "peak_nbytes": peak, "budget_nbytes": budget,
            "predicted_peak_nbytes": ckpt.simulate(program.graph, schedule).peak,
            "same_bits": program.digest(outcome) == plain,
        }  # fmt: skip
        runs[label] = partial(lambda step, x: step.runner([x])[0], step, case.x)
    taken = seconds(runs, case, rounds)
    base = statistics.median(taken["eager"])
    for label, own in taken.items():
        middle = statistics.median(own)
        ratios = [mine / eager for mine, eager in zip(own, taken["eager"], strict=True)]
        several = [*ratios, *ratios] if len(ratios) < 2 else ratios  # one round has no spread
        low, _, high = statistics.quantiles(several, n=4, method="inclusive")
        rows[label] |= {"seconds": middle, "time": middle / base, "quartiles": (low, high)}
    return [
        {"model": case.name, "way": way, **row, "peak": row["peak_nbytes"] / plain_peak}
        for way, row in rows.items()
    ] + failed


@contextmanager
def stopped_after(limit: int) -> Iterator[None]:
    """TimeoutError, once ``limit`` seconds are over; 0: never."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"not done within {limit} s")

    if not limit:
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit, 5)  # again and again: a library may swallow one
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _peak(run: Callable[[], torch.Tensor], case: Case) -> int:
    """Of the second step: the first one allocates what libraries keep."""
    case.model.zero_grad()
    run().backward()
    case.model.zero_grad()
    found = ckpt.torch.measure_peak(_Step(run, case.model)).allocated
    case.model.zero_grad()
    return found


class _Step(nn.Module):
    """A function of nothing, with the module that it trains."""

    def __init__(self, run: Callable[[], torch.Tensor], model: nn.Module) -> None:
        super().__init__()
        self.run, self.model = run, model

    def forward(self) -> torch.Tensor:
        return self.run()


def _compiled(case: Case, share: float) -> Callable[[], torch.Tensor]:
    import torch._functorch.config as settings

    # Code of its own for each share: what is compiled is kept by code, whatever the settings.
    code = Case.loss.__code__.replace(co_name=f"loss_within_{share:g}")
    made = torch.compile(partial(FunctionType(code, globals()), case))

    def run() -> torch.Tensor:
        with settings.patch(activation_memory_budget=share):
            return made(case.x)

    return run


def seconds(
    runs: dict[str, Callable[[], torch.Tensor]], case: Case, rounds: int
) -> dict[str, list[float]]:
    """Of forward and backward, in each of the interleaved rounds: CPU seconds, or those of a GPU.

    What comes before the first round isn't counted.
    """
    gpu = case.x.device.type == "cuda"
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            case.model.zero_grad()
            gc.collect()  # what another way left behind isn't this one's to clear away
            if gpu:
                torch.cuda.synchronize()
            start = time.perf_counter() if gpu else time.process_time()
            run().backward()
            if gpu:
                torch.cuda.synchronize()
            taken[name].append((time.perf_counter() if gpu else time.process_time()) - start)
    return {name: rows[1:] for name, rows in taken.items()}


def print_rows(rows: Iterable[Row]) -> None:
    for row in rows:
        if "failed" in row:
            print(f"{row['model']:24} {row['way']:22} {row['failed']}", flush=True)
            continue
        text = f"{row['model']:24} {row['way']:22} {format_bytes(row['peak_nbytes']):>10} "
        text += f"{row['peak']:6.3f} of eager's peak {row['time']:6.3f} of its time"
        if "predicted_peak_nbytes" in row:
            off = row["peak_nbytes"] - row["predicted_peak_nbytes"]
            bits = "the same bits" if row["same_bits"] else "OTHER BITS"
            text += f"  {off:+d} B against the prediction, {bits}"
        print(text, flush=True)


def figure_of(rows: Sequence[Row], *, title: str, caption: str) -> Figure:
    """Peak against time with its quartiles, a panel for each model; plans are joined by steps."""
    names = list(dict.fromkeys(row["model"] for row in rows))
    figure = new_figure(max(4.6 * len(names), 7), 4.6, title=title, caption=caption)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    looks = {"eager": (BLACK, "o"), "per block": (ORANGE, "D"), "SAC": (BLUE, "^")}
    for axes, name in zip(panels, names, strict=True):
        own = [row for row in rows if row["model"] == name and "failed" not in row]
        dress(axes, title=name, x="time of a step, eager = 1", y="peak of a step", grid="both")
        groups: list[tuple[str, list[Row], str, str, str]] = [
            (way, [r for r in own if r["way"] == way], *look, "") for way, look in looks.items()
        ]
        planned = [r for r in own if r["way"].startswith(("planned", "store all"))]
        groups += [
            ("torch.compile, its budgets", [r for r in own if r["way"].startswith("compile")],
             PURPLE, "P", ":"),
            ("ckpt.torch, over budgets", planned, VERMILLION, "s", "-"),
        ]  # fmt: skip
        for label, some, colour, marker, line in groups:
            if not some:
                continue
            peaks = [r["peak_nbytes"] for r in some]
            low, high = zip(*(r["quartiles"] for r in some), strict=True)
            axes.hlines(peaks, low, high, color=colour, linewidth=1, alpha=0.6)
            axes.plot(
                [r["time"] for r in some], peaks, color=colour, marker=marker, linestyle="none",
                label=label, markersize=6 if line else 9,
            )  # fmt: skip
            if line:
                best = best_of((r["time"], r["peak_nbytes"]) for r in some)
                axes.step(
                    *zip(*best, strict=True), where="post", color=colour, linestyle=line,
                    linewidth=1.4,
                )  # fmt: skip
        most = max(r["peak_nbytes"] for r in own)
        axes.set_ylim(0, 1.06 * most)
        ends = [end for r in own for end in r["quartiles"]] + [r["time"] for r in own]
        axes.set_xlim(min(0.9, min(ends) - 0.02), max(ends) + 0.05)
        byte_axis(axes.yaxis, high=most)
        failed = [f"{row['way']}: {row['failed']}" for row in rows
                  if row["model"] == name and "failed" in row]  # fmt: skip
        axes.text(0.98, 0.02, "\n".join(failed), transform=axes.transAxes, ha="right", fontsize=8)
    legend(panels[0], loc="lower left")
    return figure
