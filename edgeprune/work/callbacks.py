"""What long work calls to tell how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["EpochProgress", "JoinedProgress", "StageProgress"]

StageProgress = Callable[[str, int, int], None]
"""Called as ``progress(stage, images done, images in all)``."""

EpochProgress = Callable[[dict[str, Any]], None]
"""Called with a dict now and then and after each epoch; see `edgeprune.work.resumable.ResumableRun`."""


class JoinedProgress:
    """The encoding of several parts of a build, told as that of one.

    Parameters
    ----------
    progress : callable
        A `StageProgress`.
    total : int
        Images of all parts.

    Attributes
    ----------
    before : int
        Images of the parts that are complete.
    """

    def __init__(self, progress: StageProgress, total: int) -> None:
        self._progress, self._total = progress, total
        self.before = 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Tell of a part's images; of other stages nothing is told."""
        if stage == "encoding":
            self._progress(stage, self.before + done, self._total)
