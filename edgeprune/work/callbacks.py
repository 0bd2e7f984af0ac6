"""What long work calls to tell how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["EpochProgress", "StageProgress"]

StageProgress = Callable[[str, int, int], None]
"""Called as ``progress(stage, images done, images in all)``."""

EpochProgress = Callable[[dict[str, Any]], None]
"""Called with a dict now and then and after each epoch; see `edgeprune.work.resumable.ResumableRun`."""
