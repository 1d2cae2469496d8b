"""What can be said of a workload without running it."""

from __future__ import annotations

from dataclasses import dataclass

from ckpt.graph import Graph
from ckpt.models import Workload
from ckpt.tape.traced.trace import trace


@dataclass(frozen=True, eq=False)
class Facts:
    """A workload as its shapes tell it.

    ``activations_nbytes`` are the buffers that some Backward reads, inputs and parameters aside:
    what store-all keeps when the forward ends.
    """

    graph: Graph
    parameters: int
    parameters_nbytes: int
    nodes: int
    forward_flops: int
    activations_nbytes: int


def facts(workload: Workload) -> Facts:
    """Parameters, nodes, forward FLOPs and activation bytes, from an abstract trace."""
    graph = trace(workload.loss, *workload.specs(), name=workload.name).graph
    kept = {graph.owners[i] for i, readers in enumerate(graph.backward_readers) if readers}
    return Facts(
        graph=graph,
        parameters=workload.parameters,
        parameters_nbytes=workload.parameter_nbytes,
        nodes=len(graph),
        forward_flops=graph.forward_flops,
        activations_nbytes=sum(graph[i].nbytes for i in kept if not graph[i].resident),
    )
