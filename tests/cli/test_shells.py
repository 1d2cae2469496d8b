"""Completion at a Tab in real shells, each in a terminal of its own."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import sys
import time
from pathlib import Path

import pytest

SHELLS = {
    "bash": (["--norc", "-i"], 'eval "$(ckpt completion bash 2>/dev/null)"'),
    "zsh": (["-f", "-i"], 'autoload -Uz compinit; compinit -u; eval "$(ckpt completion zsh)"'),
    "fish": (["--no-config", "-i"], "ckpt completion fish 2>/dev/null | source"),
}
TAB, TO_START, TO_END = "\t", "\x01", "\x05"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("def job(): ...\ndef loss(x): ...\n")
    (tmp_path / "my dir").mkdir()
    (tmp_path / "my dir" / "big.py").write_text("def make(): ...\n")
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "notes.json").write_text("{}")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "ckpt"
    command.write_text(f"#!{sys.executable}\nfrom ckpt.cli import main\nmain()\n")
    command.chmod(0o755)
    return tmp_path


def typed(shell: str, folder: Path, *lines: str) -> list[list[str]]:
    """The words that a shell reads where each line, Tabs in it, is typed and completed."""
    arguments, setup = SHELLS[shell]
    root = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "HOME": str(folder),
        "TERM": "dumb",
    }
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execvpe(shell, [shell, *arguments], environment)
    try:
        _type(terminal, f"{setup}; echo rea''dy\n", "ready")
        found = []
        for line in lines:
            asked = f"{line}{TO_START}printf '<%s>' {TO_END}; echo do''ne\n"
            words = re.findall(r"((?:<[^>\n]*>)+)done", _type(terminal, asked, "done"))[-1]
            found.append(words[1:-1].split("><"))
        return found
    finally:
        os.close(terminal)
        os.waitpid(child, 0)


def _type(terminal: int, text: str, until: str) -> str:
    os.write(terminal, text.encode())
    said, end = "", time.monotonic() + 120
    while not re.search(rf"{until}\r?\n", said):
        assert time.monotonic() < end, said
        if select.select([terminal], [], [], 1)[0]:
            said += os.read(terminal, 65536).decode(errors="replace")
    return said


@pytest.mark.parametrize("shell", list(SHELLS))
def test_a_tab_completes(shell: str, folder: Path) -> None:
    """A file and then its function; what follows an equals sign or a comma; a folder's blank; and
    a file where ckpt has no word of its own."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    assert typed(
        shell,
        folder,
        f"ckpt profile tr{TAB}j{TAB}",
        f"ckpt plan my\\ dir/b{TAB}make --cost=s{TAB}",
        f"ckpt frontier mlp --planners chain,dt{TAB}",
        f"ckpt show plots/n{TAB}",
    ) == [
        ["ckpt", "profile", "train.py:job"],
        ["ckpt", "plan", "my dir/big.py:make", "--cost=seconds"],
        ["ckpt", "frontier", "mlp", "--planners", "chain,dtr"],
        ["ckpt", "show", "plots/notes.json"],
    ]
