"""Every command as a new user meets it: 80 columns, the verdict first, a next one that works."""

from __future__ import annotations

import linecache
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.running import Result, run

NET = """
import numpy as np
import ckpt

def make(layers=6, kept=2):
    ws = [np.eye(16) for _ in range(layers)]

    @ckpt.checkpoint
    def block(ws, x):
        for w in ws:
            x = np.tanh(x @ w)
        return x

    def loss(ws, x):
        x = block(ws[:kept], x)
        for w in ws[kept:]:
            x = np.tanh(x @ w)
        return np.mean(x**2)

    return loss, ws, np.ones((64, 16))

def all_in_one_block():
    return make(6, 6)
"""

MLP = "mlp --depth 6 --width 16 --batch 64"
COMMANDS = {
    f"profile {MLP}": "One step of mlp peaks at ",
    f"profile {MLP} --by line --no-measure": "One step of mlp peaks at ",
    f"profile {MLP} --by scope --no-measure": "One step of mlp peaks at ",
    f"profile {MLP} --by op --top 2 -o timeline.svg": "One step of mlp peaks at ",
    f"profile {MLP} --by node --planner sqrt": "One step of mlp peaks at ",
    "profile my\\ net.py:make": "One step of make peaks at ",
    "profile my\\ net.py:all_in_one_block": "One step of all_in_one_block peaks at ",
    f"plan {MLP} --budget 60%": r"holds [\d.]+ of [\d.]+ KiB \(\d\.\d times less; whole ",
    f"plan {MLP} --budget 90% --planner sqrt --cost bytes": "holds ",
    f"plan {MLP} --budget 60% --verify -o plan.json": "holds ",
    "show plan.json": "holds ",
    "show plan.json -o plan.html": "holds ",
    "show plan.json --instructions": "compute ",
    "show before.profile.json": "One step of mlp peaks at ",
    "show timeline.json": "instructions by sqrt",
    "simulate plan.json": "instructions by sqrt",
    "simulate plan.json -o timeline.svg": "instructions by sqrt",
    f"execute plan.json {MLP}": "verified: predicted peak ",
    "compare before.profile.json plan.json": "peak [0-9.]+ KiB before, ",
    "frontier mlp --depth 5 --width 16 --planners sqrt,dtr --budgets 10%,50%,80%,100%":
        r"(?s)Store-all needs .*\(dtr\) for [\d.]+ % of a forward",
    "sweep --depth 8 --points 2 --width 16 --batch 32 --jobs 1 --strategies store_all,sqrt":
        "residual_mlp, 8 layers: ",
    "models mlp gpt": "2 models and presets",
    "ops abs": "2 ops have a rule",
    "ops t": r"\d+ ops have a rule",
}  # fmt: skip


@pytest.fixture(autouse=True)
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "my net.py").write_text(NET)
    return tmp_path


def saved(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """The files that a command names."""
    if "plan.json" in command and "-o plan.json" not in command:
        assert given(capsys, f"plan {MLP} --planner sqrt -o plan.json").code == 0
    if "timeline.json" in command:
        assert given(capsys, f"plan {MLP} --planner sqrt -o plan.json").code == 0
        assert given(capsys, "simulate plan.json -o timeline.json").code == 0
    if "before.profile.json" in command:
        options = "--no-measure -o before.profile.json"
        assert given(capsys, f"profile {MLP} {options}").code == 0


def given(capsys: pytest.CaptureFixture[str], command: str) -> Result:
    from ckpt.cli.app import call

    capsys.readouterr()
    code = call(shlex.split(command))
    captured = capsys.readouterr()
    return Result(code, captured.out, captured.err)


def next_of(result: Result) -> str:
    last = result.err.splitlines()[-1]
    assert last.startswith("next: ckpt "), result.err
    return last.removeprefix("next: ckpt ")


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_printed(capsys: pytest.CaptureFixture[str], command: str) -> None:
    saved(capsys, command)
    result = given(capsys, command)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert re.search(COMMANDS[command], "\n".join(lines[:3]))
    said = [line for line in result.err.splitlines() if not line.startswith("next: ")]
    assert max(map(len, [*lines, *said])) <= 80
    assert not re.search(r"(^|\s)–(\s|$)", result.out)
    for heads, rows in tables(lines):
        told = [row for row in rows if row[0] != "total"]
        if len(told) > 1:
            for head, *cells in zip(heads, *told, strict=True):
                assert len(set(cells)) > 1, f"{head} is {cells[0]!r} in every row"
        for head, *cells in zip(heads, *rows, strict=True):
            numbers = [cell for cell in cells if re.fullmatch(r"[\d.]+", cell)]
            if re.search(r"(MiB|KiB|FLOP|%)$", head):  # a unit in the heading: aligned numbers
                assert len({len(n.partition(".")[2]) for n in numbers if n != "0"}) <= 1, head


def tables(lines: list[str]) -> list[tuple[list[str], list[list[str]]]]:
    """The headings and rows of each table in a command's output."""
    found = []
    for n, line in enumerate(lines):
        if not re.fullmatch(r"-+(  -+)+", line):
            continue
        spans = [match.span() for match in re.finditer("-+", line)]
        cut = lambda text, spans=spans: [text[a:b].strip() for a, b in spans]  # noqa: E731
        first = n
        while first and lines[first - 1] and not lines[first - 1].endswith(":"):
            first -= 1
        words = zip(*map(cut, lines[first:n]), strict=True)
        heads = [" ".join(filter(None, folded)) for folded in words]
        rows = []
        for row in lines[n + 1 :]:
            if not row or row.startswith(("in every row", "1 multiply-add", "overhead:", "* no")):
                break
            rows.append(cut(row))
        found.append((heads, rows))
    return found


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith(("ops", "show"))])
def test_the_next_command_works_as_it_is_pasted(
    capsys: pytest.CaptureFixture[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(capsys, command)
    follow = next_of(given(capsys, command))
    if follow.startswith("frontier"):
        follow += " --planners sqrt,chain --points 2 --no-measure"  # quick, and otherwise the same
    assert follow != command
    found = given(capsys, follow)
    assert found.code == 0, (follow, found.err)


def test_the_way_from_a_profile_on_leads_to_the_lesson_and_says_nothing_twice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, seen = f"profile {MLP}", []
    while command != "lesson":
        assert command not in seen
        seen.append(command)
        command = next_of(given(capsys, command))
    kinds = [" ".join(shlex.split(command)[:1]) for command in seen]
    assert kinds == [
        "profile", "profile", "plan", "plan", "execute", "show", "simulate", "simulate", "show",
    ]  # fmt: skip


def test_a_checkpoint_that_raises_the_peak_says_so_and_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = given(capsys, "profile 'my net.py:all_in_one_block' --no-measure").out
    verdict = " ".join(said.partition(" nodes, ")[0].split())
    whole, stored = (
        float(re.search(pattern, verdict)[1])  # type: ignore[index]
        for pattern in (r"peaks at ([\d.]+) K", r"raises the peak: with all kept it is ([\d.]+) K")
    )
    assert whole > stored
    assert "all in it is live again at once" in verdict


def test_a_saved_plan_knows_what_its_lines_say_where_their_file_is_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert given(capsys, "plan 'my net.py:make' --budget 80% -o plan.json").code == 0
    assert given(capsys, "profile 'my net.py:make' --no-measure -o a.profile.json").code == 0
    monkeypatch.setattr(linecache, "getline", lambda *_: "")
    for command in ("show plan.json", "simulate plan.json", "show a.profile.json"):
        assert re.search("(?m)^ +(return np.mean|x = np.tanh)", given(capsys, command).out)
    assert "text x = np.tanh(x @ w)" in given(capsys, "show plan.json").out


def test_the_bare_command_is_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    bare, asked = run(capsys, ""), run(capsys, "--help")
    assert "Commands" in bare.out
    assert bare.out.strip() == asked.out.strip()
    assert bare.err == ""
