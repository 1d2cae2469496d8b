"""PyTorch: plan a real module to a byte budget, run the plan, and prove its peak.

::

    step = ckpt.torch.plan(loss_fn, x, y, budget="4GiB")
    loss = step(x, y)
    loss.backward()
"""

from __future__ import annotations

from ckpt.errors import MissingExtraError

try:
    import torch  # noqa: F401
except ModuleNotFoundError:
    raise MissingExtraError("PyTorch", "torch", "ckpt.torch") from None

from ckpt.torch.api import can_run, frontier, load, plan, profile, shapes_alone, trace
from ckpt.torch.peak import PeakMeasurement, measure_peak
from ckpt.torch.report import TorchProfile
from ckpt.torch.run.program import TorchProgram
from ckpt.torch.step import StepModule
from ckpt.torch.verification import TorchVerification

__all__ = [
    "PeakMeasurement", "StepModule", "TorchProfile", "TorchProgram", "TorchVerification",
    "can_run", "frontier", "load", "measure_peak", "plan", "profile", "shapes_alone", "trace",
]  # fmt: skip
