"""The README's Python runs, its commands print what it says, and CI's commands are there.

`python -m tests.test_readme` writes the outputs anew, as they are today.
"""

from __future__ import annotations

import ast
import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ckpt.units import format_bytes

TOP = Path(__file__).resolve().parent.parent
README = (TOP / "README.md").read_text()
FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)```", re.DOTALL)
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
OUTPUT = re.compile(r"(<!-- output -->\n```console\n\$ ckpt ([^\n]*)\n)(.*?)(```)", re.DOTALL)

# What is measured may differ from run to run.
MASKED = re.compile(
    r"(?<=measured )[\d.]+ [KMG]iB"
    r"|[\d.]+ [KMG]iB +(?=measured|in an eager step)|(?<=measured )\([+-][\d.]+ %\)"
    r"|(?<=time) +[\d.]+ \w+|[\d.]+ [KMG]iB(?= of code)"
)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(TOP), "COLUMNS": "80"}


def printed(command: str, folder: Path) -> str:
    """What ``ckpt COMMAND`` prints in a folder that holds the README's files."""
    for name, text in FILE.findall(README):
        (folder / name).write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "ckpt", *shlex.split(command)],
        capture_output=True, text=True, check=False, cwd=folder, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_blocks_run(number, tmp_path):
    for name, text in FILE.findall(README):
        (tmp_path / name).write_text(text)
    path = tmp_path / "block.py"
    path.write_text(BLOCKS[number])
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert bool(done.stdout) == ("print(" in BLOCKS[number])


@pytest.mark.parametrize("number", range(len(OUTPUT.findall(README))))
def test_outputs_are_what_is_printed(number, tmp_path):
    _, command, shown, _ = OUTPUT.findall(README)[number]
    slow = " --time-limit 600" * command.startswith("plan")  # on a slow machine the same plan
    found = printed(command + slow, tmp_path)
    assert MASKED.sub("…", found).split() == MASKED.sub("…", shown).split()
    assert max(map(len, shown.splitlines())) <= 80


def test_models_that_are_named_exist():
    from ckpt.models import names

    line = next(line for line in README.splitlines() if line.startswith("TARGET is a model"))
    named = re.findall(r"`([\w.-]+)`", line)
    assert named
    assert set(named) <= set(names())


def test_the_two_commands_are_marked():
    for marker in ("main job", "tests"):
        assert re.search(rf"<!-- command: {marker} -->\n```bash\npython3 .*\n```", README)


def test_figures_that_are_shown_exist():
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (TOP / path).stat().st_size > 10_000


def test_figures_made_from_the_readmes_own_file_say_by_which_command():
    told = re.findall(r"<!-- figure: (.*?) -->\n!\[[^]]*\]\(([^)]+)\)", README)
    assert {path for _, path in told} >= {"plots/timeline-train.png", "plots/frontier-train.png"}
    for command, path in told:
        assert shlex.split(command)[-2:] == ["-o", path]
        assert shlex.split(command)[1] == "train.py:job"


FIGURE = re.compile(r"\d[\d,.]*\d|\d(?= (?:%|ms))")


def findings() -> list[tuple[list[str], str]]:
    """Experiments, and the text that says what they found: a row of the table, a sentence or two
    before the experiment's name."""
    table = README[README.index("| question | found |") : README.index("## How it works")]
    rows = [line.strip("|").split(" | ") for line in table.splitlines()[2:] if line]
    found = [(re.findall(r"`(\w+)`", row[0].partition(":")[0]), row[1]) for row in rows]
    return [(names, text) for names, text in found if "below" not in text] + [
        ([told[1]], paragraph[: told.start()])
        for paragraph in README.split("\n\n")
        if (told := re.search(r"`experiments/(\w+)\.py`\)", paragraph))
    ]


@pytest.mark.parametrize(
    ("names", "text"), [pytest.param(*found, id=found[0][0]) for found in findings()]
)
def test_what_experiments_found_is_what_their_files_say(names: list[str], text: str) -> None:
    said = "".join(
        ast.get_docstring(ast.parse((TOP / "experiments" / f"{name}.py").read_text())) or ""
        for name in names
    )
    figures = FIGURE.findall(text)
    assert set(figures) <= {*FIGURE.findall(said)}


def test_the_first_figures_are_the_sweeps() -> None:
    table = csv.DictReader((TOP / "plots/sweep.csv").read_text().splitlines())
    rows = {(row["depth"], row["strategy"]): row for row in table}
    first = README[README.index("- **It saves**") : README.index("## Two commands")]
    stored, root, planned = (rows["100", name] for name in ("store_all", "sqrt", "planned"))
    peaks = [int(row["predicted_peak_nbytes"]) for row in (stored, root, planned)]
    assert f"into {peaks[0] / peaks[2]:.0f} times less" in first.replace("\n ", "")
    assert f"holds {format_bytes(peaks[0])}; in √n segments {format_bytes(peaks[1])}" in first
    assert f"planned, {format_bytes(peaks[2])} for no more" in first
    assert f"for {float(root['overhead']):.0%}".replace("%", " %") in first.replace("\n", " ")
    assert int(planned["recompute_flops"]) <= int(root["recompute_flops"])


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        text = OUTPUT.sub(
            lambda found: found[1] + printed(found[2], Path(folder)) + found[4], README
        )
    (TOP / "README.md").write_text(text)
