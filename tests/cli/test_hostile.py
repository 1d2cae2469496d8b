"""Files from strangers: whatever is in them, there is a plain answer or one clear line."""

from __future__ import annotations

import html
import json
import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt.errors import CkptError
from ckpt.models import build
from ckpt.reports import documents, exports, figure
from ckpt.reports.files import DEEPEST
from ckpt.studies.journal import Journal
from tests.cli.running import Result

FORGED = "x\x1b]0;title\x07\x9b31m\nerror: forged\r\u202e<script>'\"$\\frac{"
"""Retitles a terminal, colours it, forges a line, turns text round, breaks out of markup."""

KINDS = ("plan", "profile", "graph", "schedule", "timeline")


def loss(w: Any) -> Any:
    x = np.eye(4) + 1.0
    for _ in range(3):
        x = np.tanh(x @ w)
    return np.sum(np.linalg.qr(x)[1]) + np.mean(x * x)


def step() -> ckpt.Step:
    return ckpt.plan(loss, np.eye(4) / 2, planner="every:2", name="made")


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made = step()
    folder = tmp_path_factory.mktemp("valid")
    made.save(folder / "plan.json")
    ckpt.profile(loss, np.eye(4) / 2, name="made").save(folder / "a.profile.json")
    found = {
        "plan": json.loads((folder / "plan.json").read_text()),
        "profile": json.loads((folder / "a.profile.json").read_text()),
        "graph": made.graph.to_json(),
        "schedule": made.schedule.to_json(),
        "timeline": made.timeline.to_json(),
    }
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands(kind: str) -> list[list[str]]:
    found = [["show", "f.json"], ["show", "f.json", "--instructions"], ["simulate", "f.json"]]
    if kind in ("plan", "profile"):
        found += [["compare", "f.json", "f.json"], ["show", "f.json", "-o", "a.html"],
                  ["show", "f.json", "-o", "a.trace.json", "-o", "a.speedscope.json"]]  # fmt: skip
    if kind == "plan":
        found += [
            ["execute", "f.json", "mlp", "--depth", "2"],
            ["show", "f.json", "-o", "a.svg"],
            ["simulate", "f.json", "--json", "-o", "b.json", "-o", "b.svg"],
        ]
    if kind in ("timeline", "profile"):
        found.append(["show", "f.json", "-o", "a.svg"])
    return found


EACH = pytest.mark.parametrize(
    ("kind", "command"), [(kind, command) for kind in KINDS for command in commands(kind)]
)


def called(capsys: pytest.CaptureFixture[str], command: list[str]) -> Result:
    capsys.readouterr()
    from ckpt.cli.app import call

    code = call(command)
    captured = capsys.readouterr()
    return Result(code, captured.out, captured.err)


def assert_harmless(result: Result) -> None:
    """The answer is a right one or a line of refusal, and no line is anything but plain text."""
    assert result.code in (0, 2, 3), result.err
    assert "Traceback" not in result.err
    assert "bug in ckpt" not in result.err
    for text in (result.out, result.err):
        for line in text.split("\n"):
            assert line.isprintable(), repr(line)
            assert not line.startswith("error: forged")
    if result.code:
        assert result.out == ""
        assert len(result.err.splitlines()) == 1
        assert len(result.err) < 2500


def strings(value: Any, by: str) -> Any:
    """The document with ``by`` in each text that names something."""
    if isinstance(value, dict):
        kept = ("format", "graph", "unit", "kind", "gradients", "source", "op", "dtype")
        return {
            k: v if k in kept and isinstance(v, str) else strings(v, by) for k, v in value.items()
        }
    if isinstance(value, list):
        return [strings(item, by) for item in value]
    plain = not isinstance(value, str) or value.split(" ")[0] in ("compute", "free", "backward")
    return value if plain or value in ckpt.timeline.KINDS else by


@EACH
def test_names_steer_no_terminal_and_forge_no_line(
    capsys: pytest.CaptureFixture[str], valid: dict[str, Any], kind: str, command: list[str]
) -> None:
    Path("f.json").write_text(json.dumps(strings(valid[kind], FORGED)))
    result = called(capsys, command)
    assert_harmless(result)
    for path in Path().glob("a.html"):
        assert FORGED not in (page := path.read_text())
        assert "<script>'" not in page
    for path in Path().glob("*.svg"):
        drawn = path.read_text()
        assert "<script" not in drawn
        assert all(line.isprintable() for line in drawn.split("\n"))
    for path in Path().glob("b.json"):
        json.loads(path.read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_forged_names_are_read_and_shown(
    capsys: pytest.CaptureFixture[str], valid: dict[str, Any], kind: str
) -> None:
    """They are no reason to refuse a file: all that they do is look odd."""
    Path("f.json").write_text(json.dumps(strings(valid[kind], FORGED)))
    result = called(capsys, ["show", "f.json"])
    if kind == "plan":  # a plan bears a digest of all that it says
        assert result.code == 2
        return
    assert result.code == 0, result.err
    if kind != "timeline":
        assert r"x\x1b]0;title\x07\x9b31m\nerror: forged\r\u202e<script>" in result.out


def test_a_page_escapes_names() -> None:
    rows = [{"name": FORGED, "nbytes": 5}]
    for text in (exports.to_html(rows), exports.html_page(FORGED, exports.to_html(rows))):
        assert "<script" not in text
        assert html.escape("<script>'\"") in text
    assert "<script" not in exports.to_markdown(rows)
    assert len(exports.to_markdown(rows).splitlines()) == 3

    def loss(w: Any) -> Any:
        return np.sum(w * w)

    assert "<script" not in ckpt.profile(loss, np.ones(3), name=FORGED)._repr_html_()


def test_what_is_printed_in_a_program_of_ones_own_is_plain_too() -> None:
    def loss(w: Any) -> Any:
        with ckpt.scope(FORGED):
            return np.sum(w * w)

    profile = ckpt.profile(loss, np.ones(3), name=FORGED)
    plan = ckpt.plan(loss, np.ones(3), name=FORGED)
    for text in (str(profile), str(plan), repr(plan), plan.graph.describe(1), *profile.why()):
        assert all(line.isprintable() for line in text.split("\n"))
    assert all(line.isprintable() for line in plan.schedule.to_text(plan.graph).split("\n"))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        '{"format":"ckpt-graph","version":2,"nodes":' + "[" * 900 + "]" * 900 + "}",
        '{"format":"ckpt-graph","version":NaN}',
        "9" * 100_000,
        "",
        "\ufeff",
        "null",
        '"\ud800"',
        '{"format": "' + "x" * 100_000 + '"}',
        '{"format": ["ckpt-graph"]}',
        '{"format": "ckpt-plan", "version": ' + "9" * 4000 + "}",
        "\0" * 1000,
    ],
)
@pytest.mark.parametrize("command", ["show", "simulate", "execute", "compare"])
def test_a_text_that_is_no_document(
    capsys: pytest.CaptureFixture[str], text: str, command: str
) -> None:
    Path("f.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    more = {"execute": ["mlp"], "compare": ["f.json"]}.get(command, [])
    result = called(capsys, [command, "f.json", *more])
    assert result.code == 2
    assert_harmless(result)
    assert "f.json" in result.err


@pytest.mark.parametrize("name", [".", "/dev/zero", "/dev/null", "absent", "x" * 5000])
@pytest.mark.parametrize("command", ["show NAME", "simulate NAME", "execute NAME mlp",
                                     "profile NAME:f", "simulate g.json NAME",
                                     "compare NAME NAME"])  # fmt: skip
def test_what_is_no_file(
    capsys: pytest.CaptureFixture[str], valid: dict[str, Any], command: str, name: str
) -> None:
    Path("g.json").write_text(json.dumps(valid["graph"]))
    result = called(capsys, command.replace("NAME", name).split())
    assert result.code == 2
    assert_harmless(result)


def test_a_document_may_be_as_deep_as_ours_and_deeper(valid: dict[str, Any]) -> None:
    notes: Any = 1
    for _ in range(DEEPEST - 3):
        notes = [notes]
    document = {**valid["schedule"], "notes": {"note": notes}}
    Path("f.json").write_text(json.dumps(document))
    assert documents.read("f.json").notes == {"note": notes}
    document["notes"] = {"note": [[[notes]]]}
    Path("f.json").write_text(json.dumps(document))
    with pytest.raises(ckpt.UsageError, match="nested too deep"):
        documents.read("f.json")


JUNK: list[Any] = [
    None, "x", -1, 0, 1, 5, 2**40, 2**62, 2**63, 10**40, 1.5, 1e308, [], {}, ["x"], [[1]], [[1, 2]],
    {"a": 1}, True, FORGED, "\ud800", "a" * 5000, "../../etc/passwd",
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def times(quick: int, deep: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("count", [quick, pytest.param(deep, marks=pytest.mark.slow)])


def mutated(document: Any, rng: random.Random) -> Any:
    made = deepcopy(document)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        *way, last = rng.choice(list(places(made)))
        at = made
        for key in way:
            at = at[key]
        change = rng.random()
        if change < 0.6:
            at[last] = deepcopy(rng.choice(JUNK))
        elif change < 0.7:
            del at[last]
        elif change < 0.8 and isinstance(at, list):
            at.insert(last, deepcopy(rng.choice(at)))
        elif type(at[last]) is int:
            at[last] += rng.choice([-1, 1, 7])
    return made


@times(120, 5000)
@pytest.mark.parametrize("kind", KINDS)
def test_any_mutation_loads_or_gives_one_line(valid: dict[str, Any], kind: str, count: int) -> None:
    rng = random.Random(kind)
    loaded = refused = 0
    for _ in range(count):
        Path("f.json").write_text(json.dumps(mutated(valid[kind], rng)))
        said = []
        refusal = ""
        try:
            document = documents.read("f.json")
            loaded += 1
            said.append(documents.describe(document))
            if kind != "graph":
                said.append(documents.describe(document, instructions=True))
            if loaded == 5:
                said.append(figure.to_svg(documents.draw(document)))
        except CkptError as error:
            refused += 1
            refusal = str(error)
        assert "\n" not in refusal
        for text in (*said, refusal):
            assert all(line.isprintable() for line in text.split("\n"))
    assert loaded > 5
    assert refused > 40


def test_one_long_name_does_not_widen_every_row(
    capsys: pytest.CaptureFixture[str], valid: dict[str, Any]
) -> None:
    """100 kB in one node; a table as wide in each of 400 rows would have 40 MB."""
    document = deepcopy(valid["graph"])
    document["nodes"][0]["name"] = "n" * 100_000
    document["nodes"] += [{"name": "more", "op": "f", "deps": [0], "nbytes": 8} for _ in range(400)]
    Path("f.json").write_text(json.dumps(document))
    result = called(capsys, ["show", "f.json"])
    assert result.code == 0, result.err
    assert len(result.out) < 500_000


# -- journals --------------------------------------------------------------------------------------

QUICK = ["--depth", "2", "--points", "2", "--no-measure", "-o", "s.csv"]
SWEEP = ["sweep", "--strategies", "sqrt", "--jobs", "1", *QUICK]
FRONTIER = ["frontier", "mlp", "--planners", "sqrt", *QUICK]
STUDIES = pytest.mark.parametrize("command", [SWEEP, FRONTIER], ids=["sweep", "frontier"])


def journal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> Path:
    """What a study that was stopped has left, and what it writes if it isn't."""

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    assert called(capsys, command).code == 0
    with monkeypatch.context() as patched:
        patched.setattr("ckpt.cli.outputs.write", stopped)
        assert called(capsys, command).code == 130
    return Path("s.partial.jsonl")


def untimed(path: Path) -> list[str]:
    """The rows without the seconds that planning took."""
    rows = [line.split(",") for line in path.read_text().splitlines()]
    timed = [k for k, name in enumerate(rows[0]) if name == "planning_seconds"]
    return [",".join(cell for k, cell in enumerate(row) if k not in timed) for row in rows]


@pytest.mark.filterwarnings("default")
@STUDIES
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda row: {**row, "KEY": [[]]}, "damaged and made anew"),
        (lambda row: {**row, "predicted_peak_nbytes": "x"}, "damaged and made anew"),
        (lambda row: {**row, "predicted_peak_nbytes": 10**400}, "damaged and made anew"),
        (lambda row: {**row, "predicted_peak_nbytes": True}, "damaged and made anew"),
        (lambda row: {**row, "recompute_flops": None}, "damaged and made anew"),
        (lambda row: {**row, "overhead": 1e999}, "no row"),
        (lambda row: {"KEY": 4}, "damaged and made anew"),
        (lambda row: {**row, "more": 4}, "damaged and made anew"),
    ],
)
def test_a_damaged_row_of_a_journal_is_told_of_and_made_anew(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    change: Callable[[dict[str, Any]], Any],
    says: str,
) -> None:
    path = journal(capsys, monkeypatch, command)
    whole = untimed(Path("s.csv"))
    lines = path.read_text().splitlines()
    key = "depth" if command is SWEEP else "budget_nbytes"
    lines[0] = json.dumps(change(json.loads(lines[0]))).replace("KEY", key)
    path.write_text("\n".join(lines) + "\n")
    result = called(capsys, command)
    assert "Traceback" not in result.err
    assert says in result.err
    assert "s.partial.jsonl" in result.err
    if result.code == 0:
        assert untimed(Path("s.csv")) == whole
    else:
        assert result.code == 2
        assert path.read_text().splitlines() == lines


@times(8, 400)
@STUDIES
@pytest.mark.filterwarnings("ignore")
def test_any_mutation_of_a_journal_makes_the_rows_or_gives_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    count: int,
) -> None:
    path = journal(capsys, monkeypatch, command)
    written = {p: p.read_text() for p in Path().glob("s.partial*")}
    rng = random.Random(1)
    for k in range(count):
        for p, text in written.items():
            p.write_text(text)
        victim = path if k % 4 else next(p for p in written if p != path)
        if victim == path:
            lines = victim.read_text().splitlines()
            place = rng.randrange(len(lines))
            lines[place] = json.dumps(mutated(json.loads(lines[place]), rng))
            victim.write_text("\n".join(lines) + "\n")
        else:
            victim.write_text(json.dumps(mutated(json.loads(victim.read_text()), rng)))
        result = called(capsys, command)
        assert result.code in (0, 2), result.err
        assert "Traceback" not in result.err
        assert all(line.isprintable() for line in (result.out + result.err).split("\n"))
        for p in Path().glob("s.*"):
            p.unlink()


@pytest.mark.filterwarnings("default")
@STUDIES
def test_a_file_of_somebody_elses_is_kept(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    Path("s.partial.jsonl").write_text("my notes\n")
    result = called(capsys, command)
    assert result.code == 0, result.err
    assert "s.partial.jsonl is of another run, and is now s.partial.1.jsonl" in result.err
    assert Path("s.partial.1.jsonl").read_text() == "my notes\n"
    assert not Path("s.partial.jsonl").exists()


def test_files_set_aside_do_not_replace_each_other() -> None:
    for k in range(3):
        Path("j.jsonl").write_text(f"{k}\n")
        with pytest.warns(UserWarning, match=f"j.{k + 1}.jsonl"):
            Journal("j.jsonl", {"k": k}).__exit__()
    assert [Path(f"j.{k}.jsonl").read_text() for k in (1, 2, 3)] == ["0\n", "1\n", "2\n"]


def test_a_name_that_is_a_path_names_no_file(folder: Path) -> None:
    def loss(w: Any) -> Any:
        return np.sum(w * w)

    made = ckpt.plan(loss, np.ones(3), name="../../x\0y")
    made.save("p.json")
    made.plot("p.svg")
    value, _ = ckpt.load_plan("p.json").bind(loss, np.ones(3))(np.ones(3))
    assert value == 3
    assert sorted(path.name for path in folder.iterdir()) == ["p.json", "p.svg"]


def test_models_are_known_in_any_case() -> None:
    assert build("RESNET20", batch=np.int64(2)).options["batch"] == 2
    with pytest.raises(ckpt.UsageError, match=r"unknown model 'restnet50'; did you mean resnet50"):
        build("restnet50")
