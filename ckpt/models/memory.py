"""Will it fit? A run is refused before it allocates what this machine doesn't have."""

from __future__ import annotations

import sys
from pathlib import Path

from ckpt.errors import StepMemoryError
from ckpt.units import format_bytes


def available_nbytes() -> int | None:
    """Bytes that this process may still allocate: of the machine, its cgroup and its own limit.

    None where the system doesn't say.
    """
    found = [n for n in (_machine(), _cgroup(), _limit()) if n is not None]
    return min(found) if found else None


def require(nbytes: int, what: str) -> None:
    """Raise StepMemoryError if ``what`` needs more bytes than there are, naming both."""
    there = available_nbytes()
    if there is not None and nbytes > there:
        raise StepMemoryError(
            f"{what} needs {format_bytes(nbytes)}, and {format_bytes(there)} are free here; "
            "--no-measure predicts without allocating, a smaller --batch or --depth needs less"
        )


def _machine() -> int | None:
    """What Linux calls MemAvailable."""
    return _field("/proc/meminfo", "MemAvailable:", 1024)


def _cgroup() -> int | None:
    """What a container's limit leaves (cgroup version 2)."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text()
    except OSError:
        return None
    return max(int(limit) - int(used), 0) if limit.isdigit() else None


def _limit() -> int | None:
    """What the limit on this process's address space leaves (``ulimit -v``)."""
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    used = _field("/proc/self/status", "VmSize:", 1024)
    if limit == resource.RLIM_INFINITY or used is None:
        return None
    return max(limit - used, 0)


def _field(path: str, name: str, unit: int) -> int | None:
    try:
        with open(path) as lines:
            for line in lines:
                if line.startswith(name):
                    return int(line.split()[1]) * unit
    except OSError:
        return None
    return None
