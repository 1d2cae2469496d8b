"""Running the command line: in this process, where it is quick, or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from ckpt.cli.app import call

LISTENING = """
import signal
from ckpt.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
"""``ckpt`` hearing Ctrl-C even where the tests run as a shell's background job, which doesn't."""


class Result(NamedTuple):
    code: int
    out: str
    err: str


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Result:
    """What ``ckpt ARGUMENTS`` prints and returns; an argument may hold several words."""
    capsys.readouterr()
    code = call([word for argument in arguments for word in argument.split()])
    captured = capsys.readouterr()
    return Result(code, captured.out, captured.err)


def spawn(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    """``ckpt ARGUMENTS`` as a process of its own, started in ``folder``."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-c", LISTENING, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
