"""A Program written by hand, without the tape: all that a new front end owes.

x, sin(x), sin(sin(x)) and so on, and the sum of the last one. Everything above the front ends takes
it as it takes a traced NumPy function.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import pytest

import ckpt
from ckpt.graph import BackwardRow, BackwardStep, Graph, Node
from ckpt.program import Observer, Program
from ckpt.schedule import Backward, Compute, Free, Schedule
from ckpt.witness import Tracemalloc


class Sines:
    """See `ckpt.Program`."""

    def __init__(self, depth: int, size: int) -> None:
        self.graph, self.witness = graph_of(depth, 8 * size), Tracemalloc()

    def plain(self, x: Any) -> Any:
        kept = [x]
        for _ in range(len(self.graph) - 2):
            kept.append(np.sin(kept[-1]))
        loss, g = np.sum(kept[-1]), np.ones_like(x)
        for h in reversed(kept[:-1]):
            g = np.multiply(g, c := np.cos(h), out=c)
        return loss, g

    def execute(self, schedule: Schedule, x: Any, observe: Observer | None = None) -> Any:
        values: dict[int, Any] = {0: x}
        g, done = None, 0
        for position, instruction in enumerate(schedule):
            if observe is not None:
                observe.before(position)
            match instruction:
                case Compute(node):
                    function = np.sum if self.graph[node].op == "sum" else np.sin
                    values[node] = function(values[node - 1])
                case Free(node):
                    del values[node]
                case Backward(0):
                    g, done = np.ones_like(x), 1
                case Backward(step):
                    g = np.multiply(g, c := np.cos(values[len(self.graph) - 2 - step]), out=c)
                    del c
                    done += 1
                case _:
                    assert_never(instruction)
            if observe is not None:
                observe.after(position, partial(self.count, values, g, done))
        return values[len(self.graph) - 1], g

    def count(self, values: dict[int, Any], g: Any, done: int) -> tuple[list[int], int]:
        held = 0 if g is None else g.nbytes
        rests = done == len(self.graph.steps)
        forward = sum(value.nbytes for node, value in values.items() if node)
        return [forward, 0, 0, 0 if rests else held, held if rests else 0], 0

    def compile(self, schedule: Schedule) -> Any:
        step: Any = partial(self.execute, schedule)
        step.nbytes = step.code_nbytes = 0
        step.release = lambda: None
        return step

    def measure(self, step: Any, *args: Any) -> tuple[Any, int]:
        return self.witness.of(step, *args)

    def restored(self, *args: Any) -> AbstractContextManager[Any]:
        return nullcontext()

    def digest(self, result: Any) -> str:
        return hashlib.sha256(b"".join(np.asarray(part).tobytes() for part in result)).hexdigest()


def graph_of(depth: int, nbytes: int) -> Graph:
    """Each step but the first reads one value; its cosine becomes the new cotangent in place."""
    nodes = [Node(name="x", op="input", nbytes=nbytes, resident=True)]
    for k in range(1, depth + 1):
        nodes.append(Node(name=f"h{k}", op="sin", deps=(k - 1,), nbytes=nbytes, flops=nbytes // 8))
    nodes.append(Node(name="loss", op="sum", deps=(depth,), nbytes=8, flops=nbytes // 8))
    steps = [BackwardStep(label="sum", during=nbytes, at=depth + 1)]
    rows = []
    for k in range(depth, 0, -1):
        steps.append(BackwardStep(label="sin", reads=(k - 1,), flops=9, during=2 * nbytes, at=k))
        first = depth - k
        rows.append(
            BackwardRow(kind="cotangent", nbytes=nbytes, first=first, last=first + 1, whose=k)
        )
    gradient = BackwardRow(kind="gradient", nbytes=nbytes, first=depth, last=depth + 1, whose=0)
    return Graph(
        tuple(nodes),
        tuple(steps),
        (*rows, gradient),
        (depth + 1,),
        gradients="appear",
        name="sines",
    )


SIZE = 40_000
X = np.linspace(0, 3, SIZE)
PROGRAM = Sines(16, SIZE)


def test_it_is_a_program() -> None:
    assert isinstance(PROGRAM, Program)
    assert not isinstance(object(), Program)
    numeric = (PROGRAM.plain(X + 1e-6)[0] - PROGRAM.plain(X - 1e-6)[0]) / 2e-6
    assert PROGRAM.plain(X)[1].sum() == pytest.approx(numeric, rel=1e-6)


@pytest.mark.parametrize("planner", ["store_all", "recompute_all", "sqrt", "revolve", "chain"])
def test_simulated_and_executed_agree_to_the_byte(planner: str) -> None:
    schedule = ckpt.make_schedule(PROGRAM.graph, planner)
    predicted = ckpt.simulate(PROGRAM.graph, schedule)
    run = ckpt.execute(PROGRAM, schedule, X, trace_memory=True)
    assert predicted.same_live_bytes(run.timeline) is None
    assert run.timeline.peak == pytest.approx(predicted.peak, rel=0.01)
    assert PROGRAM.digest(run.result) == PROGRAM.digest(PROGRAM.plain(X))


def test_profile(tmp_path: Path) -> None:
    found = ckpt.profile(PROGRAM, X, planner="sqrt")
    assert found.measured is not None
    assert found.measured.peak == pytest.approx(found.simulated.peak, rel=0.02)
    assert found.simulated.recompute_flops > 0
    assert found.eager_peak_nbytes == pytest.approx(17 * X.nbytes, rel=0.2)
    assert "sines" in str(found)
    assert sum(row["kept_nbytes"] for row in found.rows()) == 15 * X.nbytes
    assert found.plot(tmp_path / "profile.png").stat().st_size > 10_000


def test_plan_and_verify(tmp_path: Path) -> None:
    step = ckpt.plan(PROGRAM, X, budget="40%")
    loss, gradient = step(X)
    assert (loss, gradient.tobytes()) == (PROGRAM.plain(X)[0], PROGRAM.plain(X)[1].tobytes())
    found = step.verify(X)
    assert found.equal
    assert found.measured <= found.promised * 1.01 + 64 * 1024 + 768 * 18
    assert step.plot(tmp_path / "plan.svg").stat().st_size > 10_000
    step.save(tmp_path / "plan.json")
    again = ckpt.load_plan(tmp_path / "plan.json").bind(PROGRAM)
    assert again(X)[0] == loss
    with pytest.raises(ckpt.UsageError, match="another program"):
        ckpt.load_plan(tmp_path / "plan.json").bind(Sines(15, SIZE))


def test_a_step_that_lies_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results that differ in one bit, and a peak above the promise: verify says so."""
    step = ckpt.plan(PROGRAM, X, budget="40%")
    monkeypatch.setattr(Sines, "plain", lambda self, x: (np.float64(1.0), x))
    with pytest.raises(ckpt.VerificationError, match="differ"):
        step.verify(X)
    monkeypatch.undo()
    greedy = Sines(16, SIZE)
    monkeypatch.setattr(greedy, "measure", lambda step, *args: (step(*args), 10**9))
    with pytest.raises(ckpt.VerificationError, match="exceeds the promised"):
        ckpt.plan(greedy, X, budget="40%").verify(X)


def test_costs() -> None:
    assert ckpt.plan(PROGRAM, X, budget="40%", cost="seconds").certificate.unit == "nanoseconds"
    assert "NFLOP" not in str(ckpt.plan(PROGRAM, X, budget="40%", cost="seconds"))


def test_frontier(tmp_path: Path) -> None:
    found = ckpt.frontier(PROGRAM, X, planners=["sqrt", "chain", "dtr"], points=4)
    measured = [row for row in found.rows if row["measured_peak_nbytes"] is not None]
    assert measured
    for row in measured:
        assert row["measured_peak_nbytes"] == pytest.approx(row["predicted_peak_nbytes"], rel=0.02)
    assert found.plot(tmp_path / "frontier.png").stat().st_size > 10_000


def test_a_graph_alone_is_enough_where_nothing_runs(tmp_path: Path) -> None:
    graph = PROGRAM.graph
    assert ckpt.profile(graph, planner="sqrt").measured is None
    assert ckpt.frontier(graph, planners=["chain"], points=3).best()
    plan = ckpt.plan(graph, budget="40%")
    assert not callable(plan)
    assert plan.timeline.peak <= 0.4 * ckpt.profile(graph, planner="store_all").simulated.peak
    plan.save(tmp_path / "plan.json")
    assert ckpt.load_plan(tmp_path / "plan.json").bind(PROGRAM)(X)[0] == PROGRAM.plain(X)[0]
    with pytest.raises(ckpt.UsageError, match="shapes alone"):
        ckpt.profile(graph, measure=True)
    with pytest.raises(ckpt.UsageError, match="'seconds'"):
        ckpt.plan(graph, cost="seconds")
