"""The few threads that decode: kept for the life of a process, and made anew after a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

__all__ = ["cores", "pool", "working"]

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


class _Gate:
    """Who is at work in the background, and whether anyone may begin."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.busy = 0
        self.shut = False


_gate = _Gate()
# Nothing that is done at a time takes so many seconds, unless it waits for whoever wants to fork.
PATIENCE = 60.0


@contextmanager
def working(*, part: bool = False) -> Iterator[None]:
    """Mark what a thread does in the background, so that no fork falls into it.

    A process that is copied while one of its threads multiplies or reads is left with locks that nobody
    opens again, those of OpenBLAS in both processes. `part` is for work that other work waits for.
    """
    gate = _gate
    with gate.changed:
        gate.changed.wait_for(lambda: part or not gate.shut)
        gate.busy += 1
    try:
        yield
    finally:
        with gate.changed:
            gate.busy -= 1
            gate.changed.notify_all()


def _before_fork() -> None:
    with _gate.changed:
        _gate.shut = True
        _gate.changed.wait_for(lambda: _gate.busy == 0, PATIENCE)


def _in_parent() -> None:
    with _gate.changed:
        _gate.shut = False
        _gate.changed.notify_all()


def _in_child() -> None:
    global _gate
    _gate = _Gate()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
