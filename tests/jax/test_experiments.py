"""The experiments on JAX, on tiny models: budgets met, the same bits, a figure."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("jax")

import cuda_check


def test_a_dry_run(tmp_path: Path) -> None:
    rows = cuda_check.main(["--jax", "--cpu", "--rounds", "1", "--folder", str(tmp_path)])
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "cuda_check_jax.png",
        "cuda_check_jax.svg",
    ]
    planned = [row for row in rows if "budget_nbytes" in row]
    assert len(planned) >= 2
    for row in planned:
        assert row["temp_nbytes"] <= row["budget_nbytes"]
        assert row["same"] == row["results"]
