"""`lesson`: reverse mode for someone who has never seen it, told by the tape itself.

Every number and every rule that is printed is read off the tape, counted, simulated or measured.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from ckpt.graph import Graph
from ckpt.lesson.by_hand import Example, hops, tangent, told, topological, written_out
from ckpt.machine import simulate
from ckpt.models import build
from ckpt.planners import make_schedule
from ckpt.program import execute
from ckpt.reports.table import render
from ckpt.studies.profile import profile
from ckpt.tape.core.value import Value
from ckpt.text import WIDTH
from ckpt.units import format_flops

PRODUCT = Example(
    "L",
    "(w * x + Value(-1) * y) * (w * x + Value(-1) * y)",
    lambda w, x, y: (w * x + Value(-1) * y) * (w * x + Value(-1) * y),
    {"w": 3.0, "x": 2.0, "y": 5.0},
)
POWER = Example("L", "(w * x - y) ** 2", lambda w, x, y: (w * x - y) ** 2, PRODUCT.at)
SUM = Example("z", "(a + b) * c", lambda a, b, c: (a + b) * c, {"a": 2.0, "b": 3.0, "c": 4.0})

DEPTHS = (1, 2, 10, 100)
MLP = {"width": 256, "batch": 4096}
INPUTS = (1, 10, 100)
DOUBLINGS = (5, 10, 20, 40)


def paragraph(text: str) -> str:
    return "\n" + textwrap.fill(" ".join(text.split()), WIDTH)


def one_graph() -> Iterator[str]:
    yield "1. A number that remembers how it was made"
    yield paragraph("""
        Each operation on a Value makes a new one that remembers its op and its inputs. That
        memory is the tape, and it is a graph. You get it in topological order for nothing:
        a node is made after its inputs. Backward walks it from the end. It starts with the
        cotangent 1 of the loss (dL/dL), and each node hands a cotangent to each of its
        inputs, by a rule: g is the node's own cotangent, x and y are its first and second
        input, whatever you called them. What a rule reads beside g is a residual, and the
        tape keeps it until then. Where two cotangents meet, they add up: that is all of the
        chain rule.
    """)
    yield from told(PRODUCT)


def two_ways() -> Iterator[str]:
    yield "2. Another way to write it, the same gradients"
    yield paragraph("""
        The same loss with a power: fewer nodes, because the bracket is computed once, and
        one op squares it. The mathematics is the same, and so are the gradients; by hand,
        dL/dw = 2 (w x - y) x.
    """)
    yield from told(POWER)
    yield paragraph("""
        And another formula. A product hands each of its inputs the other one, times g: so it reads
        both. An addition reads nothing: it hands on what it gets, and has nothing kept for it.
    """)
    yield from told(SUM)


def why_reverse() -> Iterator[str]:
    yield "3. Why backward, and not forward or by symbols?"
    yield paragraph("""
        Forward mode asks of one input at a time: what if it moved? It needs one pass an
        input. A finite difference needs two evaluations an input, and is only nearly right.
        Reverse mode asks of the one loss: what moved you? One pass answers for all inputs.
        Counted on x1*x1 + x2*x2 + ...; a call is one rule applied once.
    """)
    yield ""
    yield render([passes_row(n) for n in INPUTS]).rstrip()
    yield paragraph("""
        Symbols have another trouble: a formula written out has no place for a value that is
        used twice, so it is written twice. Start with v = x and say v = v * v again and
        again:
    """)
    yield ""
    yield render([symbols_row(n) for n in DOUBLINGS]).rstrip()


def passes_row(inputs: int) -> dict[str, int]:
    """Passes and rule calls that each mode needs for the gradient of n inputs, all of them done."""
    leaves: list[Any] = [Value(float(k + 1)) for k in range(inputs)]
    total = leaves[0] * leaves[0]
    for leaf in leaves[1:]:
        total = total + leaf * leaf
    order = topological(total)
    tangents = [tangent(order, leaf._node) for leaf in leaves]
    cotangents = [hops(order)]
    return {
        "inputs": inputs,
        "forward_passes": len(tangents),
        "forward_calls": sum(calls for _, calls in tangents),
        "reverse_passes": len(cotangents),
        "reverse_calls": sum(map(len, cotangents)),
    }


def symbols_row(doublings: int) -> dict[str, int]:
    """Nodes on the tape, and symbols of the same value written out."""
    v: Any = Value(1.0)
    for _ in range(doublings):
        v = v * v
    order = topological(v)
    return {"times": doublings, "tape_nodes": len(order), "symbols": written_out(order)}


def twice_forward() -> Iterator[str]:
    yield "4. Backward costs about twice forward"
    graph = trace_mlp(DEPTHS[-1])
    at = [i for i, node in enumerate(graph) if node.op == "matmul"][1]
    forward = graph[at].flops
    backward = next(step.flops for step in graph.steps if step.at == at)
    yield paragraph(f"""
        A layer tanh(x @ w) multiplies one pair of matrices forward, and two backward: one
        for the cotangent of x, one for that of w. Of the tape's own count, a matmul within
        an MLP of width {MLP["width"]} and batch {MLP["batch"]} takes
        {format_flops(forward)} forward and {format_flops(backward)}
        backward, {backward / forward:.2f} times as much. The first layer
        needs only one of the two, as nobody asks for the gradient of the data; the deeper
        the net, the less that shows.
    """)
    yield ""
    yield render([ratio_row(depth) for depth in DEPTHS]).rstrip()


def trace_mlp(depth: int) -> Graph:
    """The graph of an MLP of so many layers; of shapes alone, so that no array is made."""
    return build("mlp", depth=depth, **MLP).trace().graph


def ratio_row(depth: int) -> dict[str, Any]:
    graph = trace_mlp(depth)
    return {
        "layers": depth,
        "forward_flops": graph.forward_flops,
        "backward_flops": graph.backward_flops,
        "backward / forward": graph.backward_flops / graph.forward_flops,
    }


def must_keep() -> Iterator[str]:
    yield "5. And it must keep the activations"
    yield paragraph("""
        A rule reads residuals, and backward begins with the last layer: so the first
        layer's residual waits through the whole forward and nearly the whole backward. The
        residuals of all layers wait at once, and memory grows with depth. This is where the
        memory of training goes.
    """)
    yield ""
    yield render([kept_row(depth) for depth in DEPTHS]).rstrip()


def kept_row(depth: int) -> dict[str, Any]:
    """What the forward of an MLP keeps for its backward, and the peak, as `profile` predicts."""
    workload = build("mlp", depth=depth, **MLP)
    found = profile(workload.loss, *workload.specs())
    return {
        "layers": depth,
        "kept_nbytes": sum(row["kept_nbytes"] for row in found.rows()),
        "peak_nbytes": found.simulated.peak,
        "parameters_nbytes": workload.parameter_nbytes,
    }


TRADE = {"depth": DEPTHS[-1], "width": 64, "batch": 512}
"""Small enough to be run on the spot; one activation is still 128 KiB."""
PLANS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("store_all", {}), ("sqrt", {}), ("revolve", {"slots": 5}), ("revolve", {"slots": 3}),
)  # fmt: skip


def the_trade() -> Iterator[str]:
    yield "6. What checkpointing trades"
    yield paragraph(f"""
        An activation that was let go can be had again: compute it again from an earlier one
        that was kept, a snapshot. Less memory, more FLOPs, and the gradients stay the same,
        bit for bit. Three ways for {TRADE["depth"]} layers of width {TRADE["width"]} and
        batch {TRADE["batch"]}: keep all; keep the boundaries of about sqrt(n) segments, and
        compute each segment once more; or keep a handful of snapshots and place them anew as
        the backward proceeds (revolve:5 has five slots for them). Each was predicted from
        shapes alone, and then run just now while tracemalloc watched.
    """)
    rows = trade_rows()
    yield ""
    yield render(rows).rstrip()
    least, first = rows[-1], rows[0]
    less = first["measured_peak_nbytes"] / least["measured_peak_nbytes"]
    yield paragraph(f"""
        From the first line to the last: {less:.1f} times less memory, for
        {least["step_flops"] / first["step_flops"]:.2f} times the FLOPs of a step. With sqrt,
        a step has {rows[1]["step_flops"] / first["step_flops"]:.2f} times the FLOPs: that is
        the bargain that @ckpt.checkpoint offers.
    """)


def trade_rows() -> list[dict[str, Any]]:
    """Some planners' schedules of one MLP: simulated, then executed under tracemalloc."""
    workload = build("mlp", **TRADE)
    program = workload.trace()
    arrays = workload.arrays()
    stored = ""
    rows = []
    for planner, options in PLANS:
        schedule = make_schedule(program.graph, planner, **options)
        timeline = simulate(program.graph, schedule)
        run = execute(program, schedule, *arrays, trace_memory=True)
        found = program.digest(run.result)
        stored = stored or found
        rows.append(
            {
                "planner": ":".join([planner, *map(str, options.values())]),
                "predicted_peak_nbytes": timeline.peak,
                "measured_peak_nbytes": run.timeline.peak,
                "recompute_flops": timeline.recompute_flops,
                "overhead": timeline.overhead,
                "step_flops": timeline.step_flops,
                "gradients_equal": found == stored,
            }
        )
    return rows


CHAPTERS = (one_graph, two_ways, why_reverse, twice_forward, must_keep, the_trade)


def lesson(say: Callable[[str], None] = print) -> None:
    """Teach reverse mode, a chapter a screen; ``say`` is handed the lines."""
    for chapter in CHAPTERS:
        title, *lines = chapter()
        say(f"{title}\n{'=' * len(title)}")
        for line in lines:
            say(line)
        say("\n")
