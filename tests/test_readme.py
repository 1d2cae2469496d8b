"""The README's Python runs, and its commands are there for CI to run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
README = (TOP / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_blocks_run(number, tmp_path):
    path = tmp_path / "block.py"
    path.write_text(BLOCKS[number])
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "live at the peak" in done.stdout
    assert "No schedule within this budget does with less" in done.stdout


def test_the_two_commands_are_marked():
    for marker in ("main job", "tests"):
        assert re.search(rf"<!-- command: {marker} -->\n```bash\npython3 .*\n```", README)


def test_figures_that_are_shown_exist():
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (TOP / path).stat().st_size > 10_000
