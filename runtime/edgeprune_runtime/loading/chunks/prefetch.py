"""Making the items of an iterator before they are asked for, in a thread."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Prefetcher"]

T = TypeVar("T")
# A thread that is stopped ends after the item that it is at; nobody waits longer for it than so many seconds.
PATIENCE = 5.0


class Prefetcher(Generic[T]):
    """The items of an iterator, up to `depth` of them made before they are asked for.

    What the iterator raises is raised here, after the items that came before it. The thread ends with the
    iterator, on `close`, when this object is collected, and at the end of the interpreter. A forked process
    has no such thread, so that a copy there is of no use; `orphaned` tells.

    Parameters
    ----------
    items : iterator
        Used in the other thread only.
    depth : int
        At least 1.
    """

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._process = os.getpid()
        self._shared = _Shared[T](depth)
        thread = threading.Thread(
            target=_fill, args=(items, self._shared), name="edgeprune-prefetch", daemon=True
        )
        # The thread knows nothing of this object, so that it can be collected.
        self._close = weakref.finalize(self, _stop, self._shared, thread, self._process)
        thread.start()

    @property
    def orphaned(self) -> bool:
        """Whether this is a copy in a forked process, where the thread does not exist."""
        return self._process != os.getpid()

    def __iter__(self) -> Prefetcher[T]:
        return self

    def __next__(self) -> T:
        return self._shared.take()

    def close(self) -> None:
        """Make no more items, and forget those that were made."""
        self._close()


class _Shared(Generic[T]):
    """What the two threads share: the items that were made, and how it ended."""

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._changed = threading.Condition()
        self._items: deque[T] = deque()
        self._end: BaseException | None = None
        self._stopped = False

    def wait_for_room(self) -> bool:
        """Return whether another item is wanted, once there is room for it."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._items) < self._depth)
            return not self._stopped

    def put(self, item: T) -> None:
        with self._changed:
            if not self._stopped:
                self._items.append(item)
            self._changed.notify_all()

    def finish(self, end: BaseException) -> None:
        with self._changed:
            self._end = end
            self._changed.notify_all()

    def take(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._items or self._end is not None)
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            end, self._end = self._end, StopIteration()
        raise end or StopIteration

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()


def _fill(items: Iterator[T], shared: _Shared[T]) -> None:
    end: BaseException = StopIteration()
    try:
        while shared.wait_for_room():
            item = next(items)
            shared.put(item)
            del item
    except BaseException as error:
        end = error
    # Before anyone is told: whoever is waiting may rely on it that nothing is in use any more.
    del items
    shared.finish(end)


def _stop(shared: _Shared[T], thread: threading.Thread, process: int) -> None:
    # In a forked process there is no thread, and the lock may have been held when it was copied.
    if process != os.getpid():
        return
    shared.stop()
    # The garbage collector may run in that thread, or in one that it waits for.
    if thread is not threading.current_thread():
        thread.join(PATIENCE)
