"""The lesson says what the tape gives, and what theory gives."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
from pathlib import Path

import pytest

import ckpt
from ckpt.lesson import by_hand
from ckpt.lesson import lesson as chapters
from ckpt.models import build
from ckpt.tape.execution.program import TapeProgram

PROGRAM = """\
from ckpt import Value
w, x, y = Value(3.0), Value(2.0), Value(5.0)
L = (w * x + Value(-1) * y) * (w * x + Value(-1) * y)
L.backward()
print("L =", L.data)
print("dL/dw =", w.grad)
"""
LOSS = {"w": 4.0, "x": 6.0, "y": -2.0}
EXAMPLES = [
    (chapters.PRODUCT, 1.0, LOSS),
    (chapters.POWER, 1.0, LOSS),
    (chapters.SUM, 20.0, {"a": 4.0, "b": 4.0, "c": 5.0}),
]


@pytest.fixture(scope="module")
def printed():
    lines: list[str] = []
    chapters.lesson(lines.append)
    return "\n".join(lines)


def test_the_newcomers_program_runs_as_it_stands():
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(PROGRAM, {})
    assert out.getvalue() == "L = 1.0\ndL/dw = 4.0\n"


@pytest.mark.parametrize(("example", "result", "gradients"), EXAMPLES)
def test_gradients_of_the_tape_by_hand_forward_and_by_differences(example, result, gradients):
    leaves, value = example.on_tape()
    order = by_hand.topological(value)
    steps = by_hand.hops(order)
    forward = {name: by_hand.tangent(order, leaf._node)[0] for name, leaf in leaves.items()}
    arrived = {
        name: sum(h.handed for h in steps if h.dep is leaf._node) for name, leaf in leaves.items()
    }
    value.backward()
    assert value.data == result
    assert {name: leaf.grad for name, leaf in leaves.items()} == gradients
    assert arrived == forward == gradients
    for name, gradient in gradients.items():
        assert by_hand.finite_difference(example, name) == pytest.approx(gradient, rel=1e-6)


@pytest.mark.parametrize(("example", "result", "gradients"), EXAMPLES)
def test_what_is_printed_of_an_example(example, result, gradients):
    text = "\n".join(by_hand.told(example))
    assert f"{example.name} = {result:g}, and" in text
    found = re.findall(r"d\w/d(\w) = (\S+) +finite difference +(\S+)", text)
    assert {name: float(number) for name, number, _ in found} == gradients
    assert {name: float(number) for name, _, number in found} == pytest.approx(gradients, abs=1e-5)


def test_each_node_comes_after_its_inputs():
    _, value = chapters.PRODUCT.on_tape()
    order = by_hand.topological(value)
    assert len(order) == len(set(order)) == 12
    for at, node in enumerate(order):
        assert all(order.index(i) < at for i in node.inputs)


def test_rules_are_printed_as_they_are_written(printed):
    assert re.search(r"v2 +subtract +2 +-g +nothing +-2 to y", printed)
    assert re.search(r"z +multiply +1 +g \* y +y \(c = 4\) +4 to v1", printed)
    assert re.search(r"L +power +1 +_power_x\(g, x, y\) +x \(v2 = 1\), y \(2\) +2 to v2", printed)
    assert "return 2 * x * g if y == 2 else g * y" in printed


def test_a_value_is_said_to_be_kept_where_a_backward_reads_it():
    _, value = chapters.PRODUCT.on_tape()
    kept = {n for n in by_hand.topological(value) if n.op and n.value is not None}
    reads = {
        h.node.inputs[k] for h in by_hand.hops(by_hand.topological(value)) for k in h.rule.reads
    }
    assert kept == {node for node in reads if node.op}
    assert "\n".join(by_hand.told(chapters.PRODUCT)).count("kept: a backward reads it") == 2


def test_passes_and_symbols_are_counted():
    for n in (1, 3, 20):
        row = chapters.passes_row(n)
        rules = 2 * n + 2 * (n - 1)  # n products and n - 1 sums, of two inputs each
        assert (row["forward_passes"], row["forward_calls"]) == (n, n * rules)
        assert (row["reverse_passes"], row["reverse_calls"]) == (1, rules)
    assert chapters.symbols_row(12) == {"times": 12, "tape_nodes": 13, "symbols": 2**12}


def test_flops_are_the_tapes_and_follow_the_theory(printed):
    batch, width = chapters.MLP["batch"], chapters.MLP["width"]
    matmul = 2 * batch * width * width
    for depth in chapters.DEPTHS:
        row = chapters.ratio_row(depth)
        workload = build("mlp", depth=depth, **chapters.MLP)
        graph = ckpt.trace(workload.loss, *workload.specs()).graph
        assert row["forward_flops"] == graph.forward_flops
        assert row["backward_flops"] == graph.backward_flops
        assert row["forward_flops"] == pytest.approx(depth * matmul, rel=0.01)
        assert row["backward_flops"] == pytest.approx((2 * depth - 1) * matmul, rel=0.01)
        assert f"{row['backward / forward']:.4g}" in printed
    assert 1.98 < chapters.ratio_row(100)["backward / forward"] < 2.0


def test_what_is_kept_grows_with_depth():
    activation = 4 * chapters.MLP["batch"] * chapters.MLP["width"]
    for depth in (2, 7):
        row = chapters.kept_row(depth)
        assert row["kept_nbytes"] == depth * activation
        assert depth * activation < row["peak_nbytes"] < (depth + 3) * activation


def test_the_trade_is_less_memory_for_more_flops(printed):
    rows = chapters.trade_rows()
    peaks = [row["predicted_peak_nbytes"] for row in rows]
    recompute = [row["recompute_flops"] for row in rows]
    assert recompute[0] == 0
    assert peaks == sorted(peaks, reverse=True)
    assert recompute == sorted(recompute)
    assert peaks[1] < 0.21 * peaks[0]
    assert rows[1]["overhead"] < 1
    for row in rows:
        assert row["gradients_equal"]
        assert row["measured_peak_nbytes"] == pytest.approx(
            row["predicted_peak_nbytes"], rel=0.01, abs=64 * 1024
        )
    cost = rows[-1]["step_flops"] / rows[0]["step_flops"]
    words = " ".join(printed.split())
    assert f"times less memory, for {cost:.2f} times the FLOPs" in words


def test_the_trades_recompute_is_that_of_its_schedules():
    layer = 2 * chapters.TRADE["batch"] * chapters.TRADE["width"] ** 2  # of the matmul
    sqrt = chapters.trade_rows()[1]["recompute_flops"]
    assert sqrt == pytest.approx((100 - 10) * 9 // 10 * layer, rel=0.01)  # all but last layers


def test_gradients_that_differ_are_told(monkeypatch):
    digests = iter(["one", "another", "one", "one"])
    monkeypatch.setattr(TapeProgram, "digest", lambda self, result: next(digests))
    equal = [row["gradients_equal"] for row in chapters.trade_rows()]
    assert equal == [True, False, True, True]


def test_the_experiment_prints_the_same(printed):
    out = io.StringIO()
    file = Path(__file__).parents[2] / "experiments" / "lesson.py"
    with contextlib.redirect_stdout(out):
        runpy.run_path(str(file), run_name="__main__")
    again, before = out.getvalue(), printed + "\n"
    chapter = "6. What"  # whose peaks are measured anew
    assert again.partition(chapter)[0] == before.partition(chapter)[0]
    assert re.sub(r"[\d.]+|-+| +", "", again) == re.sub(r"[\d.]+|-+| +", "", before)


def test_named_values_are_not_taken_for_others():
    leaves, value = chapters.SUM.on_tape()
    order = by_hand.topological(value)
    names = by_hand.names_of(order, leaves, "z")
    assert [names[node] for node in order] == ["a", "b", "c", "v1", "z"]
