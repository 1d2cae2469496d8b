"""What it takes to make a data file again: arguments, seed, versions, BLAS, threads."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


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
        "versions": versions(),
        "blas": blas(),
        "threads": {
            "cpus": os.cpu_count(),
            **{name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ},
        },
        "machine": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str | None]:
    """Versions of Python, `ckpt`, and each library a number can depend on (None: absent)."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package, label in (("ckpt-profiler", "ckpt"), ("numpy", "numpy"), ("scipy", "scipy")):
        try:
            found[label] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[label] = getattr(sys.modules.get(label), "__version__", None)
    return found


def blas() -> dict[str, Any]:
    """Which BLAS NumPy was built with, and its version."""
    import numpy as np

    built: Any = np.show_config(mode="dicts")
    found = built.get("Build Dependencies", {}).get("blas", {})
    return {"name": found.get("name"), "version": found.get("version")}
