"""Batches in memory that is used again: fresh pages cost more than decoding small images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Ring"]


class Ring:
    """A few buffers that batches are written into, in turn.

    One thread may ask for batches while another makes them. With `ahead` batches made before they are asked
    for, no batch is written over that is one of the last `valid` that were asked for.

    Parameters
    ----------
    make : callable
        Returns memory for so many images, an array or tensor; or None where nothing is to be reused.
    valid : int
        At least 1.
    ahead : int
        How many batches may be ready or in the making when none was asked for.
    """

    def __init__(self, make: Callable[[int], Any | None], valid: int, ahead: int = 0) -> None:
        self._make, self._valid = make, valid
        self._buffers: list[Any] = [None] * (valid + ahead)
        self._taken = self._asked = 0
        self._copied: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_buffers": [None] * len(self._buffers), "_copied": {}}

    def ask(self) -> None:
        """Note that the next batch is asked for, so that an older one may be written over.

        Where it lies in pinned memory, copies to a CUDA device may still be under way: those of this thread's
        stream are waited for before the memory is used again.
        """
        place = (self._asked - self._valid) % len(self._buffers)
        buffer = self._buffers[place]
        if self._asked >= self._valid and getattr(buffer, "is_pinned", bool)():
            import torch

            event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._copied[place] = event
        self._asked += 1

    def take(self, count: int) -> Any | None:
        """Return room for the next batch, of so many images."""
        place = self._taken % len(self._buffers)
        self._taken += 1
        copied = self._copied.pop(place, None)
        if copied is not None:
            copied.synchronize()
        if self._buffers[place] is None or len(self._buffers[place]) < count:
            self._buffers[place] = self._make(count)
        buffer = self._buffers[place]
        return None if buffer is None else buffer[:count]
