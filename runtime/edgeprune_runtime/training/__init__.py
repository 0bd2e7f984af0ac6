"""Batches -> network: one loop, metrics for each epoch, and a run that can be killed and resumed.

The names below are imported when they are first used, so that nobody loads torch who only asks for a folder's
state.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import (
        Cadence,
        Normalization,
        TrainConfig,
        TrainingInterrupted,
        TrainLoader,
        TrainResult,
        defaults_of,
        learning_rate_of,
        load_model,
        train,
    )

__all__ = [
    "Cadence",
    "Normalization",
    "TrainConfig",
    "TrainLoader",
    "TrainResult",
    "TrainingInterrupted",
    "defaults_of",
    "learning_rate_of",
    "load_model",
    "train",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
