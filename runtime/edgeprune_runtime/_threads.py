"""The few threads that decode: kept for the life of a process, and made anew after a fork."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

__all__ = ["cores", "pool"]

_pools: dict[tuple[int, str, int], ThreadPoolExecutor] = {}


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pool(name: str, threads: int) -> ThreadPoolExecutor:
    """Return the threads of that name; they start when they are first needed, and wait for work idly."""
    # A fork does not copy threads, so the parent's pool is none of the child's.
    return _pools.setdefault((os.getpid(), name, threads), ThreadPoolExecutor(threads, f"edgeprune-{name}"))
