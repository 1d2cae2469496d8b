"""What a plain step of PyTorch saves for backward, in the terms of its user."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ckpt.errors import BudgetError
from ckpt.graph import Graph
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.planners.base.lower import lower
from ckpt.planners.bounds.simple import memory_floor
from ckpt.studies.profile import Profile
from ckpt.studies.profile import profile as profile_program
from ckpt.timeline import Timeline
from ckpt.torch.run.program import TorchProgram
from ckpt.units import format_bytes, format_flops

Row = dict[str, Any]


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
        """`torch.utils.checkpoint` around each block (``layers.3``); None: there are no blocks."""
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
    def smallest(self) -> int:
        """The least peak of any plan that is found quickly."""
        floor = memory_floor(self.graph).nbytes
        try:
            return simulate(self.graph, make_schedule(self.graph, "chain", floor)).peak
        except BudgetError as error:
            return error.smallest or self.store_all.peak

    def rows(self) -> list[Row]:
        """A row for each module and line that keeps bytes for backward, largest first."""
        found: dict[tuple[str, str, str], Row] = {}
        seen: set[int] = set()
        for i, node in enumerate(self.graph):
            if node.resident or not self.graph.step_readers[i] or i in seen:
                continue
            seen.add(i)
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

    def profile(self, *args: Any, **options: Any) -> Profile:
        """The same program in `ckpt.profile`'s terms."""
        return profile_program(self.program, *args, **options)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.graph.name,
            "plain_predicted_peak_nbytes": self.plain_peak,
            "plain_measured_peak_nbytes": self.plain_measured,
            "store_all_peak_nbytes": self.store_all.peak,
            "per_block_peak_nbytes": self.blocks.peak if self.blocks else None,
            "per_block_recompute_flops": self.blocks.recompute_flops if self.blocks else None,
            "smallest_peak_nbytes": self.smallest,
            "resident_nbytes": self.graph.resident_nbytes,
            "saved": self.rows(),
        }

    def __str__(self) -> str:
        rows = self.rows()
        total = sum(row["saved_nbytes"] for row in rows)
        lines = [f"{self.graph.name or 'the step'}: {format_bytes(total)} saved for backward"]
        for row in rows[:15]:
            where = ", ".join(filter(None, [row["module"], row["line"]]))
            times = f"{row['values']} x " if row["values"] > 1 else ""
            saved, cost = row["saved_nbytes"], format_flops(row["recompute_flops"])
            lines.append(
                f"  {format_bytes(saved):>10} {100 * saved / max(total, 1):3.0f} %"
                f"  {times}{row['op']}, {where}: {cost} to recompute"
            )
        if len(rows) > 15:
            rest = sum(row["saved_nbytes"] for row in rows[15:])
            lines.append(f"  {format_bytes(rest):>10}        {len(rows) - 15} more")
        measured = (
            "" if self.plain_measured is None else f", measured {format_bytes(self.plain_measured)}"
        )
        lines.append(
            f"peak of the plain step             {format_bytes(self.plain_peak):>10}{measured}"
        )
        lines.append(f"  planned, nothing recomputed      {format_bytes(self.store_all.peak):>10}")
        if self.blocks is not None:
            lines.append(
                f"  checkpoint around each block     {format_bytes(self.blocks.peak):>10}, "
                f"{100 * self.blocks.overhead:.0f} % of forward recomputed"
            )
        lines.append(f"  the smallest plan found quickly  {format_bytes(self.smallest):>10}")
        lines.append(
            f"beside it, parameters, buffers and inputs: {format_bytes(self.graph.resident_nbytes)}"
        )
        return "\n".join(lines)


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
