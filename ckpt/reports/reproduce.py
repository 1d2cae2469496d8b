"""What it takes to make a data file again: arguments, seed, and where it was made."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ckpt.witness import malloc

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "OPENBLAS_THREAD_TIMEOUT",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

_ALWAYS = ("ckpt", "numpy", "scipy")
_PACKAGES = {
    "ckpt-profiler": "ckpt",
    **{name: name for name in ("numpy", "scipy", "torch", "memray", "distributed")},
}


def reproduction(
    command: str, arguments: Mapping[str, Any], *, seed: int | None = None
) -> dict[str, Any]:
    """The metadata to be kept beside a data file that ``command`` made from ``arguments``.

    No date and no path of this machine: the same run anywhere gives the same text.
    """
    return {
        "command": command,
        "arguments": dict(arguments),
        "seed": seed,
        **environment(),
    }


def environment() -> dict[str, Any]:
    """What a figure may depend on: versions, BLAS and its threads, malloc's variables, the CPU."""
    return {
        "versions": versions(),
        "blas": blas(),
        "threads": {
            "cpus": os.cpu_count(),
            **{name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ},
        },
        "malloc": {name: os.environ[name] for name in malloc.VARIABLES if name in os.environ},
        "cpu": cpu(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


@cache
def cpu() -> str:
    """The processor's own name, where it can be had."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


@cache
def _installed(package: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def versions() -> dict[str, str | None]:
    """Versions of Python, `ckpt`, and each library a number can depend on (None: absent)."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package, label in _PACKAGES.items():
        version = _installed(package) or getattr(sys.modules.get(label), "__version__", None)
        if version is not None or label in _ALWAYS:
            found[label] = version
    return found


@cache
def blas() -> dict[str, Any]:
    """Which BLAS NumPy was built with, and its version."""
    import numpy as np

    built: Any = np.show_config(mode="dicts")
    found = built.get("Build Dependencies", {}).get("blas", {})
    return {"name": found.get("name"), "version": found.get("version")}
