"""What a plain step of PyTorch saves for backward, in the terms of its user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from ckpt.errors import BudgetError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.planners.base.lower import lower
from ckpt.planners.bounds.simple import memory_floor
from ckpt.reports.ledger import ledger
from ckpt.reports.table import render
from ckpt.studies.profile import Profile
from ckpt.studies.profile import profile as profile_program
from ckpt.timeline import Timeline
from ckpt.torch.run.program import TorchProgram
from ckpt.units import format_bytes

Row = dict[str, Any]

SAVED = ("what", "module", "source", "kept_nbytes", "recompute_flops", "share_percent")
PEAKS = ("step", "peak_nbytes", "measured_nbytes", "of_plain_percent", "overhead")
TOP = 20
"""Rows that are shown; the rest are one."""


@dataclass(eq=False)
class TorchProfile:
    """Bytes that the plain step keeps for backward, and the peaks that can be had."""

    program: TorchProgram
    plain_measured: int | None
    """The plain step's own peak, measured; None: it wasn't run."""

    @property
    def graph(self) -> Graph:
        return self.program.graph

    @property
    def plain_peak(self) -> int:
        """That of the plain step, predicted."""
        return self.program.eager_peak

    @cached_property
    def store_all(self) -> Timeline:
        """The planned step that recomputes nothing."""
        return simulate(self.graph, make_schedule(self.graph, "store_all"))

    @cached_property
    def blocks(self) -> Timeline | None:
        """The planned step that keeps what goes from block (``layers.3``) to block, and recomputes
        the rest of each; None: there are no blocks."""
        graph = self.graph
        block = [block_of(node.scope) for node in graph]
        if not any(block):
            return None
        kept = {
            i for i, own in enumerate(block)
            if not own or any(block[r] != own for r in graph.readers[i])
        }  # fmt: skip
        return simulate(graph, lower(graph, kept, planner="per block"))

    @cached_property
    def blocks_peak(self) -> int | None:
        """Of the plain step with `torch.utils.checkpoint` around each block, predicted; None: there
        are no blocks, or they can't be run so."""
        blocks = {block_of(node.scope) for node in self.graph} - {""}
        return self.program.checkpointed_peak(blocks) if blocks else None

    @cached_property
    def smallest(self) -> Timeline:
        """The plan of the least peak that is found quickly."""
        floor = memory_floor(self.graph).nbytes
        try:
            return simulate(self.graph, make_schedule(self.graph, "chain", floor))
        except BudgetError as error:
            if not error.smallest:
                return self.store_all
            return simulate(self.graph, make_schedule(self.graph, "chain", error.smallest))

    def rows(self) -> list[Row]:
        """A row for each module and line that keeps bytes for backward, largest first."""
        found: dict[tuple[str, str, str], Row] = {}
        for i, node in enumerate(self.graph):
            if node.resident or not self.graph.step_readers[i]:
                continue
            maker = (
                self.graph[node.deps[0]] if node.deps and self.graph[node.deps[0]].call else node
            )
            row = found.setdefault(
                (node.scope, node.source, node.op),
                {"module": node.scope, "line": node.source, "op": node.op, "values": 0,
                 "saved_nbytes": 0, "recompute_flops": 0, "recompute_moved_nbytes": 0},
            )  # fmt: skip
            row["values"] += 1
            row["saved_nbytes"] += node.nbytes
            row["recompute_flops"] += maker.flops
            row["recompute_moved_nbytes"] += maker.moved_nbytes
        return sorted(found.values(), key=lambda row: -row["saved_nbytes"])

    def peaks(self) -> list[Row]:
        """A row for each way to run the step: its peak, and how much of a forward it recomputes."""
        rows: list[Row] = [
            {"step": "the plain one", "peak_nbytes": self.plain_peak,
             "measured_nbytes": self.plain_measured, "overhead": 0.0},
            {"step": "planned, nothing recomputed", "peak_nbytes": self.store_all.peak,
             "overhead": 0.0},
        ]  # fmt: skip
        if self.blocks is not None and self.blocks_peak is not None:
            rows.append(
                {"step": "torch.utils.checkpoint per block", "peak_nbytes": self.blocks_peak,
                 "overhead": self.blocks.overhead}
            )  # fmt: skip
        rows.append(
            {"step": "the smallest plan found quickly", "peak_nbytes": self.smallest.peak,
             "overhead": self.smallest.overhead}
        )  # fmt: skip
        whole = max(self.plain_peak, 1)
        return [{**row, "of_plain_percent": 100 * row["peak_nbytes"] / whole} for row in rows]

    def profile(self, *args: Any, **options: Any) -> Profile:
        """The same program in `ckpt.profile`'s terms."""
        return profile_program(self.program, *args, **options)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.graph.name,
            "plain_predicted_peak_nbytes": self.plain_peak,
            "plain_measured_peak_nbytes": self.plain_measured,
            "store_all_peak_nbytes": self.store_all.peak,
            "per_block_peak_nbytes": self.blocks_peak,
            "per_block_recompute_flops": self.blocks.recompute_flops if self.blocks else None,
            "smallest_peak_nbytes": self.smallest.peak,
            "resident_nbytes": self.graph.resident_nbytes,
            "saved": self.rows(),
        }

    def __str__(self) -> str:
        name = self.graph.name or "the step"
        saved = ledger(alike(self.rows()), sort="kept_nbytes", top=TOP)
        resident = format_bytes(self.graph.resident_nbytes)
        return "\n".join([
            render(saved, SAVED, title=f"{name} saves for backward, by module and line:"),
            render(self.peaks(), PEAKS, title=f"peaks of a step of {name}:")
            + f"beside them parameters, buffers and inputs: {resident}",
        ])  # fmt: skip


def profile_of(program: TorchProgram, args: tuple[Any, ...], measure: bool | None) -> TorchProfile:
    """Measured where the program can be run, unless ``measure`` is False."""
    plain = None
    if program.real if measure is None else measure:
        with program.restored(*args):
            _, plain = program.measure(program.plain, *args)
    return TorchProfile(program, plain)


def block_of(scope: str) -> str:
    """The block of a model that a module is in: ``layers.3`` of ``layers.3.mlp``."""
    parts = scope.split(".")
    for k, part in enumerate(parts):
        if part.isdigit() and k:
            return ".".join(parts[: k + 1])
    return ""


# -- layers alike ----------------------------------------------------------------------------------


def alike(rows: Sequence[Row]) -> list[Row]:
    """Those of equal layers as one: ``12 x gelu`` of ``layers.0..11.mlp.act``."""
    groups: dict[Any, dict[int, Row]] = {}
    for row in rows:
        before, number, behind = _layer(row["module"])
        figures = tuple(value for name, value in row.items() if name != "module")
        groups.setdefault((before, number < 0, behind, figures), {})[number] = row
    found = []
    for (before, _, behind, _), members in groups.items():
        first, count = next(iter(members.values())), len(members)
        values = count * first["values"]
        found.append({
            "what": f"{values} x {_plain(first['op'])}" if values > 1 else _plain(first["op"]),
            "module": ".".join(filter(None, [before, _span(sorted(members)), behind])) or None,
            "source": first["line"],
            "kept_nbytes": count * first["saved_nbytes"],
            "recompute_flops": count * first["recompute_flops"],
        })  # fmt: skip
    return found


def _layer(module: str) -> tuple[str, int, str]:
    """What is before the first number in a module's path, the number (-1: none), what is behind."""
    parts = module.split(".")
    k = next((k for k, part in enumerate(parts) if part.isdigit()), None)
    if k is None:
        return module, -1, ""
    return ".".join(parts[:k]), int(parts[k]), ".".join(parts[k + 1 :])


def _span(numbers: Sequence[int]) -> str:
    """``0..11``; with steps ``1,3..11``; a few of any kind ``0,4,5``."""
    if numbers[0] < 0:
        return ""
    steps = {b - a for a, b in pairwise(numbers)}
    if len(numbers) < 3 or (len(steps) > 1 and len(numbers) < 6):
        return ",".join(map(str, numbers))
    start = "" if steps == {1} else f",{numbers[1]}"
    return f"{numbers[0]}{start}..{numbers[-1]}"


def _plain(op: str) -> str:
    """An op's name without what aten says about its kernel."""
    return (
        op.removeprefix("_scaled_dot_product_").removesuffix("_for_cpu").removeprefix("native_")
        .strip("_")
    )  # fmt: skip
