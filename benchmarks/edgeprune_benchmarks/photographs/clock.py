"""The time that a network trains: all since its process began, without what testing takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Clock"]


class Clock:
    """Counts minutes.

    Parameters
    ----------
    started : float
        When the process was begun, as `time.time` has it.
    """

    def __init__(self, started: float) -> None:
        self._started, self._away = started, 0.0

    @property
    def minutes(self) -> float:
        """What was counted so far."""
        return (time.time() - self._started - self._away) / 60

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Count nothing in here."""
        began = time.time()
        try:
            yield
        finally:
            self._away += time.time() - began
