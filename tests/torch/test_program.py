"""A captured function is a Program: live bytes, peak and bits, for every schedule."""

from __future__ import annotations

from collections import deque

import pytest

pytest.importorskip("torch")
import torch

import ckpt
from ckpt.program import Program
from ckpt.torch.capture.kernels import Ref
from ckpt.torch.capture.record import AtenCall
from ckpt.torch.lowering.backward import stand_in
from ckpt.torch.run.bindings import bound
from ckpt.torch.run.program import TorchProgram
from tests.torch.programs import PROGRAMS

PLANNERS = ("store_all", "recompute_all", "sqrt", "chain", "dtr", "dtr@80%")
NEAR = 16
"""Bytes by which a measured peak may differ from the predicted one."""


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_schedule_gives_the_plain_bits_within_its_predicted_peak(name: str) -> None:
    function, args = PROGRAMS[name]()
    program = TorchProgram(function, args)
    assert isinstance(program, Program)
    with program.restored(*args):
        plain = program.digest(program.plain(*args))
    stored = ckpt.simulate(program.graph, ckpt.make_schedule(program.graph, "store_all"))
    for planner in PLANNERS:
        try:
            stem, budget, _ = planner.partition("@")
            limit = round(0.8 * stored.peak) if budget else None
            schedule = ckpt.make_schedule(program.graph, stem, limit)
        except (ckpt.UsageError, ckpt.BudgetError):
            continue
        predicted = ckpt.simulate(program.graph, schedule)
        with program.restored(*args):
            run = ckpt.execute(program, schedule, *args)
        assert predicted.same_live_bytes(run.timeline) is None, planner
        with program.restored(*args):
            result, peak = program.measure(program.compile(schedule), *args)
        assert program.digest(run.result) == program.digest(result) == plain, planner
        assert abs(peak - predicted.peak) <= NEAR, planner


def test_gradients_that_exist_are_added_to() -> None:
    function, args = PROGRAMS["residual"]()
    new, added = TorchProgram(function, args), TorchProgram(function, args, accumulate=True)
    peaks = {}
    for key, program in (("new", new), ("added", added)):
        schedule = ckpt.make_schedule(program.graph, "dtr")
        predicted = ckpt.simulate(program.graph, schedule)
        with program.restored(*args):
            plain = program.digest(program.plain(*args))
        with program.restored(*args):
            run = ckpt.execute(program, schedule, *args)
        assert predicted.same_live_bytes(run.timeline) is None
        with program.restored(*args):
            result, peaks[key] = program.measure(program.compile(schedule), *args)
        assert program.digest(result) == program.digest(run.result) == plain
        assert abs(peaks[key] - predicted.peak) <= NEAR
    assert peaks["added"] < peaks["new"]
    assert added.graph.gradient_nbytes == max(new.graph.rested)


def test_nothing_is_run_and_nothing_changes_while_a_step_is_captured() -> None:
    calls: deque[str] = deque()
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8))
    x = torch.randn(4, 8)

    def loss(x: torch.Tensor) -> torch.Tensor:
        calls.append(type(x).__name__)
        return model(x).square().mean()

    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    program = TorchProgram(loss, (x,))
    assert list(calls) == ["FakeTensor", "FakeTensor"]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())
    program.compile(ckpt.make_schedule(program.graph, "recompute_all"))(x)
    assert len(calls) == 2
    assert model[1].num_batches_tracked == 1  # once, however often the norm was recomputed


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_peak_of_the_plain_step_is_predicted(name: str) -> None:
    function, args = PROGRAMS[name]()
    program = TorchProgram(function, args)
    before = torch.get_rng_state()
    predicted = program.eager_peak
    assert torch.equal(before, torch.get_rng_state())
    with program.restored(*args):
        measured = program.measure(program.plain, *args)[1]
    assert abs(predicted - measured) <= NEAR


def test_a_graph_is_data_and_the_same_each_time() -> None:
    function, args = PROGRAMS["mlp"]()
    program = TorchProgram(function, args)
    assert program.eager_peak == program.measure(program.plain, *args)[1]
    assert ckpt.Graph.from_json(program.graph.to_json()) == program.graph
    assert program.graph.digest == TorchProgram(function, args).graph.digest


def test_steps_and_nodes_say_module_and_line() -> None:
    function, args = PROGRAMS["gpt"]()
    graph = TorchProgram(function, args).graph
    gelu = next(k for k, node in enumerate(graph) if node.op == "gelu")
    assert graph[gelu].scope == "blocks.0.mlp.1"
    assert graph[gelu].source.startswith("programs.py:")
    assert any(step.label == "gelu" and step.at == gelu for step in graph.steps)
    assert "wte.weight" in {node.name for node in graph if node.resident}


def test_a_convolutions_input_is_gone_before_the_gradient_of_its_size_is_made() -> None:
    """Beside the plain step, whose kernels come in one call, that is the input's bytes less."""
    first, second = torch.nn.Conv2d(3, 16, 1), torch.nn.Conv2d(16, 2, 3, padding=1)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return second(first(x)).square().mean()

    x = torch.randn(2, 3, 40, 40)
    program = TorchProgram(loss, (x,))
    schedule = ckpt.make_schedule(program.graph, "store_all")
    plain, own = program.measure(program.plain, x)
    found, peak = program.measure(program.compile(schedule), x)
    assert program.digest(found) == program.digest(plain)
    assert abs(peak - ckpt.simulate(program.graph, schedule).peak) <= NEAR
    assert peak < own - 0.5 * 2 * 16 * 40 * 40 * 4


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("width", "kernel", "stride", "padding", "dilation", "groups"),
    [(4, 3, 1, 1, 1, 1), (8, 1, 1, 0, 1, 1), (8, 3, 2, 1, 1, 4), (8, 3, 1, 2, 2, 1),
     (6, 3, 1, 1, 1, 6), (8, 1, 2, 0, 1, 1)],
)  # fmt: skip
def test_both_halves_of_a_convolutions_backward_give_its_bits(
    width: int, kernel: int, stride: int, padding: int, dilation: int, groups: int,
    dtype: torch.dtype, channels_last: bool,
) -> None:  # fmt: skip
    function = torch.ops.aten.convolution_backward.default
    for dims in (1, 2, 3):
        x = torch.randn(2, width, *(9,) * dims, dtype=dtype)
        if channels_last and dims == 2:
            x = x.to(memory_format=torch.channels_last)
        w = torch.randn(2 * width, width // groups, *(kernel,) * dims, dtype=dtype)
        options = [[n] * dims for n in (stride, padding, dilation)]
        rest = ([2 * width], *options, False, [0] * dims, groups)
        g = torch.randn_like(torch.convolution(x, w, None, *rest[1:]))
        gi, gw, gb = function(g, x, w, *rest, [True] * 3)
        _, *others = function(g, x, w, *rest, [False, True, True])
        shape = stand_in(dtype, tuple(x.size()), tuple(x.stride()))
        assert torch.equal(gi, function(g, shape, w, *rest, [True, False, False])[0])
        assert torch.equal(gw, others[0]) and torch.equal(gb, others[1])


def test_ops_are_called_by_the_functions_that_lead_to_them() -> None:
    """Torch's own functions, where they reach the same op with the same arguments; else the op."""
    aten = torch.ops.aten

    def called(op, *args, **kwargs):
        refs = [Ref(0, torch.float32, (2,) * a.dim(), (1,) * a.dim(), 0)
                if isinstance(a, torch.Tensor) else a for a in args]  # fmt: skip
        return bound(AtenCall(op, tuple(refs), kwargs, (), (), (), ()))

    x = torch.ones(2, 2)
    assert called(aten.mm.default, x, x) is torch.mm
    assert called(aten.sum.dim_IntList, x, [0], True) is torch.sum
    assert called(aten.add.Tensor, x, x, alpha=2) is torch.add
    assert called(aten.mul_.Tensor, x, 2.0).__name__ == "mul_"
    assert called(aten.div.Scalar, x, 2) is aten.div.Scalar._op  # torch.div makes it a tensor
    assert called(aten.gelu_backward.default, x, x) is aten.gelu_backward.default._op
