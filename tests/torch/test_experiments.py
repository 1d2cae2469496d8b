"""The experiments on PyTorch, on tiny models: rows, promises, a figure."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

import cuda_check
import torch_memory_time


@pytest.mark.parametrize(
    ("name", "main", "options"),
    [
        ("cuda_check", cuda_check.main, ["--cpu"]),
        ("torch_memory_time", torch_memory_time.main, ["--tiny", "--models", "GPT", "--compile"]),
    ],
)
def test_a_dry_run(name: str, main, options: list[str], tmp_path: Path) -> None:
    rows = main([*options, "--rounds", "1", "--folder", str(tmp_path)])
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{name}.png", f"{name}.svg"]
    planned = [row for row in rows if "predicted_peak_nbytes" in row]
    assert len(planned) >= 3
    for row in planned:
        assert row["same_bits"]
        assert abs(row["peak_nbytes"] - row["predicted_peak_nbytes"]) <= 16
        assert row["peak_nbytes"] <= (row["budget_nbytes"] or row["peak_nbytes"]) + 16
    blocks = {row["model"]: row["peak"] for row in rows if row["way"] == "per block"}
    assert all(peak < 0.9 for model, peak in blocks.items() if "GPT" in model)
