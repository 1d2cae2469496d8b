"""What can be said of a workload without running it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ckpt.graph import Graph
from ckpt.models.base import Workload


@dataclass(frozen=True, eq=False)
class Facts:
    """A workload as its shapes tell it.

    ``activations_nbytes`` are the buffers that some Backward reads, inputs and parameters aside:
    what store-all keeps when the forward ends.
    """

    graph: Graph
    options: dict[str, Any]
    parameters: int
    parameters_nbytes: int
    nodes: int
    forward_flops: int
    activations_nbytes: int

    def row(self) -> dict[str, Any]:
        """A row of the table of models."""
        shown = {k: v for k, v in self.options.items() if v is not None}
        return {
            "model": self.graph.name,
            "options": " ".join(f"{k}={v}" for k, v in shown.items()),
            "parameters_nbytes": self.parameters_nbytes,
            "nodes": self.nodes,
            "forward_flops": self.forward_flops,
            "activations_nbytes": self.activations_nbytes,
        }


def facts(workload: Workload) -> Facts:
    """Parameters, nodes, forward FLOPs and activation bytes, from an abstract trace."""
    graph = workload.trace().graph
    kept = {graph.owners[i] for i, readers in enumerate(graph.step_readers) if readers}
    return Facts(
        graph=graph,
        options=workload.options,
        parameters=workload.parameters,
        parameters_nbytes=workload.parameter_nbytes,
        nodes=len(graph),
        forward_flops=graph.forward_flops,
        activations_nbytes=sum(graph[i].nbytes for i in kept if not graph[i].resident),
    )
