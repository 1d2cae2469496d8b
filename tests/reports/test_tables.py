"""Tables, cells and the ledger: units on screen, totals that add up, reasons in words."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt.errors import UsageError
from ckpt.reports.ledger import ledger, why
from ckpt.reports.table import FRONTIER_COLUMNS, SWEEP_COLUMNS, cell, heading, render, show
from ckpt.studies.points import COLUMNS
from ckpt.timeline import holdings
from tests.reports.sample import frontier_rows, sweep_rows, timeline

NODES = [
    {"name": "a", "op": "tanh", "source": "m.py:1", "scope": "", "nbytes": 10, "forward_flops": 5},
    {
        "name": "b",
        "op": "matmul",
        "source": "m.py:2",
        "scope": "f",
        "nbytes": 40,
        "forward_flops": 9,
    },
    {"name": "c", "op": "tanh", "source": "m.py:3", "scope": "f", "nbytes": 20, "forward_flops": 1},
]


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("peak_nbytes", 1536, "1.5 KiB"),
        ("nbytes", np.int64(2**20), "1 MiB"),
        ("recompute_flops", 2_500_000_000, "2.5 GFLOP"),
        ("seconds", 0.0042, "4.2 ms"),
        ("seconds_planning", 2, "2 s"),
        ("overhead", 0.25, "25.0 %"),
        ("gap_percent", 0, "0 % (optimal)"),
        ("gap_percent", 3.21, "3.2 %"),
        ("gap_percent", float("inf"), "inf"),
        ("gradients_equal", True, "yes"),
        ("gradients_equal", np.bool_(False), "no"),
        ("seconds", None, ""),
        ("depth", 10000, "10000"),
        ("loss", 0.123456, "0.1235"),
        ("shape", (2, 3), "(2, 3)"),
    ],
)
def test_a_cell_reads_its_columns_unit(column: str, value: object, text: str) -> None:
    assert cell(column, value) == text


def test_headings_leave_the_unit_to_the_cells() -> None:
    assert heading("predicted_peak_nbytes") == "predicted peak"
    assert heading("seconds_planning") == "planning time"
    assert (heading("nbytes"), heading("seconds"), heading("overhead")) == (
        "bytes",
        "time",
        "overhead",
    )


def test_plain_tables_are_aligned_and_say_what_a_flop_is() -> None:
    text = render(sweep_rows(), SWEEP_COLUMNS, title="Sweep")
    lines = text.splitlines()
    assert lines[0] == "Sweep"
    assert "1 multiply-add = 2 FLOPs" in lines[-1]
    heads = [line.split() for line in lines[1:3]]
    assert heads[1][:4] == ["depth", "strategy", "peak", "MiB"]
    for line, row in zip(lines[4:], sweep_rows(), strict=False):
        assert line.split()[2] == f"{row['predicted_peak_nbytes'] / 2**20:.2f}"
    assert max(map(len, lines)) <= 80
    assert "whole" not in text  # no row has it


def test_what_is_the_same_in_every_row_is_said_once_and_headings_fold() -> None:
    rows = [
        {"depth": d, "a_rather_long_heading": d * 10, "dtype": "float32", "wide": "x" * 70}
        for d in (1, 2)
    ]
    text = render(rows, ["depth", "a_rather_long_heading", "dtype", "wide"])
    heads = ["             a", "        rather", "          long", "depth  heading"]
    assert text.splitlines()[:4] == heads
    assert "in every row: " in text
    assert "dtype float32" in text
    changed = [*rows, {**rows[0], "wide": "y"}]
    assert "too wide for here: wide" in render(
        changed, ["depth", "a_rather_long_heading", "wide"], width=40
    )


def test_what_is_empty_in_every_row_is_not_said() -> None:
    rows = [{"depth": d, "scope": "", "dtype": "float32"} for d in (1, 2)]
    assert "in every row: dtype float32\n" in render(rows, ["depth", "scope", "dtype"])


def test_dataclass_rows_and_no_rows() -> None:
    @dataclass
    class Row:
        planner: str
        peak_nbytes: int

    told = render([Row("sqrt", 2048)]).splitlines()
    assert told == ["         peak", "planner   KiB", "-------  ----", "sqrt        2"]
    assert render([], title="Nothing") == "Nothing\n(no rows)\n"


def test_a_column_is_in_one_unit_unless_too_much_would_vanish_in_it() -> None:
    def column(*sizes: int) -> list[str]:
        table = render([{"n": n, "nbytes": size} for n, size in enumerate(sizes)], ["n", "nbytes"])
        return [line[3:].strip() for line in table.splitlines()]

    assert column(12 * 2**20, 2**19, 2**18, 100, 0) == [
        "bytes", "MiB", "-----", "12.00", "0.50", "0.25", "<0.01", "0",
    ]  # fmt: skip
    assert column(2**30, 2**20, 2**10, 2**10) == [
        "bytes", "-----", "1 GiB", "1 MiB", "1 KiB", "1 KiB",
    ]  # fmt: skip
    assert column(3 * 2**40, 2**40)[1:] == ["TiB", "-----", "3", "1"]


def test_the_text_of_a_line_takes_the_room_that_is_left() -> None:
    rows = [{"line": "m.py:1", "text": "x" * 90, "nodes": 3}, {"line": "m.py:2", "nodes": 4}]
    narrow, wide = (render(rows, ["line", "text", "nodes"], width=w) for w in (60, 120))
    assert max(map(len, narrow.splitlines())) == 60
    assert f"{'x' * 44}…" in narrow
    assert "x" * 90 in wide
    assert "too wide for here: nodes (" in render(rows, ["line", "text", "nodes"], width=40)


def test_a_terminal_gets_the_same_lines_as_wide_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    rows = [{"planner": "sqrt[bold]", "peak_nbytes": 3 * 2**20}, *sweep_rows()]
    for columns, width in (("40", 80), ("120", 120)):  # a line that wraps loses nothing
        monkeypatch.setenv("COLUMNS", columns)
        screen = Terminal()
        show(rows, ("planner", "peak_nbytes", *SWEEP_COLUMNS), file=screen)
        plain = re.sub(r"\x1b\[\d+m", "", screen.getvalue())
        assert plain == render(rows, ("planner", "peak_nbytes", *SWEEP_COLUMNS), width=width)
        assert "sqrt[bold]" in plain


def test_the_columns_that_tables_name_are_those_that_studies_make() -> None:
    def loss(w: Any) -> Any:
        for _ in range(6):
            w = np.tanh(w)
        return np.sum(w * w)

    found = ckpt.frontier(loss, np.ones((8, 8)), planners=["chain"], points=2)
    assert set(FRONTIER_COLUMNS) <= set(found.rows[0])
    assert set(SWEEP_COLUMNS) <= set(COLUMNS)


def test_the_frontier_table_says_optimal_where_the_gap_is_zero() -> None:
    text = render(frontier_rows(), FRONTIER_COLUMNS)
    assert text.count("0 % (optimal)") == 3
    assert "10.0 %" in text


def test_the_ledger_sorts_cuts_and_still_adds_up() -> None:
    rows = ledger(NODES, top=1)
    assert [row["name"] for row in rows] == ["b", "2 more", "total"]
    assert [row["nbytes"] for row in rows] == [40, 30, 70]
    assert [row["name"] for row in ledger(NODES, sort="name")] == ["a", "b", "c", "total"]
    assert [row["name"] for row in ledger(reversed(NODES), sort="order")][:3] == ["c", "b", "a"]
    assert ledger([]) == []


def test_the_ledger_groups_by_op_line_and_scope() -> None:
    ops = ledger(NODES, by="op")
    assert ops[0] == {"op": "matmul", "nodes": 1, "nbytes": 40, "forward_flops": 9}
    assert ops[1] == {"op": "tanh", "nodes": 2, "nbytes": 30, "forward_flops": 6}
    assert ops[2] == {"op": "total", "nodes": 3, "nbytes": 70, "forward_flops": 15}
    assert [row["line"] for row in ledger(NODES, by="line")] == [
        "m.py:2",
        "m.py:3",
        "m.py:1",
        "total",
    ]
    scopes = [row["scope"] for row in ledger(NODES, by="scope")]
    assert scopes == ["(no scope)", "f", "total"]


def test_what_is_alike_is_one_row_with_its_share() -> None:
    layers = [
        {"op": "gelu", "source": "m.py:1", "shape": "8x8", "dtype": "float32",
         "scope": f"layer {k}", "kept_nbytes": 30}
        for k in range(2)
    ]  # fmt: skip
    other = {**layers[0], "op": "add", "kept_nbytes": 40}
    found = ledger([*layers, other], sort="kept_nbytes", by="alike")
    assert [(row["what"], row.get("nodes"), row["share_percent"]) for row in found] == [
        ("2 x gelu", 2, 60.0), ("add", 1, 40.0), ("total", 3, 100.0),
    ]  # fmt: skip


def test_scopes_are_a_tree_with_sums_of_all_inside_in_the_order_of_the_program() -> None:
    paths = ("layer 2/attention", "layer 2", "layer 10/attention", "layer 2/attention")
    rows = [{"op": "f", "scope": path, "nbytes": 1} for path in paths]
    found = ledger(rows, by="scope")
    assert [(row["scope"], row["nbytes"]) for row in found] == [
        ("layer 2", 3), ("  attention", 2), ("layer 10", 1), ("  attention", 1), ("total", 4),
    ]  # fmt: skip
    assert [row["scope"] for row in ledger(rows, by="scope", top=1)] == [
        "layer 2", "3 more", "total",
    ]  # fmt: skip


def test_scopes_that_say_the_same_are_one_row() -> None:
    rows = [
        {"op": "f", "scope": f"layer {k}/{part}", "nbytes": size}
        for k in range(12) for part, size in (("attention", 3), ("mlp", 4 + (k == 11)))
    ]  # fmt: skip
    assert [(row["scope"], row["nodes"], row["nbytes"]) for row in ledger(rows, by="scope")] == [
        ("11 x layer 0 to layer 10", 22, 77), ("  11 x attention", 11, 33), ("  11 x mlp", 11, 44),
        ("layer 11", 2, 8), ("  attention", 1, 3), ("  mlp", 1, 5), ("total", 24, 85),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sort": "size"}, "can't sort by 'size'; use order, name"),
        ({"by": "file"}, "can't group by 'file'; use alike, op, line, scope"),
        ({"top": 0}, "top must be at least 1, not 0"),
    ],
)
def test_what_the_ledger_cannot_do_is_one_line(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ledger(NODES, **options)  # type: ignore[arg-type]


def test_why_names_what_is_live_at_the_peak_and_adds_up_to_it() -> None:
    graph, line = timeline(3)
    at = line.peak_position
    held = holdings(graph, line, at)
    lines = why(graph, held, peak=line.peak)
    assert any(
        "3 x matmul 256x1024 float32 model.py:7, for gelu model.py:8" in text for text in lines
    ), lines
    assert any(text.endswith("workspace of this instruction") for text in lines)
    sizes = {"KiB": 2**10, "MiB": 2**20, "B": 1}
    total = sum(float(t.split()[0]) * sizes[t.split()[1]] for t in lines)
    assert total == pytest.approx(line.peak, rel=0.01)
    assert why(graph, held, peak=line.peak, top=1)[1].endswith(f"{len(lines) - 1} more")


def test_why_folds_buffers_that_read_alike() -> None:
    graph, line = timeline(3)
    lines = why(graph, holdings(graph, line, line.peak_position))
    assert any("  3 x " in text and "matmul" in text for text in lines), lines
