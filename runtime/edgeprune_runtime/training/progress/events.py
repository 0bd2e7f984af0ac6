"""What a run tells of while it goes on: steps now and then, and each thing that is left out once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ...loading.order.skipping import SkippedChunk
from ...system.machine import resident_bytes
from ..interfaces import OnEvent

__all__ = ["Events"]

_EVENT_SECONDS = 0.3


@dataclass
class Events:
    """The events of a run, told to `on_event` where there is one.

    Attributes
    ----------
    on_event : callable, optional
        Is given a dict with ``"event"`` and the facts of it.
    steps : int
        Steps of the run in all.
    first_step : int
        The step that the run has begun with, or gone on with, in this process.
    """

    on_event: OnEvent | None
    steps: int
    first_step: int = 0
    _skipped: int = 0
    _has_left_out: bool = False
    _began: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        self._next_step = self._began + _EVENT_SECONDS

    def tell(self, event: str, /, **facts: Any) -> None:
        """Tell of an event."""
        if self.on_event is not None:
            self.on_event({"event": event, **facts})

    def is_step_due(self, now: float) -> bool:
        """Tell whether to tell of a step, by `time.perf_counter`."""
        return now >= self._next_step

    def tell_step(self, step: int, **facts: Any) -> None:
        """Tell of a step, and when the run will have ended."""
        now = time.perf_counter()
        self._next_step = now + _EVENT_SECONDS
        if self.on_event is None:
            return
        seconds_per_step = (now - self._began) / (step - self.first_step)
        self.tell(
            "step",
            step=step,
            steps=self.steps,
            eta_seconds=seconds_per_step * (self.steps - step),
            memory_bytes=resident_bytes(),
            **facts,
        )

    def tell_skipped(self, skipped: Sequence[SkippedChunk]) -> None:
        """Tell once of each chunk that the loader leaves out."""
        for one in skipped[self._skipped :]:
            self.tell("skipped", images=one.images, reason=one.reason)
        self._skipped = len(skipped)

    def tell_left_out(self, step: int, reason: str) -> None:
        """Tell of the first batch that is left out."""
        if not self._has_left_out:
            self.tell("left_out", step=step, reason=reason)
        self._has_left_out = True
