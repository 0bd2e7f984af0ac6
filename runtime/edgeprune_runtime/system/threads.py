"""The few threads that decode: kept for the life of a process, and made anew after a fork.

Nothing here is registered to run at forks. A forked child knows by its process number what is its parent's,
and makes its own threads and locks when it first needs them. That is safe because no thread of ours holds a
lock that the child needs: they read through h5py, which guards itself, decompress, and run the compiled
kernel. They do not multiply matrices by numpy (see `edgeprune_runtime.decode.plan.Decoder`).

What is not safe: to decode by torch in a child that was forked while a thread of ours decoded by torch
without the compiled kernel, or on a CUDA device. Torch does not support it; start processes by "spawn" there.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

__all__ = ["ProcessLock", "cores", "pool"]

_pools: dict[tuple[int, str, int], ThreadPoolExecutor] = {}


def cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pool(name: str, threads: int) -> ThreadPoolExecutor:
    """Return the threads of that name; they start when they are first needed, and wait for work idly."""
    # A fork does not copy threads, so the parent's pool is none of the child's.
    key = (os.getpid(), name, threads)
    found = _pools.get(key)
    # Of two threads that make one at a time, both get that which came first.
    return found or _pools.setdefault(key, ThreadPoolExecutor(threads, f"edgeprune-{name}"))


class ProcessLock:
    """A lock among the threads of one process; a forked or unpickled copy of it is open."""

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}

    def __enter__(self) -> None:
        # A fork copies a lock held, but not the thread that holds it.
        self._locks.setdefault(os.getpid(), threading.Lock()).acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._locks[os.getpid()].release()

    def __reduce__(self) -> tuple[type[ProcessLock], tuple[()]]:
        return ProcessLock, ()
