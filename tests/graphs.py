"""A zoo of small graphs made by hand, without the tape: pure Nodes, so that planners can be tested
on every shape a program may take. `zoo()` names them all; `random_graph` and `graphs` make more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random
from typing import Any

from hypothesis import strategies as st

from ckpt.graph import BackwardRow, BackwardStep, Graph, Node


@dataclass
class Flow:
    """What the Backward of a node does, in the tape's words: see `tape.traced.flow`."""

    reads: tuple[int, ...] = ()
    flops: int = 0
    kinds: tuple[str | None, ...] = ()
    """Of cotangent, for each dep."""
    workspace: int = 0
    """While each dep's cotangent is made."""


def step_of(graph: Graph, label: str) -> BackwardStep:
    """The first backward step of that label."""
    return next(step for step in graph.steps if step.label == label)


class Build:
    """Adds nodes one at a time; every method returns the new node's position."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.flows: list[Flow] = []
        self.regions: tuple[int, ...] = ()

    def _add(self, node: Node, flow: Flow | None = None) -> int:
        self.nodes.append(replace(node, regions=self.regions))
        self.flows.append(flow or Flow())
        return len(self.nodes) - 1

    def resident(self, nbytes: int = 8, *, grad: bool = True, name: str = "w") -> int:
        node = Node(name=name, op="input", nbytes=nbytes, resident=True, requires_grad=grad)
        return self._add(replace(node, shape=(nbytes,), dtype="uint8"))

    def captured(self, nbytes: int = 8, *, name: str = "mask") -> int:
        node = Node(name=name, op="captured", nbytes=nbytes, captured=True, requires_grad=False)
        return self._add(replace(node, shape=(nbytes,), dtype="uint8"))

    def op(
        self,
        op: str,
        *deps: int,
        nbytes: int = 8,
        flops: int = 8,
        reads: Sequence[int | str] = (),
        kinds: Sequence[str | None] | str = "fresh",
        work: int = 0,
        backward_work: int = 0,
        view: bool = False,
        keep: bool = False,
        grad: bool = True,
    ) -> int:
        """``reads``: residuals, indices into ``deps`` or ``"out"``; ``kinds``: of cotangents."""
        here = len(self.nodes)
        kinds = [kinds] * len(deps) if isinstance(kinds, str) else list(kinds)
        wants = [grad and self.nodes[d].requires_grad for d in deps]
        return self._add(
            Node(
                name=f"{op}{here}",
                op=op,
                deps=deps,
                shape=(nbytes,),
                dtype="uint8",
                nbytes=nbytes,
                flops=0 if view else flops,
                requires_grad=any(wants),
                workspace=work,
                alias_of=deps[0] if view else None,
                keep=keep,
            ),
            Flow(
                reads=tuple(dict.fromkeys(here if r == "out" else deps[int(r)] for r in reads)),
                flops=2 * flops,
                kinds=tuple(k if w else None for k, w in zip(kinds, wants, strict=True)),
                workspace=backward_work,
            ),
        )

    def graph(self, *losses: int, outputs: Sequence[int] = (), name: str = "") -> Graph:
        steps, rows = Backwards(self.nodes, self.flows).run(losses)
        return Graph(tuple(self.nodes), tuple(steps), tuple(rows), (*losses, *outputs), name=name)


@dataclass
class _Buffer:
    whose: int
    nbytes: int
    first: int
    kind: str = "cotangent"
    shares: int = 1


class Backwards:
    """The backward of such nodes, performed once on bytes: what `tape.traced.flow` does."""

    def __init__(self, nodes: Sequence[Node], flows: Sequence[Flow]) -> None:
        self.nodes = nodes
        self.flows = flows
        self.steps: list[BackwardStep] = []
        self.rows: list[BackwardRow] = []
        self.live = 0
        self.own: set[int] = set()
        self.buffers: dict[int, _Buffer] = {}
        self.gradients: dict[int, int] = {}

    def run(self, losses: Sequence[int]) -> tuple[list[BackwardStep], list[BackwardRow]]:
        for loss in losses:
            if self.nodes[loss].resident:
                self.gradients[loss] = 0
            else:
                self.buffers[loss] = self._make(loss, self.nodes[loss].nbytes, "seed")
                self.own.add(loss)
        for i in range(len(self.nodes) - 1, -1, -1):
            if i in self.buffers and self.nodes[i].requires_grad:
                self._backward(i)
        for leaf, first in self.gradients.items():
            self._row("gradient", self.nodes[leaf].nbytes, first, len(self.steps), leaf)
        return self.steps, self.rows

    def _backward(self, i: int) -> None:
        node, flow = self.nodes[i], self.flows[i]
        incoming, during = self.buffers[i], self.live
        for dep, kind in zip(node.deps, flow.kinds, strict=True):
            if kind is not None:
                work = flow.workspace + self._contribute(dep, kind, incoming)
                during = max(during, self.live + work)
        self._let_go(incoming)
        del self.buffers[i]
        self.own.discard(i)
        self.steps.append(
            BackwardStep(label=node.op, reads=flow.reads, flops=flow.flops, during=during, at=i)
        )

    def _contribute(self, dep: int, kind: str, incoming: _Buffer) -> int:
        nbytes = self.nodes[dep].nbytes
        added = nbytes if kind == "fresh" else 0
        if self.nodes[dep].resident:
            if dep in self.gradients:
                return added
            self.gradients[dep] = len(self.steps)
            return 0
        if dep not in self.buffers:
            if kind in ("handed", "view"):
                incoming.shares += 1
                self.buffers[dep] = incoming
                return 0
            self.buffers[dep] = self._make(dep, 2 if kind == "spread" else nbytes)
            if kind != "spread":
                self.own.add(dep)
            return 0
        if dep in self.own:
            return added
        old = self.buffers[dep]
        self.buffers[dep] = self._make(dep, nbytes)
        self.own.add(dep)
        return self._let_go(old)

    def _make(self, whose: int, nbytes: int, kind: str = "cotangent") -> _Buffer:
        self.live += nbytes
        return _Buffer(whose, nbytes, len(self.steps), kind)

    def _let_go(self, buffer: _Buffer) -> int:
        buffer.shares -= 1
        here = len(self.steps)
        if not buffer.shares or buffer.kind == "seed":
            if buffer.first < here or buffer.kind == "seed":
                self._row(buffer.kind, buffer.nbytes, buffer.first, here, buffer.whose)
            buffer.kind, buffer.first = "cotangent", here
        if buffer.shares:
            return 0
        self.live -= buffer.nbytes
        return buffer.nbytes

    def _row(self, kind: Any, nbytes: int, first: int, last: int, whose: int) -> None:
        row = BackwardRow(kind=kind, nbytes=nbytes, first=first, last=last, whose=whose)
        self.rows.append(row)


def unit_chain(n: int) -> Graph:
    """n stages of one byte and one FLOP; each Backward reads its input. Revolve's own setting."""
    b = Build()
    x = b.resident(1, grad=False, name="x")
    for _ in range(n):
        x = b.op("step", x, nbytes=1, flops=1, reads=[0])
        b.nodes[x] = replace(b.nodes[x], requires_grad=True)
    return b.graph(x, name=f"unit chain {n}")


def uneven_chain(sizes: Sequence[int], flops: Sequence[int]) -> Graph:
    """One node a stage, of given bytes and FLOPs; each Backward reads its output."""
    b = Build()
    x = b.resident(sizes[0], name="x")
    for nbytes, cost in zip(sizes, flops, strict=True):
        x = b.op("step", x, nbytes=nbytes, flops=cost, reads=["out"], work=1, backward_work=1)
    return b.graph(x, name=f"uneven chain {len(sizes)}")


def chain(
    n: int, nbytes: int = 64, tape_nbytes: int = 128, flops: int = 100, workspace: int = 0
) -> Graph:
    """n equal stages of three nodes: a wide residual, a temporary that none reads, the output."""
    b = Build()
    x = b.resident(nbytes, grad=False, name="x")
    for _ in range(n):
        w = b.resident(16)
        wide = b.op("expand", x, w, nbytes=tape_nbytes, flops=flops, reads=[0, 1], work=workspace)
        shifted = b.op("shift", wide, nbytes=tape_nbytes, flops=4, kinds="handed")
        x = b.op("squash", shifted, nbytes=nbytes, flops=8, reads=["out"], backward_work=workspace)
    loss = b.op("sum", x, nbytes=8, flops=8, kinds="view")
    return b.graph(loss, name=f"chain {n}")


def mlp(widths: Sequence[int], batch: int = 4) -> Graph:
    """matmul, bias, tanh a layer; widths may differ."""
    b = Build()
    x = b.resident(4 * batch * widths[0], grad=False, name="x")
    for d, k in pairwise(widths):
        w, bias = b.resident(4 * d * k), b.resident(4 * k, name="b")
        h = b.op("matmul", x, w, nbytes=4 * batch * k, flops=2 * batch * d * k, reads=[0, 1])
        h = b.op("add", h, bias, nbytes=4 * batch * k, flops=batch * k, kinds=["handed", "fresh"])
        x = b.op(
            "tanh", h, nbytes=4 * batch * k, flops=batch * k, reads=["out"],
            backward_work=4 * batch * k,
        )  # fmt: skip
    loss = b.op("mean", x, nbytes=8, flops=batch * widths[-1], kinds="view")
    return b.graph(loss, name="mlp")


def residual_net(n: int, nbytes: int = 32) -> Graph:
    """Blocks x + f(x): the skip passes through the block."""
    b = Build()
    x = b.op("embed", b.resident(nbytes), b.resident(8), nbytes=nbytes, flops=50, reads=[0, 1])
    for _ in range(n):
        w = b.resident(16)
        h = b.op("matmul", x, w, nbytes=2 * nbytes, flops=200, reads=[0, 1], work=8)
        h = b.op("relu", h, nbytes=2 * nbytes, flops=10, reads=["out"])
        h = b.op("matmul", h, b.resident(16), nbytes=nbytes, flops=200, reads=[0, 1])
        x = b.op("add", x, h, nbytes=nbytes, flops=10, kinds="handed")
    loss = b.op("sum", x, nbytes=8, flops=10, kinds="view")
    return b.graph(loss, name=f"residual net {n}")


def unet(depth: int, nbytes: int = 256) -> Graph:
    """Long skips: level k of the way down is read again by level k of the way up."""
    b = Build()
    x = b.resident(nbytes, grad=False, name="x")
    skips, size = [], nbytes
    for _ in range(depth):
        x = b.op("conv", x, b.resident(16), nbytes=size, flops=4 * size, reads=[0, 1], work=size)
        x = b.op("relu", x, nbytes=size, flops=size, reads=["out"])
        skips.append((x, size))
        size = max(size // 2, 1)
        x = b.op("pool", x, nbytes=size, flops=2 * size)
    for skip, wide in reversed(skips):
        x = b.op("up", x, nbytes=wide, flops=wide)
        x = b.op("concat", x, skip, nbytes=2 * wide, flops=0, kinds="view")
        x = b.op("conv", x, b.resident(16), nbytes=wide, flops=8 * wide, reads=[0, 1])
        x = b.op("relu", x, nbytes=wide, flops=wide, reads=["out"])
    loss = b.op("sum", x, nbytes=8, flops=nbytes, kinds="view")
    return b.graph(loss, name=f"unet {depth}")


def lstm(steps: int, nbytes: int = 16) -> Graph:
    """Two values cross each cut, h and c; the weights are shared by all steps."""
    b = Build()
    w, u = b.resident(64, name="w"), b.resident(64, name="u")
    h = b.op("zeros", b.resident(nbytes), nbytes=nbytes, flops=0, kinds="handed")
    c = b.op("zeros", b.resident(nbytes), nbytes=nbytes, flops=0, kinds="handed")
    for _ in range(steps):
        x = b.resident(nbytes, grad=False, name="x")
        a = b.op("matmul", x, w, nbytes=4 * nbytes, flops=300, reads=[0])
        r = b.op("matmul", h, u, nbytes=4 * nbytes, flops=300, reads=[0, 1])
        gates = b.op("add", a, r, nbytes=4 * nbytes, flops=64, kinds="handed")
        gates = b.op("sigmoid", gates, nbytes=4 * nbytes, flops=128, reads=["out"])
        forget = b.op("item", gates, nbytes=nbytes, view=True, kinds="part")
        update = b.op("item", gates, nbytes=nbytes, view=True, kinds="part")
        left = b.op("multiply", c, forget, nbytes=nbytes, flops=16, reads=[0, 1])
        c = b.op("add", left, update, nbytes=nbytes, flops=16, kinds="handed")
        squashed = b.op("tanh", c, nbytes=nbytes, flops=16, reads=["out"])
        h = b.op("multiply", squashed, update, nbytes=nbytes, flops=16, reads=[0, 1])
    loss = b.op("sum", h, nbytes=8, flops=16, kinds="view")
    return b.graph(loss, name=f"lstm {steps}")


def views(n: int, nbytes: int = 48) -> Graph:
    """Reshapes and transposes: the view crosses the cut, and the owner is a residual too."""
    b = Build()
    x = b.op("embed", b.resident(8), nbytes=nbytes, flops=20)
    for _ in range(n):
        h = b.op("exp", x, nbytes=nbytes, flops=48, reads=["out"])
        t = b.op("transpose", h, nbytes=nbytes, view=True, kinds="view")
        t = b.op("reshape", t, nbytes=nbytes, view=True, kinds="view")
        x = b.op("matmul", t, b.resident(16), nbytes=nbytes, flops=99, reads=[0, 1], work=nbytes)
    loss = b.op("sum", x, nbytes=8, flops=16, kinds="view")
    return b.graph(loss, name=f"views {n}")


def masked(n: int, nbytes: int = 40) -> Graph:
    """Each layer multiplies by a captured mask, the first mask is read again at the end."""
    b = Build()
    x = b.op("embed", b.resident(8), nbytes=nbytes, flops=20)
    first = b.captured(nbytes)
    wide = b.op("broadcast_to", first, nbytes=nbytes, view=True)
    for layer in range(n):
        x = b.op("tanh", x, nbytes=nbytes, flops=40, reads=["out"])
        mask = wide if layer == 0 else b.captured(nbytes)
        x = b.op("multiply", x, mask, nbytes=nbytes, flops=40, reads=[1])
        b.op("debug", x, nbytes=nbytes, flops=999)  # nobody reads it: it is never computed
    x = b.op("multiply", x, first, nbytes=nbytes, flops=40, reads=[1])
    loss = b.op("sum", x, nbytes=8, flops=40, kinds="view")
    return b.graph(loss, name=f"masked {n}")


def several_losses(n: int, nbytes: int = 24) -> Graph:
    """A loss every second layer, and an inner value asked for as an output."""
    b = Build()
    x = b.op("embed", b.resident(nbytes), nbytes=nbytes, flops=20, kinds="handed")
    losses, inner = [], x
    for layer in range(n):
        x = b.op("matmul", x, b.resident(16), nbytes=nbytes, flops=90, reads=[0, 1])
        x = b.op("tanh", x, nbytes=nbytes, flops=24, reads=["out"])
        if layer % 2:
            losses.append(b.op("sum", x, nbytes=8, flops=24, kinds="view"))
        if layer == n // 2:
            inner = x
    losses.append(b.op("sum", x, nbytes=8, flops=24, kinds="view"))
    return b.graph(*losses, outputs=[inner], name=f"several losses {n}")


def used_later(n: int, nbytes: int = 24) -> Graph:
    """The first value is read again by the last layer, n steps later."""
    b = Build()
    first = x = b.op("embed", b.resident(nbytes), nbytes=nbytes, flops=20, reads=[0])
    for _ in range(n):
        x = b.op("exp", x, nbytes=nbytes, flops=24, reads=["out"], work=4)
    x = b.op("multiply", x, first, nbytes=nbytes, flops=24, reads=[0, 1])
    loss = b.op("sum", x, nbytes=8, flops=24, kinds="view")
    return b.graph(loss, name=f"used later {n}")


def broadcast(n: int, nbytes: int = 64) -> Graph:
    """A small value broadcast into each layer, detached branches, an integer argmax."""
    b = Build()
    small = b.op("mean", b.resident(nbytes), nbytes=4, flops=64, kinds="view")
    x = b.op("embed", b.resident(nbytes), nbytes=nbytes, flops=10, kinds="handed")
    for _ in range(n):
        best = b.op("argmax", x, nbytes=8, flops=64, grad=False)
        y = b.op("add", x, small, nbytes=nbytes, flops=16, kinds=["handed", "fresh"])
        x = b.op("scale", y, best, nbytes=nbytes, flops=32, reads=[0, 1], backward_work=nbytes)
    loss = b.op("sum", x, nbytes=8, flops=64, kinds="view")
    return b.graph(loss, name=f"broadcast {n}")


def with_regions(n: int, nbytes: int = 32) -> Graph:
    """As a user of `@checkpoint` writes it: n regions, every second one nested, one value kept."""
    b = Build()
    x = b.op("embed", b.resident(nbytes), nbytes=nbytes, flops=20, reads=[0])
    mask = b.captured(nbytes)
    for layer in range(n):
        b.regions = (10 * layer + 1,)
        x = b.op(
            "matmul", x, b.resident(16), nbytes=nbytes, flops=90, reads=[0, 1], keep=layer == 0
        )
        x = b.op("multiply", x, mask, nbytes=nbytes, flops=32, reads=[1])
        if layer % 2:
            b.regions = (10 * layer + 1, 10 * layer + 2)
            inner = b.op("exp", x, nbytes=2 * nbytes, flops=32, reads=["out"])
            flat = b.op("reshape", inner, nbytes=2 * nbytes, view=True, kinds="view")
            x = b.op("matmul", flat, b.resident(8), nbytes=nbytes, flops=90, reads=[0, 1])
            b.regions = (10 * layer + 1,)
        x = b.op("tanh", x, nbytes=nbytes, flops=32, reads=["out"])
        b.regions = ()
    loss = b.op("sum", x, nbytes=8, flops=32, kinds="view")
    return b.graph(loss, name=f"with regions {n}")


def single() -> Graph:
    """One node: nothing to cut."""
    b = Build()
    return b.graph(b.op("sum", b.resident(8), nbytes=8, flops=8, kinds="view"), name="single")


def random_graph(rng: Random, n: int = 12) -> Graph:
    """n operations on a few leaves, with every kind of cotangent, view, workspace and leaf."""
    b = Build()
    pool = [b.resident(rng.randint(1, 20), grad=True)]
    pool += [
        b.resident(rng.randint(1, 20), grad=rng.random() < 0.7) for _ in range(rng.randint(0, 2))
    ]
    for _ in range(n):
        if rng.random() < 0.1:
            pool.append(b.captured(rng.randint(1, 20)))
        if rng.random() < 0.1:
            pool.append(b.resident(rng.randint(1, 20), grad=rng.random() < 0.7))
        recent = pool[-3:] if rng.random() < 0.7 else pool
        deps = list(dict.fromkeys(rng.choice(recent) for _ in range(rng.randint(1, 3))))
        view = rng.random() < 0.2
        choices: list[int | str] = [*range(len(deps)), "out"]
        pool.append(
            b.op(
                "view" if view else "op",
                *deps,
                nbytes=rng.randint(1, 20),
                flops=rng.randint(0, 20),
                reads=[c for c in choices if rng.random() < 0.4],
                kinds=[
                    rng.choice([*["fresh", "handed"] * 4, "view", "spread", "part", None])
                    for _ in deps
                ],
                work=rng.choice([0, 0, 5]),
                backward_work=rng.choice([0, 0, 5]),
                view=view,
            )
        )
    computed = [p for p in pool if not b.nodes[p].resident and not b.nodes[p].captured]
    able = [p for p in computed if b.nodes[p].requires_grad]
    losses = list(
        dict.fromkeys([able[-1] if able else computed[-1], *rng.sample(able, len(able) > 4)])
    )
    return b.graph(*losses, outputs=rng.sample(computed, rng.random() < 0.3), name="random")


def graphs(max_nodes: int = 16) -> st.SearchStrategy[Graph]:
    """Random DAGs that shrink."""
    randoms = st.randoms(use_true_random=False)
    return st.builds(random_graph, randoms, st.integers(1, max_nodes))


ZOO: dict[str, Callable[[], Graph]] = {
    "unit_chain": lambda: unit_chain(12),
    "uneven_chain": lambda: uneven_chain([8, 3, 12, 5, 9, 2, 14, 6], [5, 9, 2, 40, 7, 7, 1, 3]),
    "chain": lambda: chain(9, workspace=16),
    "mlp": lambda: mlp([6, 8, 8, 16, 8, 8, 4]),
    "residual_net": lambda: residual_net(6),
    "unet": lambda: unet(4),
    "lstm": lambda: lstm(6),
    "views": lambda: views(6),
    "masked": lambda: masked(6),
    "several_losses": lambda: several_losses(6),
    "used_later": lambda: used_later(12),
    "broadcast": lambda: broadcast(6),
    "with_regions": lambda: with_regions(5),
    "random_22": lambda: random_graph(Random(22), 22),
    "random_23": lambda: random_graph(Random(23), 22),
    "single": single,
}


def zoo() -> dict[str, Graph]:
    """Every graph of the zoo by name, made afresh."""
    return {name: make() for name, make in ZOO.items()}
