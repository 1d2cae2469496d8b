"""Will it fit? A run is refused before it allocates what this machine doesn't have."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from ckpt.errors import StepMemoryError
from ckpt.units import KIB, format_bytes


def available_nbytes() -> int | None:
    """Bytes that this process may still allocate: of the machine, its cgroup and its own limit.

    None where the system doesn't say.
    """
    found = (_field("/proc/meminfo", "MemAvailable:"), _cgroup(), _limit())
    return min((n for n in found if n is not None), default=None)


def require(nbytes: int, what: str) -> None:
    """Raise StepMemoryError if ``what`` needs more bytes than there are, naming both."""
    there = available_nbytes()
    if there is not None and nbytes > there:
        raise StepMemoryError(
            f"{what} needs {format_bytes(nbytes)}, and {format_bytes(there)} are free here; "
            "--no-measure predicts without allocating, a smaller --batch or --depth needs less"
        )


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
    used = _field("/proc/self/status", "VmSize:")
    if limit == resource.RLIM_INFINITY or used is None:
        return None
    return max(limit - used, 0)


def _field(path: str, name: str) -> int | None:
    """Bytes of a line that Linux writes in kB: ``MemAvailable:  8049256 kB``."""
    with suppress(OSError), open(path) as lines:
        for line in lines:
            if line.startswith(name):
                return int(line.split()[1]) * KIB
    return None
