"""Ctrl-C at any moment of a command, by a real signal: one line, exit code 130, nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ENTRY = {
    "script": "import ckpt.cli\nckpt.cli.main()",
    "module": "import runpy\nrunpy.run_module('ckpt', run_name='__main__', alter_sys=True)",
}
TELLING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)

class Begun:
    def find_spec(self, name, *_):
        if name == "ckpt.cli.app":
            os.write(1, b".")

sys.meta_path.insert(0, Begun())
"""
"""Writes a dot when the first line of `ckpt.cli.main` is done. Before that Python itself starts."""


def begin(entry: str, *arguments: str, folder: Path) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", TELLING + ENTRY[entry], *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.read(1) == b"."
    return process


def interrupted(process: subprocess.Popen[bytes], delay: float) -> tuple[int, list[str]]:
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=60)
    return process.returncode, err.decode().splitlines()


@pytest.mark.parametrize("entry", ENTRY)
@pytest.mark.parametrize(
    "command",
    [
        "profile mlp --depth 60 --width 256 --batch 512",
        "frontier gpt2 --no-measure --planners chain,auto -o f.csv",
        "lesson",
    ],
)
def test_a_line_whatever_is_being_imported(entry: str, command: str, tmp_path: Path) -> None:
    heard = 0
    for k in range(12):
        process = begin(entry, *command.split(), folder=tmp_path)
        code, err = interrupted(process, 0.05 * k)
        if code == 0:  # it was quicker
            assert not any("Traceback" in line for line in err), err
            continue
        assert (code, err[-1:]) == (130, ["interrupted"]), err
        assert len(err) == 1
        heard += 1
    assert heard >= 2  # at once, and while typer is imported


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_sweep_keeps_the_rows_it_has(jobs: str, tmp_path: Path) -> None:
    command = f"sweep --depth 60 --points 3 --width 16 --jobs {jobs} -o s.csv"
    journal = tmp_path / "s.partial.jsonl"
    kept: list[str] = []
    for k in range(8):
        process = begin("script", *command.split(), folder=tmp_path)
        while k > 5 and process.poll() is None and len(lines(journal)) <= len(kept):
            time.sleep(0.02)
        code, err = interrupted(process, 0.2 * (k % 6))
        assert code in (0, 130), err
        assert not any("Traceback" in line for line in err), err
        if code == 0:
            return
        rows = lines(journal)
        assert rows[: len(kept)] == kept  # none of an earlier run is lost
        assert all(json.loads(row) for row in rows)
        assert err[-1] == "interrupted"
        assert len(err) == 1 + any(journal.name in line for line in err)
        kept = rows
    assert kept


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_who_presses_it_again_and_again_gets_a_line_too(tmp_path: Path) -> None:
    for k in range(6):
        process = begin("script", "profile", "gpt2", "--no-measure", folder=tmp_path)
        for _ in range(4):
            time.sleep(0.02 * k)
            os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert err.decode().splitlines() == ["interrupted"]


SWALLOWING = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    raise {error}("cannot import name '_ccallback'") from None
"""


@pytest.mark.parametrize("error", ["ImportError", "ModuleNotFoundError", "SystemError"])
def test_an_extension_that_swallows_it_changes_nothing(error: str, tmp_path: Path) -> None:
    command = "plan mlp --planner ilp --budget 50%"
    scipy = tmp_path / "scipy"
    scipy.mkdir()
    (scipy / "__init__.py").write_text(SWALLOWING.format(error=error))
    ran = subprocess.run(
        [sys.executable, "-c", TELLING + ENTRY["script"], *command.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ran.returncode, ran.stderr.splitlines()) == (130, ["interrupted"])


def test_a_damaged_package_is_no_bug_of_ours(tmp_path: Path) -> None:
    scipy = tmp_path / "scipy"
    scipy.mkdir()
    (scipy / "__init__.py").write_text("raise ImportError('libopenblas.so: no such file')")
    ran = subprocess.run(
        [sys.executable, "-m", "ckpt", "plan", "mlp", "--budget", "50%", "--planner", "ilp"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = "error: an installed package can't be imported: libopenblas.so: no such file"
    assert (ran.returncode, ran.stderr.splitlines()) == (5, [said])
