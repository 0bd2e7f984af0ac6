"""Waiting for room on a full disk, in the place of ending a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...output_files import DiskFullError
from ..progress.signals import TrainingInterrupted

__all__ = ["PatientDisk"]

# Room is asked for by writing again, which alone tells of quotas too.
_RETRY_SECONDS = 5.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class PatientDisk:
    """Writes files, and where the disk is full waits until it no longer is.

    Attributes
    ----------
    on_event : callable, optional
        Is given ``{"event": "paused", "reason"}`` when the wait begins, and ``{"event": "continued"}`` at its
        end. Without it there is nobody to make room, and nothing waits.
    interrupted : callable
        Tells whether the user wants to stop.
    """

    on_event: Callable[[dict[str, Any]], None] | None
    interrupted: Callable[[], bool]

    def write(self, action: Callable[[], object]) -> None:
        """Call `action` until it does not find the disk full.

        Raises
        ------
        DiskFullError
            If it finds the disk full, and nobody is told.
        TrainingInterrupted
            If it finds the disk full, and the user wants to stop.
        """
        paused = False
        while True:
            try:
                action()
            except DiskFullError as error:
                if self.on_event is None:
                    raise
                if not paused:
                    self.on_event({"event": "paused", "reason": str(error)})
                paused = True
                if not self._wait():
                    raise TrainingInterrupted(f"interrupted while the disk was full: {error}") from error
                continue
            if paused and self.on_event is not None:
                self.on_event({"event": "continued"})
            return

    def _wait(self) -> bool:
        """Return whether to try again."""
        until = time.monotonic() + _RETRY_SECONDS
        while not self.interrupted():
            if time.monotonic() >= until:
                return True
            time.sleep(_POLL_SECONDS)
        return False
