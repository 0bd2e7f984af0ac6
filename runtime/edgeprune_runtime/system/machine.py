"""What this machine gives a process: processors, their features, memory, and versions of packages."""

from __future__ import annotations

import ctypes
import functools
import math
import os
import platform
import resource
import sys
import time
from pathlib import Path

import numpy as np

from edgeprune_formats import __version__

from .threads import cores

__all__ = [
    "available_bytes",
    "cpu_features",
    "cpu_quota",
    "free_processors",
    "keep_freed_memory",
    "peak_bytes",
    "resident_bytes",
    "save_address_space",
    "versions",
]

_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
# Of <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8


@functools.cache
def cpu_features() -> frozenset[str]:
    """Return what the processor can do by the names that Linux has for it; empty elsewhere."""
    for line in _read(_PROC / "cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def cpu_quota() -> int:
    """Return how many processors this process may keep busy, within its cgroup's quota."""
    processors = cores()
    for folder in _cgroup_folders("cpu"):
        quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
        if not quota:
            quota, period = (_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        if quota.isdecimal() and period.isdecimal() and int(period):
            processors = min(processors, math.ceil(int(quota) / int(period)))
    return max(1, processors)


def free_processors(seconds: float = 0.3) -> float | None:
    """Return how many processors that this process may use are idle, watched for so long while it waits.

    2.0 where two were idle all the time, 0.5 where one was for half of it; None where the system does not
    tell.
    """
    before = _idle_and_all()
    time.sleep(seconds)
    after = _idle_and_all()
    idle = 0.0
    for number in before.keys() & after.keys():
        waited, passed = (late - early for early, late in zip(before[number], after[number], strict=True))
        # A processor that sleeps deeply counts no time.
        idle += waited / passed if passed > 0 else 1.0
    return idle if before and after else None


def _idle_and_all() -> dict[int, tuple[int, int]]:
    """Return the ticks that each processor of this process was idle, and all its ticks."""
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    found = {}
    for line in _read(_PROC / "stat").splitlines():
        name, *fields = line.split()
        number = name.removeprefix("cpu")
        if name.startswith("cpu") and number.isdecimal() and int(number) in own and len(fields) >= 8:
            # user, nice, system, idle, iowait, irq, softirq, steal: what guests take is in user already.
            ticks = [int(field) for field in fields[:8]]
            found[int(number)] = ticks[3] + ticks[4], sum(ticks)
    return found


def versions() -> dict[str, str]:
    """Return the versions that what is trained depends on."""
    import torch

    return {
        "edgeprune": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def resident_bytes() -> int | None:
    """Return the memory of this process that is in RAM; None where the system does not tell."""
    return _status("VmRSS")


def peak_bytes() -> int | None:
    """Return the most memory in RAM that this process ever had; None where the system does not tell."""
    return _status("VmHWM")


def available_bytes() -> int | None:
    """Return how much more memory this process can take without swapping or being killed.

    The least of what the system has free, of what the cgroup's limit leaves, and of what RLIMIT_AS leaves;
    None where none of them is known.
    """
    left = [_system_bytes(), _cgroup_bytes(), _address_space_bytes()]
    known = [number for number in left if number is not None]
    return max(0, min(known)) if known else None


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for the next use, and tell whether it could be told.

    A step of training frees and takes the same large blocks. By default glibc gives blocks of 32 MiB and more
    back at once, so that each is mapped and zeroed anew: up to a quarter of a step.
    """
    return _mallopt((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**26))


def save_address_space() -> bool:
    """Where RLIMIT_AS bounds it, let all threads allocate from one place, and tell whether they do.

    By default glibc reserves 64 MiB of addresses for each thread that allocates, used or not.
    """
    return _address_space_bytes() is not None and _mallopt((_M_ARENA_MAX, 1))


def _mallopt(*settings: tuple[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(name, value) == 1 for name, value in settings)


def _status(name: str) -> int | None:
    return _kilobytes(_PROC / "self/status", name)


def _kilobytes(path: Path, name: str) -> int | None:
    for line in _read(path).splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _system_bytes() -> int | None:
    return _kilobytes(_PROC / "meminfo", "MemAvailable")


def _cgroup_bytes() -> int | None:
    """Return what the limits of the process's control group, and of those that it is in, leave."""
    found = [_left(folder) for folder in _cgroup_folders("memory")]
    known = [left for left in found if left is not None]
    return min(known) if known else None


def _left(folder: Path) -> int | None:
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit_text, used_text = _read(folder / limit).strip(), _read(folder / used).strip()
        # Version 1 writes no limit as a number near 2**63.
        if limit_text.isdecimal() and used_text.isdecimal() and int(limit_text) < 2**60:
            return int(limit_text) - int(used_text) + _reclaimable(folder)
    return None


def _reclaimable(folder: Path) -> int:
    """Return the bytes of cached files that count as used and are given up when memory is short."""
    for line in _read(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdecimal():
            return int(value)
    return 0


def _cgroup_folders(controller: str) -> list[Path]:
    """Return the folders of the control groups that this process is in, inmost first, of both versions.

    In a container the groups' paths may be those outside, and only the root is there.
    """
    folders = []
    for line in _read(_PROC / "self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number != "0" and controller not in controllers.split(","):
            continue
        root = _CGROUP if number == "0" else _CGROUP / controller
        group = root / path.lstrip("/")
        folders += [group, *(parent for parent in group.parents if parent.is_relative_to(root))]
    return [*folders, _CGROUP, _CGROUP / controller]


def _address_space_bytes() -> int | None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    size = _status("VmSize")
    return None if limit == resource.RLIM_INFINITY or size is None else limit - size


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
