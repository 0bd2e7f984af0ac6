"""Work shared among threads, whose results come in order and wait in bounded number."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["in_order", "shares_threads"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_busy = threading.local()


def shares_threads() -> bool:
    """Tell whether this thread works for `in_order`, which has as many threads as are wanted in all."""
    return getattr(_busy, "ordered", False)


def in_order(work: Callable[[_Item], _Result], items: Iterable[_Item], jobs: int) -> Iterator[_Result]:
    """Yield ``work(item)`` of all items in their order, made by `jobs` threads ahead of the caller.

    Threads do it because what takes long in building, from decoding images to coding them, runs without the
    interpreter's lock. At most ``2 * jobs`` results wait or are being made. What `work` raises is raised here
    in its turn; then, or when the iterator is closed, no more items are begun, and those under way are waited
    for.

    Parameters
    ----------
    work : callable
        May be called from several threads at once.
    items : iterable
    jobs : int
        At least 1; 1 works in the calling thread.
    """

    def alone(item: _Item) -> _Result:
        before, _busy.ordered = shares_threads(), True
        try:
            return work(item)
        finally:
            _busy.ordered = before

    if jobs == 1:
        yield from map(alone, items)
        return
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(jobs, "edgeprune-build") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(alone, item))
                if len(waiting) > 2 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()
