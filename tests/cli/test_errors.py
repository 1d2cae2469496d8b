"""Every mistake gives its exit code and one clear line: where, what, the value, the way out."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from tests.cli.running import Result, run

TARGETS = """
    import sys
    import numpy as np
    import ckpt

    W = np.ones((3, 4))
    number = 3

    def raises():
        raise KeyError("oops")                                      # line 9

    def leaves():
        sys.exit(3)                                                 # line 12

    def wrong():
        return {"a": 1}

    def alone():
        return (lambda w: np.sum(w),)

    def needs(a):
        return a

    def vector():
        return (lambda w: np.tanh(w)), W

    def integers():
        return (lambda w: np.sum(w * w)), np.ones((3, 4), int)

    def objects():
        return (lambda w: np.sum(w * w)), np.ones((3, 4), object)

    def mismatch():
        return (lambda w, x: np.sum(x @ w)), W, np.ones((2, 5))     # line 33

    def unruled():
        return (lambda w: np.sum(np.unwrap(w))), W                  # line 36

    def branches():
        return (lambda w: w if np.sum(w) > 0 else -w), W            # line 39

    def writes():
        def loss(w):
            y = w * 2
            y[0] = 1                                                # line 44
            return np.sum(y)
        return loss, W

    def adds():
        def loss(w):
            a = np.ones((3, 4))
            a += w                                                  # line 51
            return np.sum(a)
        return loss, W

    def infinite():
        return (lambda w: np.sum(1 / w)), W * 0                     # line 56

    def constant():
        return (lambda w, x: np.sum(x * 2.0)), W, W

    def nothing():
        return (lambda w: None), W

    def converts():
        return (lambda w: float(np.sum(w))), W                      # line 65

    def shapes():
        return (lambda w: np.sum(w * w)), ckpt.spec((3, 4))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for each test, with files of targets in it."""
    monkeypatch.chdir(tmp_path)
    Path("t.py").write_text(textwrap.dedent(TARGETS).lstrip())
    Path("unparsable.py").write_text("x = 1\ndef f(:\n")
    return tmp_path


def assert_one_line(result: Result, code: int, *words: str) -> None:
    assert result.code == code, result.err
    assert result.out == ""
    lines = [line for line in result.err.splitlines() if not line.startswith("warning:")]
    if code == 3 and lines[-1].startswith("next: ckpt plan "):  # the way out, to be pasted
        lines.pop()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nope", ["unknown model 'nope'", "residual_mlp"]),
        ("missing.py:f", ["missing.py", "no such file"]),
        ("unparsable.py:f", ["unparsable.py:2", "doesn't parse"]),
        ("t.py", ["file.py:name"]),
        ("t.py:", ["file.py:name"]),
        ("t.py:absent", ["t.py", "'absent'"]),
        ("t.py:number", ["'number'", "a function without arguments"]),
        ("t.py:needs", ["'needs'", "a function without arguments"]),
        ("t.py:raises", ["t.py:9", "KeyError: 'oops'"]),
        ("t.py:leaves", ["t.py:12", "SystemExit"]),
        ("t.py:wrong", ["wrong() returned a dict", "loss function"]),
        ("t.py:alone", ["alone() returned a tuple of 1", "loss function"]),
        ("t.py:vector", ["t.py:vector", "(3, 4)", "not a scalar", "np.mean"]),
        ("t.py:integers", ["t.py:integers", "int64", "float"]),
        ("t.py:objects", ["t.py:objects", "object"]),
        ("t.py:mismatch", ["t.py:33", "(2, 5)", "(3, 4)"]),
        ("t.py:unruled", ["t.py:36", "np.unwrap", "ckpt ops"]),
        ("t.py:branches", ["t.py:39", "np.where"]),
        ("t.py:writes", ["t.py:44", "np.where"]),
        ("t.py:adds", ["t.py:51", "x = x + value"]),
        ("t.py:constant", ["t.py:constant", "none of the parameters"]),
        ("t.py:nothing", ["t.py:nothing", "NoneType"]),
        ("t.py:converts", ["t.py:65", "float()"]),
    ],
)
@pytest.mark.parametrize("command", ["profile", "plan"])
def test_a_target_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], command: str, target: str, words: list[str]
) -> None:
    assert_one_line(run(capsys, command, target), 2, *words)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nan_stops_at_the_first_value_that_is_not_finite(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(capsys, "profile", "t.py:infinite", "--json").code == 0
    assert_one_line(run(capsys, "profile", "t.py:infinite", "--nan"), 2, "t.py:56", "inf")


def test_shapes_alone_are_profiled_and_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    result = run(capsys, "profile", "t.py:shapes")
    assert result.code == 0
    assert "measured" not in result.out
    assert "nothing is measured" in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("profile mlp --depth 0", ["depth", "0"]),
        ("profile mlp --depth=-1", ["depth", "-1"]),
        ("profile mlp --depth x", ["--depth", "x", "integer"]),
        ("profile mlp --dtype int7", ["int7", "float32"]),
        ("profile mlp --set foo=3", ["'foo'", "width"]),
        ("profile mlp --set foo", ["NAME=VALUE", "'foo'"]),
        ("profile t.py:shapes --depth 3", ["--depth", "t.py:shapes"]),
        ("profile mlp --sort foo", ["'foo'", "kept_nbytes"]),
        ("profile mlp --by foo", ["'foo'", "op, line, scope"]),
        ("profile mlp --top 0", ["top", "0"]),
        ("profile mlp --argnums 9", ["9", "2 arguments"]),
        ("profile mlp --argnums a", ["--argnums", "'a'"]),
        ("profile mlp --budget 25", ["'25' has no unit", "25MiB"]),
        ("profile mlp --planner foo", ["'foo'", "chain"]),
        ("profile mlp --bogus", ["--bogus"]),
        ("profile", ["TARGET"]),
        ("sweep --depth 0", ["depth", "0"]),
        ("sweep --depth=-1", ["depth", "-1"]),
        ("sweep --depth x", ["--depth", "x", "integer"]),
        ("sweep --depths 4,0", ["depths", "0"]),
        ("sweep --depths 4,a", ["--depths", "'a'"]),
        ("sweep --depths ,", ["--depths", "empty"]),
        ("sweep --points 0", ["points", "0"]),
        ("sweep --repeats 0", ["repeats", "0"]),
        ("sweep --depth 2 --jobs 0", ["jobs", "0"]),
        ("sweep --model foo", ["'foo'", "mlp"]),
        ("sweep --width 0", ["width", "0"]),
        ("sweep --strategies foo", ["'foo'", "per_layer", "chain"]),
        ("sweep --strategies segments:x", ["'segments:x'", "segments:10"]),
        ("sweep --strategies sqrt:3", ["'sqrt:3'"]),
        ("sweep --strategies every:x", ["'x'", "every:x"]),
        ("sweep --strategies chain@25", ["'25' has no unit"]),
        ("sweep --depth 9 --segments 10", ["segments", "9", "10"]),
        ("plan mlp --budget 25", ["'25' has no unit", "25%"]),
        ("plan mlp --budget 125%", ["125%"]),
        ("plan mlp --budget=", ["''", "64MiB"]),
        ("plan mlp --cost time", ["'time'", "seconds"]),
        ("show nope.json", ["nope.json", "no such file"]),
        ("show t.py", ["t.py", "JSON"]),
        ("simulate nope.json", ["nope.json", "no such file"]),
        ("execute nope.json mlp", ["nope.json", "no such file"]),
        ("models nope", ["'nope'"]),
        ("ops nope", ["'nope'"]),
        ("nope", ["nope"]),
    ],
)
def test_an_option_that_cannot_be_used(
    capsys: pytest.CaptureFixture[str], arguments: str, words: list[str]
) -> None:
    assert_one_line(run(capsys, arguments), 2, *words)


@pytest.mark.parametrize("command", ["profile mlp", "plan mlp", "sweep", "frontier mlp"])
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("out.xyz", ["'.xyz'", ".svg"]),
        ("out", ["no extension"]),
        ("t.py/out.svg", ["not a folder"]),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    capsys: pytest.CaptureFixture[str], command: str, path: str, words: list[str]
) -> None:
    assert_one_line(run(capsys, command, "-o", path), 2, path, *words)


def test_a_folder_that_is_read_only(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    assert_one_line(run(capsys, "sweep"), 2, "plots/sweep.png", "no permission")
    assert not (folder / "plots").exists()


@pytest.mark.parametrize("command", ["profile", "plan"])
def test_a_budget_that_no_plan_fits(capsys: pytest.CaptureFixture[str], command: str) -> None:
    options = ["mlp", "--depth", "6", "--planner", "chain", "--budget", "64KiB"]
    assert_one_line(run(capsys, command, *options), 3, "65536", "smallest", "set by")


def test_a_step_that_does_not_fit_this_machine_is_refused_before_it_allocates(
    capsys: pytest.CaptureFixture[str],
) -> None:
    huge = ["mlp", "--depth", "3", "--batch", "1000000000"]
    result = run(capsys, "profile", *huge, "--measure")
    assert_one_line(result, 2, "TiB", "free here", "--no-measure")
    predicted = run(capsys, "profile", *huge)
    assert predicted.code == 0
    assert "predicted only: one step of mlp needs" in predicted.err


def test_a_missing_solver(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("scipy", "scipy.optimize"):
        monkeypatch.setitem(sys.modules, name, None)
    options = ["mlp", "--depth", "4", "--planner", "ilp", "--budget", "90%"]
    assert_one_line(run(capsys, "plan", *options), 5, "pip install 'ckpt-profiler[ilp]'")


def test_a_bug_of_ours_says_so_and_keeps_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("inside")

    monkeypatch.setattr("ckpt.studies.profile.profile", broken)
    result = run(capsys, "profile", "mlp", "--depth", "2")
    assert result.code == 1
    assert "Traceback" in result.err
    assert result.err.splitlines()[-1].startswith("error: this is a bug")
