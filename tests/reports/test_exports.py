"""Files: integers with their unit in the column's name, whole or not at all, and resumable."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from ckpt.errors import UsageError
from ckpt.reports.exports import (
    JsonlWriter,
    dumps,
    html_page,
    read_jsonl,
    read_sidecar,
    to_html,
    write,
)
from ckpt.reports.files import atomic, check_output
from ckpt.reports.reproduce import reproduction

ROWS = [
    {"planner": "sqrt", "peak_nbytes": 3 * 2**20, "seconds": 0.5, "equal": True, "error": None},
    {"planner": "a|<b>", "peak_nbytes": np.int64(7), "seconds": np.float32(0.25), "extra": [1, 2]},
]


def test_csv_holds_integers_and_empty_cells(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", ROWS)
    with path.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["peak_nbytes"] == "3145728"
    assert (first["equal"], first["error"], first["extra"]) == ("true", "", "")
    assert (second["seconds"], second["extra"]) == ("0.25", "[1, 2]")


def test_json_and_jsonl_hold_plain_numbers(tmp_path: Path) -> None:
    whole = json.loads(write(tmp_path / "rows.json", ROWS, title="Rows").read_text())
    assert whole["title"] == "Rows"
    assert whole["rows"] == read_jsonl(write(tmp_path / "rows.jsonl", ROWS))
    assert whole["rows"][1]["peak_nbytes"] == 7


def test_json_is_json_even_where_numbers_are_not() -> None:
    text = dumps({"gap": float("inf"), "loss": [np.nan, np.float64(1)], "path": Path("a")}, None)
    assert json.loads(text) == {"gap": None, "loss": [None, 1.0], "path": "a"}


def test_markdown_is_for_people(tmp_path: Path) -> None:
    lines = write(tmp_path / "rows.md", ROWS).read_text().splitlines()
    assert lines[0] == "| planner | peak | time | equal | error | extra |"
    assert lines[1] == "| --- | ---: | ---: | --- | --- | --- |"
    assert lines[2].startswith("| sqrt | 3 MiB | 500 ms | yes |")
    assert lines[3].startswith(r"| a\|&lt;b&gt; | 7 B |")


def test_html_needs_no_network_and_escapes(tmp_path: Path) -> None:
    text = write(tmp_path / "rows.html", ROWS, title="A & B").read_text()
    assert text.startswith("<!doctype html>")
    assert "<title>A &amp; B</title>" in text
    assert "a|&lt;b&gt;" in text
    assert 'title="3145728">3 MiB' in text
    assert "http" not in text
    assert "<script" not in text
    assert to_html(ROWS) in html_page("A", to_html(ROWS))


def test_a_sidecar_says_how_to_make_it_again(tmp_path: Path) -> None:
    facts = reproduction("sweep", {"depth": 100}, seed=7)
    path = write(tmp_path / "rows.csv", ROWS, metadata=facts)
    assert read_sidecar(path) == json.loads(dumps(facts))
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["blas"]["name"]
    assert facts["threads"]["cpus"] == os.cpu_count()
    assert (facts["arguments"], facts["seed"]) == ({"depth": 100}, 7)
    assert read_sidecar(tmp_path / "nothing.csv") is None


@pytest.mark.parametrize("name", ["rows", "rows.xlsx", "rows.png"])
def test_an_unknown_extension_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"use \.csv \.jsonl \.json \.md \.html"):
        write(tmp_path / name, ROWS)


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", ROWS)
    before = path.read_bytes()

    def fail() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_followed(tmp_path: Path) -> None:
    target = write(tmp_path / "real.csv", ROWS)
    link = tmp_path / "link.csv"
    link.symlink_to(target)
    write(link, ROWS[:1])
    assert link.is_symlink()
    assert len(target.read_text().splitlines()) == 2


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = tmp_path / "file" / "rows.csv"
    attempts: list[Callable[[], object]] = [
        lambda: write(blocked, ROWS),
        lambda: check_output(blocked, (".csv",)),
    ]
    for refuse in attempts:
        with pytest.raises(UsageError, match="can't write") as caught:
            refuse()
        assert "\n" not in str(caught.value)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match="it is a folder"):
        check_output(tmp_path / "folder.csv", (".csv",))
    with pytest.raises(UsageError, match="can't write"):
        JsonlWriter(tmp_path / "file" / "rows.jsonl")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UsageError, match="no permission"):
            check_output(tmp_path / "rows.csv", (".csv",))
        with pytest.raises(UsageError, match="permission denied"):
            write(tmp_path / "rows.csv", ROWS)
    finally:
        tmp_path.chmod(0o700)


def test_rows_are_on_disk_before_the_writer_closes(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "rows.jsonl"
    with JsonlWriter(path) as writer:
        for count, row in enumerate(ROWS, 1):
            writer.write(row)
            assert len(read_jsonl(path)) == count


@pytest.mark.parametrize("cut", range(1, 14))
def test_a_stopped_run_is_resumed_wherever_it_was_cut(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with JsonlWriter(path) as writer:
        writer.write({"depth": 1})
        writer.write({"depth": 2})
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    row_is_cut = 1 < cut < len('{"depth": 2}\n')
    with pytest.warns(UserWarning, match="cut off") if row_is_cut else nullcontext():
        there = read_jsonl(path)
    # Only the line's end is missing, or the row is cut, or it is gone.
    assert there == ([{"depth": 1}, {"depth": 2}] if cut == 1 else [{"depth": 1}])
    with JsonlWriter(path, resume=True) as writer:
        writer.write({"depth": 3})
    assert read_jsonl(path) == [*there, {"depth": 3}]
    with JsonlWriter(path) as writer:
        writer.write({"depth": 4})
    assert read_jsonl(path) == [{"depth": 4}]


def test_a_damaged_line_before_the_last_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"depth": 1}\n{"dep\n{"depth": 3}\n')
    with pytest.raises(UsageError, match="line 2, is no row"):
        read_jsonl(path)
    assert read_jsonl(tmp_path / "nothing.jsonl") == []
    with pytest.raises(UsageError, match="can't read"):
        read_jsonl(tmp_path)
