"""The workloads the command line offers, written as a user would: plain NumPy and `ckpt.nn`."""

from ckpt.models.base import Array, Workload, build, names

__all__ = ["Array", "Workload", "build", "names"]
