"""Stopping long work after some minutes, where the same command can go on."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Deadline", "OutOfTimeError"]


class OutOfTimeError(Exception):
    """The minutes given are over; the same command goes on."""


class Deadline:
    """Stops long work after some minutes, where it can go on.

    Parameters
    ----------
    minutes : float or None
        None never stops.
    """

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self._checked = time.monotonic()
        self._longest = 0.0
        self._asked = False

    @property
    def over(self) -> bool:
        """Whether the minutes have passed."""
        return self._end is not None and time.monotonic() >= self._end

    def is_near(self) -> bool:
        """Tell whether what comes, as long as the longest before, would end too late."""
        now = time.monotonic()
        self._longest = max(self._longest, now - self._checked)
        self._checked = now
        return self._end is not None and now + self._longest >= self._end

    def check(self) -> None:
        """Raise `OutOfTimeError` if `is_near`."""
        if self.is_near():
            raise OutOfTimeError

    def watched(self, on_event: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
        """Return `on_event` so that it stops training, as SIGTERM does, when the minutes have passed."""

        def tell(event: dict[str, Any]) -> None:
            on_event(event)
            # Once: a second signal ends the process, as it does for a user who cannot wait.
            if self.over and not self._asked and event.get("event") == "step":
                self._asked = True
                signal.raise_signal(signal.SIGTERM)

        return tell

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Turn the interruption that `watched` asked for into `OutOfTimeError`."""
        # Here, because the command line imports this module and is not to import torch.
        from edgeprune_runtime.training import TrainingInterrupted

        self.check()
        try:
            yield
        except TrainingInterrupted as error:
            if self._asked:
                raise OutOfTimeError from error
            raise
        # What can stop in between says nothing about what cannot.
        self._checked = time.monotonic()
