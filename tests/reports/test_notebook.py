"""Results in a real notebook kernel: what a cell shows of them."""

from __future__ import annotations

import os
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

CELLS = {
    "setup": """
import numpy as np
import ckpt

def loss(w, x):
    y = np.tanh(x @ w)
    for _ in range(12):
        y = np.tanh(y @ w)
    return np.sum(y ** 2)

args = np.ones((16, 16)), np.ones((8, 16))
step = ckpt.plan(loss, *args, budget="80%")
""",
    "profile": "ckpt.profile(loss, *args)",
    "step": "step",
    "certificate": "step.certificate",
    "verification": "step.verify(*args)",
    "frontier": "ckpt.frontier(loss, *args, planners=['store_all', 'chain'], points=3)",
    "sweep": "ckpt.sweep(depths=[2, 3], width=8, batch=4, measure=False)",
    "figure": "step.plot()",
    "pyplot": "import matplotlib.pyplot\n%matplotlib inline\nstep.plot()",
    "kind": "import matplotlib.figure\nisinstance(step.plot(), matplotlib.figure.Figure)",
    "show": "step.show()",
    "source": "print('y = np.tanh(x @ w)' in ckpt.profile(loss, *args).page())",
}


@pytest.fixture(scope="module")
def outputs() -> dict[str, list[Any]]:
    client = pytest.importorskip("nbclient", reason="needs nbclient, to run a notebook")
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat, to write a notebook")
    pytest.importorskip("ipykernel", reason="needs ipykernel, a notebook's kernel")
    book = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in CELLS.values()]
    )
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    runner = client.NotebookClient(book, timeout=120, kernel_name="python3")
    runner.execute(env={**os.environ, "PYTHONPATH": path})
    return dict(zip(CELLS, (cell.outputs for cell in book.cells), strict=True))


@pytest.mark.parametrize("name", ["profile", "step", "frontier", "sweep"])
def test_a_result_is_a_table_and_a_short_text(outputs: dict[str, list[Any]], name: str) -> None:
    (shown,) = outputs[name]
    assert shown.output_type == "execute_result"
    assert shown.data["text/html"].startswith('<div class="ckpt">')
    assert shown.data["text/html"].count("<table") == 1
    assert len(shown.data["text/plain"]) < 200


@pytest.mark.parametrize("name", ["certificate", "verification"])
def test_what_was_proved_is_a_table(outputs: dict[str, list[Any]], name: str) -> None:
    (shown,) = outputs[name]
    assert shown.data["text/html"].startswith("<table")
    assert len(shown.data["text/plain"]) < 250


@pytest.mark.parametrize("name", ["figure", "pyplot"])
def test_a_figure_is_shown_once_with_pyplot_and_without(
    outputs: dict[str, list[Any]], name: str
) -> None:
    (shown,) = [output for output in outputs[name] if "data" in output]
    png = b64decode(shown.data["image/png"])
    assert png.startswith(b"\x89PNG") and len(png) > 10_000


def test_a_figure_is_matplotlibs(outputs: dict[str, list[Any]]) -> None:
    assert outputs["kind"][0].data["text/plain"] == "True"


def test_the_page_is_below_the_cell_in_a_frame_of_its_own(outputs: dict[str, list[Any]]) -> None:
    shown = [output for output in outputs["show"] if output.output_type == "display_data"]
    frame = shown[0].data["text/html"]
    assert frame.startswith('<iframe sandbox="allow-scripts"')
    assert frame.count("<script") == 0  # escaped: none of it runs in the notebook itself
    assert "&lt;script" in frame


def test_a_cells_line_is_shown_in_the_page(outputs: dict[str, list[Any]]) -> None:
    assert outputs["source"][0].text == "True\n"
