"""What the package exports: sorted, importable, documented."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import ckpt


def test_the_exported_names():
    assert list(ckpt.__all__) == sorted(ckpt.__all__)
    assert ckpt.__all__ == [
        "AbstractError", "Backward", "BackwardRow", "BackwardStep", "BackwardTwiceError",
        "BudgetError", "Buffer", "Certificate", "CkptError", "Compute", "Cost", "Execution",
        "Free", "Frontier", "Graph", "GraphError", "Instruction", "MissingExtraError",
        "MutationError", "Node", "NonFiniteError", "Observer", "Plan", "Planner", "Profile",
        "Program", "Schedule", "ScheduleError", "Step", "StepMemoryError", "Sweep",
        "TapeError", "Timeline",
        "UnitError", "UnsupportedError", "UsageError", "Value", "Verification",
        "VerificationError", "Witness", "WorkersError", "check_finite", "checkpoint",
        "checkpoint_sequential", "execute", "frontier", "grad", "gradcheck", "load_plan",
        "load_profile", "make_schedule", "name", "nn", "op", "plan", "planner", "profile", "scope",
        "simulate", "spec", "stop_gradient", "sweep", "threads", "trace", "value_and_grad",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ckpt.__all__)
def test_names_are_documented(name):
    assert inspect.getdoc(getattr(ckpt, name))


@pytest.mark.parametrize("name", ckpt.__all__)
def test_names_are_typed(name):
    found = getattr(ckpt, name)
    if inspect.isfunction(found):
        signature = inspect.signature(found)
        assert signature.return_annotation is not signature.empty
        for parameter in signature.parameters.values():
            assert parameter.annotation is not parameter.empty, parameter


def test_the_package_says_that_it_is_typed():
    assert (Path(ckpt.__file__).parent / "py.typed").exists()


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        ckpt.nonsense  # noqa: B018


def test_importing_the_package_is_quick():
    code = "import ckpt, sys; print('numpy' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
