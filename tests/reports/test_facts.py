"""Beside every result is what it depends on: in the file itself, or in one beside it."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckpt
from ckpt.reports.exports import sidecar_path
from ckpt.reports.formats import registry

X = np.ones((8, 8))
PLAN = ckpt.plan(lambda x: np.sum(np.tanh(np.tanh(x))), X, planner="store_all")
PROFILE = ckpt.profile(lambda x: np.sum(np.tanh(x)), X, measure=False)


@pytest.mark.parametrize("result", [PLAN, PROFILE], ids=["plan", "profile"])
@pytest.mark.parametrize("ending", [e for e in registry.FORMATS if e != ".pdf"])
def test_each_kind_of_file_says_where_it_was_made(result: Any, ending: str, tmp_path: Path) -> None:
    if ending not in registry.endings(type(result)):
        return
    path = registry.write(result, tmp_path / f"a{ending}")
    beside = sidecar_path(path)
    texts = [p.read_bytes().decode("latin-1") for p in (path, beside) if p.exists()]
    [said] = [text for text in map(html.unescape, texts) if '"malloc":' in text]
    said = said.replace("&quot;", '"')
    for word in ("versions", "blas", "threads", "cpu", np.__version__, ckpt.__version__):
        assert word in said


def test_a_plan_s_environment_is_kept_and_no_part_of_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.plan.json"
    PLAN.save(path)
    document = json.loads(path.read_text())
    document["environment"] = {"cpu": "another"}
    path.write_text(json.dumps(document))
    found = ckpt.load_plan(path)
    assert found.environment == {"cpu": "another"}
    found.save(path)
    assert json.loads(path.read_text()) == document
    path.write_text(json.dumps({**document, "environment": 3}))
    with pytest.raises(ckpt.UsageError, match="its environment is no object"):
        ckpt.load_plan(path)
