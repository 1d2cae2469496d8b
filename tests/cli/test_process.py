"""What only a process of its own shows: imports, signals, pipes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
    measured = [row for row in rows if "@" not in row["strategy"]]  # the others are predicted
    assert all(row["gradients_equal"] and row["agrees"] for row in measured)
    assert not (folder / "o" / "s.partial.jsonl").exists()


def test_the_module_is_the_command() -> None:
    command = [sys.executable, "-m", "ckpt", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0
    assert done.stdout.startswith("ckpt ")


SHORT = ("profile", "mlp", "--depth", "2", "--width", "8", "--batch", "4")


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize(
    ("where", "code", "says"),
    [
        (">/dev/full", 2, "standard output: no space left"),
        (">&-", 2, "standard output: bad file descriptor"),
        ("2>/dev/full", 0, ""),
        ("2>&-", 0, ""),
    ],
)
def test_streams_that_take_nothing(
    tmp_path: Path, options: tuple[str, ...], where: str, code: int, says: str
) -> None:
    command = shlex.join([sys.executable, "-m", "ckpt", *SHORT, *options])
    done = shell(f"{command} {where}", tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    if code == 0 and options:
        json.loads(done.stdout)


PRINTING = r"""
import atexit, os, sys
import numpy as np
print("loading")
atexit.register(print, "leaving")
os.system("echo from a child")

def go():
    os.write(1, b"raw\n")
    sys.__stdout__.write("dunder\n")
    return (lambda w: np.sum(np.tanh(w) ** 2)), np.ones(64)
"""


def test_a_target_that_prints_leaves_the_document_alone(tmp_path: Path) -> None:
    (tmp_path / "my model.py").write_text(PRINTING)
    done = shell(f"{sys.executable} -m ckpt profile 'my model.py:go' --json", tmp_path)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    for said in ("loading", "from a child", "raw", "dunder", "leaving"):
        assert said in done.stderr
    [hint] = [line for line in done.stderr.splitlines() if line.startswith("next: ckpt ")]
    again = shell(f"{sys.executable} -m {hint.removeprefix('next: ')}", tmp_path)
    assert again.returncode == 0, again.stderr


def test_too_little_memory_to_load_libraries_is_no_bug(tmp_path: Path) -> None:
    program = (
        "import sys\nclass Full:\n    def find_spec(self, name, *_):\n"
        "        if name == 'numpy': raise ImportError('x.so: failed to map segment from object')\n"
        "sys.meta_path.insert(0, Full())\nfrom ckpt.cli import main\nmain(['profile', 'mlp'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: not enough memory")


def test_no_budget_that_is_feasible_and_no_planner_that_is_there(tmp_path: Path) -> None:
    small = ["mlp", "--depth", "6", "--width", "8", "--batch", "4"]
    done = shell(
        shlex.join([sys.executable, "-m", "ckpt", "frontier", *small, "--budgets", "1B"]), tmp_path
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("error: store_all: no schedule within 1 B")
    program = (
        "import sys\nclass Lacking:\n    def find_spec(self, name, *_):\n"
        "        if name.startswith('scipy'): raise ModuleNotFoundError('no scipy')\n"
        "sys.meta_path.insert(0, Lacking())\nfrom ckpt.cli import main\nmain(sys.argv[1:])"
    )
    for given in (
        ["frontier", *small, "--planners", "ilp", "--budgets", "60%"],
        ["plan", *small, "--planner", "ilp", "--budget", "60%"],
    ):
        done = shell(shlex.join([sys.executable, "-c", program, *given]), tmp_path)
        assert done.returncode == 5, done.stderr
        assert "pip install 'ckpt-profiler[ilp]'" in done.stderr.splitlines()[-1]


def test_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = shell(f"cd gone && rmdir ../gone && {sys.executable} -m ckpt sweep --depth 2", tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: the working folder is gone; change to one that is there\n"


def test_a_backend_that_there_is_not_is_no_hindrance(tmp_path: Path) -> None:
    command = shlex.join([sys.executable, "-m", "ckpt", *SHORT, "-o", "a.svg"])
    done = shell(f"MPLBACKEND=nonsense {command}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.svg").exists()


def test_a_sweep_that_is_ended_from_outside_says_so(tmp_path: Path) -> None:
    process = spawn(*SWEEP, folder=tmp_path)
    wait_for_rows(tmp_path / "o" / "s.partial.jsonl", 1)
    process.terminate()
    _, err = process.communicate()
    assert process.returncode == 143, err
    assert err.splitlines()[-1] == "stopped"
    assert "Traceback" not in err


def test_an_interrupt_while_the_command_is_imported_is_told_of_in_a_line() -> None:
    program = (
        "import sys, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Press:\n    def find_spec(self, name, *_):\n"
        "        if name == 'typer': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Press())\nfrom ckpt.cli import main\nmain(['--version'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )


def family(pid: int) -> list[int]:
    """The processes that descend from it and live."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            parents[int(stat.parent.name)] = int(parent)
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_workers_end_with_the_command(
    tmp_path: Path, number: signal.Signals, code: int, group: bool
) -> None:
    """A closed terminal tells the whole group, and whoever kills the command that alone."""
    command = ["sweep", "--depth", "200", "--points", "2", "--jobs", "3", "-o", "o/s.csv"]
    process = spawn(*command, folder=tmp_path)
    wait_for_rows(tmp_path / "o" / "s.partial.jsonl", 1)
    workers = family(process.pid)
    assert len(workers) >= 3
    (os.killpg if group else os.kill)(process.pid, number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert err.splitlines()[-1] == "stopped"
    assert "Traceback" not in err
    end = time.monotonic() + 10
    while alive := [pid for pid in workers if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < end, alive
        time.sleep(0.05)
    rows = (tmp_path / "o" / "s.partial.jsonl").read_text().splitlines()
    assert rows
    assert all(json.loads(row) for row in rows)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_frontier_whose_worker_is_killed_keeps_its_rows_and_goes_on(tmp_path: Path) -> None:
    command = [
        "frontier", "mlp", "--depth", "20", "--planners", "sqrt,every:3,every:4,greedy,chain",
        "--points", "6", "--no-measure", "--jobs", "1", "-o", "o/f.jsonl",
    ]  # fmt: skip
    journal, written = tmp_path / "o" / "f.partial.jsonl", tmp_path / "o" / "f.jsonl"
    process = spawn(*command, folder=tmp_path)
    wait_for_rows(journal, 3)
    for worker in family(process.pid):
        if "spawn_main" in Path(f"/proc/{worker}/cmdline").read_text():  # not Python's own helper
            os.kill(worker, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "Traceback" not in err
    assert "a worker process died" in err.splitlines()[-1]
    assert f"{journal.name}; the same command goes on from there" in " ".join(err.split())
    kept = [json.loads(line) for line in journal.read_text().splitlines()]
    again = spawn(*command, folder=tmp_path)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    keys = [(row["planner"], row["budget_nbytes"]) for row in rows]
    assert len(set(keys)) == len(keys) == 5 * 6
    took = dict(zip(keys, (row["planning_seconds"] for row in rows), strict=True))
    before = [row for row in kept if "planner" in row]
    assert before
    for row in before:
        assert took[row["planner"], row["budget_nbytes"]] == row["planning_seconds"]
