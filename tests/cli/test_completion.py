"""Completion in a real bash, with the script that ``ckpt completion bash`` prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ckpt.cli import app
from ckpt.cli.shared import words as offered
from tests.cli.running import run

BASH = shutil.which("bash")
needs_bash = pytest.mark.skipif(BASH is None, reason="there is no bash here")

# What bash does at a Tab: it splits the line at COMP_WORDBREAKS and calls the function.
DRIVER = r"""
eval "$(ckpt completion bash 2>/dev/null)"
compopt() { printf 'compopt %s %s\n' "$@"; }
while IFS= read -r COMP_LINE; do
    COMP_POINT=${#COMP_LINE} COMPREPLY=()
    _ckpt_completion
    printf '%s\n' "${COMPREPLY[@]}" --
done
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text(
        "def job(): ...\ndef jump(a=1, *, b=2): ...\ndef loss(x): ...\ndef keys(*, k): ...\n"
        "class Jar: ...\nraise SystemExit('this file is not to be run')\n"
    )
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "big.py").write_text("def make(): ...\n")
    (tmp_path / "broken.py").write_text("def (:\n")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "ckpt"
    command.write_text(f"#!{sys.executable}\nfrom ckpt.cli import main\nmain()\n")
    command.chmod(0o755)
    return tmp_path


def in_bash(folder: Path, *lines: str) -> list[list[str]]:
    """What bash is offered at the end of each line."""
    assert BASH is not None
    root = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    done = subprocess.run(
        [BASH, "--norc", "-c", DRIVER], input="".join(f"{line}\n" for line in lines), cwd=folder,
        env=environment, capture_output=True, text=True, check=True, timeout=240,
    )  # fmt: skip
    assert done.stderr == ""
    return [block.split("\n")[:-1] for block in done.stdout.split("--\n")[:-1]]


@needs_bash
def test_a_files_functions_complete_behind_its_colon(folder: Path) -> None:
    """Bash takes the colon for the end of a word: only what follows it may be answered."""
    named, begun, deep = in_bash(
        folder, "ckpt profile tr", "ckpt profile train.py:j", "ckpt plan tools/big.py:"
    )
    assert named == ["compopt -o nospace", "train.py:"]
    assert begun == ["job", "jump"]  # and neither what needs arguments, nor what is no function
    assert deep == ["make"]


@needs_bash
def test_options_of_the_target_complete_behind_set(folder: Path) -> None:
    names, value, budget = in_bash(
        folder, "ckpt profile gpt --set he", "ckpt plan gpt --set dtype=fl",
        "ckpt plan gpt --budget 64",
    )  # fmt: skip
    assert names == ["compopt -o nospace", "heads="]
    assert value == ["float16", "float32", "float64"]
    assert budget == ["64%", "64KiB", "64MiB", "64GiB", "64MB", "64GB", "64B"]


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    for name in ("_CKPT_COMPLETE", "_TYPER_COMPLETE_FISH_ACTION", "_TYPER_COMPLETE_ARGS"):
        monkeypatch.setenv(name, "")  # which `complete` sets, for one process
    return folder


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pro", ["profile"]),
        ("profile gpt", ["gpt", "gpt2", "gpt2-medium", "gpt2-xl", "gpt3"]),
        ("profile to", ["tools/"]),
        ("profile tools/", ["tools/big.py:"]),
        ("profile broken.py:", []),
        ("profile nowhere/x", []),
        ("profile no", []),
        ("plan mlp --planner re", ["recompute_all", "revolve"]),
        ("plan mlp --planner every:", ["every:2", "every:4", "every:8", "every:16"]),
        ("plan mlp --planner sqrt:", []),
        ("plan mlp --budget 2", ["2%", "2KiB", "2MiB", "2GiB", "2MB", "2GB", "2B"]),
        ("plan mlp --budget 25%", ["25%"]),
        ("plan mlp --budget ", ["25%", "50%", "75%", "64MiB", "1GiB", "4GB"]),
        ("plan mlp --cost s", ["seconds"]),
        ("plan unet --set dro", []),
        ("plan gpt2 --set dropout=", ["dropout=0.1"]),
        ("plan bottleneck_resnet --set chen=", ["chen=true", "chen=false"]),
        ("plan train.py:job --set d", []),
        ("profile mlp --by l", ["line"]),
        ("profile mlp --dtype ", ["float32", "float64", "float16"]),
        ("profile mlp --witness m", ["memray"]),
        ("frontier mlp --planners chain,dt", ["chain,dtr"]),
        ("frontier mlp --planners chain,chai", []),
        ("frontier mlp --budgets 25%,7", ["25%,7%", "25%,7KiB", "25%,7MiB", "25%,7GiB",
                                          "25%,7MB", "25%,7GB", "25%,7B"]),
        ("sweep --model mo", ["mobilenet", "mobilenet-v1"]),
        ("sweep --model gpt --set vo", ["vocab="]),
        ("sweep --strategies sqrt,pl", ["sqrt,planned", "sqrt,planned@20%"]),
        ("models vgg1", ["vgg16", "vgg19"]),
        ("completion f", ["fish"]),
        ("plan mlp --cost=s", ["--cost=seconds"]),
        ("plan mlp --budget=2", ["--budget=2%", "--budget=2KiB", "--budget=2MiB", "--budget=2GiB",
                                 "--budget=2MB", "--budget=2GB", "--budget=2B"]),
        ("profile 'tools/", ["tools/big.py:"]),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("here")
def test_words(line: str, words: list[str]) -> None:
    assert app.complete(f"ckpt {line}") == words


@pytest.mark.usefixtures("here")
def test_what_a_shell_takes_for_an_earlier_word_is_cut_off() -> None:
    for line, breaks, left in (
        ("ckpt profile tools/big.py:", ":=", ["make"]),
        ("ckpt profile tools/big.py:", " \t", ["tools/big.py:make"]),
        ("ckpt plan mlp --cost=s", ":=", ["seconds"]),
        ("ckpt profile tools/", ":=", ["tools/big.py:"]),
    ):
        assert app.complete(line, breaks) == left


def test_what_is_offered_is_what_there_is() -> None:
    """Words that are written down here a second time, against where they are read."""
    from ckpt.reports.ledger import GROUPS
    from ckpt.studies.plan import COSTS
    from ckpt.witness import WITNESSES

    assert {*offered.groups("")} == {*GROUPS, "node"}
    assert {*offered.witnesses("")} == {*WITNESSES, "all"}
    assert {*offered.costs("")} == {*COSTS}


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "completion zsh")
    assert (code, "compdef _ckpt ckpt" in out) == (0, True)
    assert 'next: eval "$(ckpt completion zsh)"' in err
    code, out, err = run(capsys, "completion tcsh")
    assert (code, out) == (2, "")
    assert "unknown shell 'tcsh'; choose from bash, zsh, fish" in err
