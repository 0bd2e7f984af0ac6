"""The peak memory of this process; imports nothing that would add to it."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

__all__ = ["peak_mib"]


def peak_mib() -> float:
    """Return the peak resident memory in MiB.

    On Linux from ``/proc``: getrusage gives a new process the peak of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    # Kilobytes, but bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)
