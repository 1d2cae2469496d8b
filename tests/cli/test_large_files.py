"""Files of a million instructions: read in memory and time in proportion to what is in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("resource")

N = 60_000
NODE = {"name": "n", "op": "tanh", "nbytes": 32, "flops": 4, "shape": [4], "dtype": "float64"}


def chain(n: int) -> dict[str, object]:
    nodes = [{"name": "x", "op": "input", "nbytes": 32, "resident": True}]
    nodes += [{**NODE, "name": f"n{i}", "deps": [i - 1]} for i in range(1, n)]
    steps = [{"label": "tanh", "reads": [n - 1 - k], "flops": 8} for k in range(n - 1)]
    about = {"format": "ckpt-graph", "version": 2, "name": "", "gradients": "beforehand"}
    return {**about, "nodes": nodes, "steps": steps, "rows": [], "outputs": [n - 1]}


def schedule(instructions: list[str]) -> dict[str, object]:
    about = {"format": "ckpt-schedule", "version": 2, "graph": "", "planner": "", "proof": None}
    return {**about, "budget_nbytes": None, "notes": {}, "instructions": instructions}


def store_all(n: int) -> list[str]:
    back = (t for k in range(n - 1) for t in (f"backward {k}", f"free {n - 1 - k}"))
    text = [*(f"compute {i}" for i in range(1, n)), *back]
    return [t for t in text if t != f"free {n - 1}"]


def spent(*arguments: str, folder: Path) -> tuple[int, float, int, str]:
    """Exit code, CPU seconds, most bytes resident, and what ended up on stderr."""
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-m", "ckpt", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    drain = threading.Thread(target=process.stdout.read)
    drain.start()
    said = process.stderr.read()
    drain.join()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    process.stderr.close()
    return process.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, said


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("show g.json", 0),
        ("show s.json", 0),
        ("show s.json --instructions", 0),
        ("simulate g.json s.json", 0),
        ("simulate g.json s.txt", 0),
        ("simulate g.json again.txt", 2),
        ("show nonsense.json", 2),
    ],
)
def test_memory_and_time_are_in_proportion_to_the_file(
    tmp_path: Path, command: str, code: int
) -> None:
    seconds, most = [], []
    sizes = []
    for n in (N // 4, N):
        folder = tmp_path / str(n)
        folder.mkdir()
        there = store_all(n)
        (folder / "g.json").write_text(json.dumps(chain(n)))
        (folder / "s.json").write_text(json.dumps(schedule(there)))
        (folder / "s.txt").write_text("\n".join(there) + "\n")
        (folder / "again.txt").write_text("compute 1\nfree 1\n" * n)
        (folder / "nonsense.json").write_text(json.dumps(schedule(["x"] * n)))
        found, time, peak, said = spent(*command.split(), folder=folder)
        assert found == code, said
        assert len(said.splitlines()) <= 1, said
        files = [folder / word for word in command.split() if "." in word]
        sizes.append(sum(file.stat().st_size for file in files))
        seconds.append(time)
        most.append(peak)
    assert most[1] - most[0] < 14 * (sizes[1] - sizes[0]) + 2**20
    assert seconds[1] < 8 * seconds[0]  # four times as much, and not sixteen
