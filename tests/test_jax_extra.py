"""Without JAX, `ckpt.jax` says which pip line gets it; `ckpt` itself never loads it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ckpt


def test_a_missing_jax_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    for name in [name for name in sys.modules if name.startswith("ckpt.jax")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        ckpt.MissingExtraError, match=r"pip install 'ckpt-profiler\[jax\]'"
    ) as found:
        __import__("ckpt.jax")
    assert found.value.exit_code == 5


def test_nobody_else_loads_it() -> None:
    code = (
        "import sys, ckpt, ckpt.studies.plan, ckpt.cli; ckpt.plan, ckpt.profile; "
        "assert not {'jax', 'ckpt.jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
