"""Waiting with SIGINT, SIGTERM and SIGHUP until the current step of training is done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from edgeprune_formats import EdgePruneError

__all__ = ["TrainingInterrupted", "deferred_signals"]


class TrainingInterrupted(EdgePruneError):  # noqa: N818 - a request of the user's, as KeyboardInterrupt is
    """SIGINT, SIGTERM or SIGHUP stopped a run, which has left a checkpoint to resume from.

    Attributes
    ----------
    number : int
        The signal.
    """

    number: int = signal.SIGINT


@contextmanager
def deferred_signals() -> Iterator[Callable[[], bool]]:
    """Defer SIGINT, SIGTERM and SIGHUP, and give a function that tells whether one has arrived.

    A `TrainingInterrupted` that the block raises is told which.

    A second signal acts as it did before, for a user who cannot wait. The previous handlers are back on
    leaving. A SIGHUP that is ignored stays so, as under nohup. Outside the main thread, which alone may set
    handlers, nothing is deferred.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if previous[signal.SIGHUP] == signal.SIG_IGN:
        del previous[signal.SIGHUP]
    received: list[int] = []

    def restore() -> None:
        for number, handler in previous.items():
            # None stands for a handler that was not set from Python and cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()

    try:
        for number in previous:
            signal.signal(number, note)
        yield lambda: bool(received)
    except TrainingInterrupted as error:
        error.number = received[0] if received else error.number
        raise
    finally:
        restore()
