"""What a step of JAX keeps for backward, and what bytes its compiled forms need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ckpt.graph import Graph
from ckpt.jax.advice import advice
from ckpt.jax.run.program import JaxProgram
from ckpt.jax.search import Temp
from ckpt.jax.ways import Ways, plain_rows
from ckpt.machine import simulate
from ckpt.planners import make_schedule
from ckpt.units import format_bytes, format_flops


@dataclass(eq=False)
class JaxProfile:
    """Each value that the backward reads, in the words of `jax.ad_checkpoint`'s
    ``print_saved_residuals``, with its bytes."""

    program: JaxProgram
    plain: Temp | None
    """Of the compiled plain step; None: it wasn't compiled."""

    @property
    def graph(self) -> Graph:
        return self.program.graph

    @cached_property
    def ways(self) -> Ways:
        """The plain step, and one with `jax.checkpoint` around each block."""
        return Ways(plain_rows(self.program, self.plain))

    def rows(self) -> list[dict[str, Any]]:
        """A row a residual, in the order of the program."""
        lowered, listing = self.program.lowered, self.program.joint.listing
        read = {v for e in self.program.joint.backward for v in e.reads}
        found = []
        for i, node in enumerate(self.graph):
            v = lowered.variable_of.get(i)
            if v is None or v not in read:
                continue
            what = {"argument": f"from {node.name}", "constant": "from a constant"}.get(
                node.op, f"output of {node.op}"
            )
            found.append(
                {
                    "kind": listing.avals[v].str_short(), "what": what, "source": node.source,
                    "nbytes": 0 if node.alias_of is not None else node.nbytes,
                    "resident": node.resident, "flops": node.flops,
                }
            )  # fmt: skip
        return found

    def to_dict(self) -> dict[str, Any]:
        stored = simulate(self.graph, make_schedule(self.graph, "store_all"))
        return {
            "name": self.graph.name,
            "saved": self.rows(),
            "graph_peak_nbytes": stored.peak,
            "compiled_temp_nbytes": self.plain.nbytes if self.plain else None,
            "ways": self.ways.rows,
            "forward_flops": self.graph.forward_flops,
            "backward_flops": self.graph.backward_flops,
        }

    def __str__(self) -> str:
        rows = self.rows()
        alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in rows:
            what = "from an argument" if row["resident"] else row["what"]
            alike.setdefault((row["kind"], what, row["source"]), []).append(row)
        lines = []
        for (kind, what, source), group in sorted(
            alike.items(), key=lambda item: (item[1][0]["resident"], -_nbytes(item[1]))
        ):
            times = f"{len(group)} x " if len(group) > 1 else ""
            what = group[0]["what"] if len(group) == 1 else what
            origin = f" from {source}" if source else ""
            size = format_bytes(_nbytes(group)) if _nbytes(group) else "a view"
            lines.append(f"{size:>10}  {times}{kind} {what}{origin}")
        computed = _nbytes([row for row in rows if not row["resident"]])
        given = _nbytes([row for row in rows if row["resident"]])
        lines.append(f"{format_bytes(computed):>10}  computed and kept for the backward, in all")
        lines.append(f"{format_bytes(given):>10}  of arguments and constants that it reads")
        if self.plain is not None:
            lines.append(
                f"{format_bytes(self.plain.nbytes):>10}  of temporaries in the compiled step: XLA "
                "fuses, and keeps less than it is told"
            )
        lines.append(
            f"forward {format_flops(self.graph.forward_flops)}, backward "
            f"{format_flops(self.graph.backward_flops)}"
        )
        return "\n".join([*lines, "", str(self.ways), *advice(self.graph)])


def _nbytes(rows: list[dict[str, Any]]) -> int:
    return sum(row["nbytes"] for row in rows)


@dataclass(eq=False)
class JaxFrontier:
    """Plans from the smallest to the plain step: recompute against bytes, compiled."""

    graph: Graph
    rows: list[dict[str, Any]]

    def __str__(self) -> str:
        lines = [f"{'temporaries':>12}  {'of plain':>8}  {'graph':>10}  recomputed"]
        for row in self.rows:
            share = row["temp_nbytes"] / max(self.rows[-1]["temp_nbytes"], 1)
            cost = f"{100 * row['overhead']:.1f} % of a forward"
            lines.append(
                f"{format_bytes(row['temp_nbytes']):>12}  {100 * share:6.0f} %  "
                f"{format_bytes(row['graph_nbytes']):>10}  {cost}"
            )
        return "\n".join(lines)
