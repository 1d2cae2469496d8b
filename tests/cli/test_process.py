"""What only a process of its own shows: imports, signals, pipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cli.running import spawn

HEAVY = ("ckpt.planners", "numpy", "matplotlib", "scipy", "torch", "jax", "click", "ckpt.tape")
SWEEP = ("sweep", "--depth", "40", "--points", "3", "--width", "16", "--jobs", "1", "-o", "o/s.csv")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom ckpt.cli.app import call\ncode = call(['--help'])\n"
        f"print('loaded:', code, [m for m in {HEAVY!r} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
    assert out.splitlines()[-1] == "loaded: 0 []"
    assert "sweep" in out


def test_help_of_a_command_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom ckpt.cli.app import call\ncode = call(['sweep', '--help'])\n"
        f"print('loaded:', code, [m for m in {HEAVY!r} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
    assert out.splitlines()[-1] == "loaded: 0 []"


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    process = spawn("profile", "mlp", "--depth", "300", "--no-measure", "--json", folder=tmp_path)
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def wait_for_rows(path: Path, number: int) -> None:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text().count("\n") >= number):
        assert time.monotonic() < deadline, "no rows were made"
        time.sleep(0.02)


def test_an_interrupted_sweep_keeps_its_rows_and_goes_on(tmp_path: Path) -> None:
    partial = tmp_path / "o" / "s.partial.jsonl"
    process = spawn(*SWEEP, folder=tmp_path)
    wait_for_rows(partial, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to its workers too
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "o/s.partial.jsonl; the same command goes on from there" in err
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    assert [p.name for p in partial.parent.glob("s.csv*")] == []
    kept = [json.loads(line) for line in partial.read_text().splitlines()]
    assert kept
    assert_goes_on(tmp_path, kept)


def test_a_killed_sweep_goes_on(tmp_path: Path) -> None:
    partial = tmp_path / "o" / "s.partial.jsonl"
    process = spawn(*SWEEP, folder=tmp_path)
    wait_for_rows(partial, 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    with partial.open("a") as file:
        file.write('{"model": "residual_m')  # as if it had been cut off while writing
    kept = [json.loads(line) for line in partial.read_text().splitlines()[:-1]]
    assert_goes_on(tmp_path, kept)


def assert_goes_on(folder: Path, kept: list[dict[str, object]]) -> None:
    """The same command ends well, its rows the kept ones - with their very times - and the rest."""
    command = [*SWEEP[:-1], "o/s.jsonl"]
    done = spawn(*command, folder=folder)
    _, err = done.communicate()
    assert done.returncode == 0, err
    rows = [json.loads(line) for line in (folder / "o" / "s.jsonl").read_text().splitlines()]
    seconds = {(row["depth"], row["strategy"]): row["seconds"] for row in rows}
    for row in kept:
        assert seconds[row["depth"], row["strategy"]] == row["seconds"]
    assert all(row["gradients_equal"] and row["agrees"] for row in rows)
    assert not (folder / "o" / "s.partial.jsonl").exists()


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "ckpt", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0
    assert done.stdout.startswith("ckpt ")
