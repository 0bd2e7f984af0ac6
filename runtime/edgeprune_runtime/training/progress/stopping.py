"""When a run ends before its last epoch, and whose weights it keeps then."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..settings import TrainConfig

__all__ = ["best_epoch", "is_over"]

History = Sequence[Mapping[str, Any]]


def best_epoch(history: History) -> int:
    """Return the first epoch, from 1, of the best test, and of equal ones that of the lowest test loss.

    The best has the highest accuracy, mean average precision, or R2, by the kind of the target.
    """
    return max(range(len(history)), key=lambda place: _goodness(history[place])) + 1


def is_over(history: History, config: TrainConfig) -> bool:
    """Tell whether a run has trained all epochs, or has not become better for as long as it has patience.

    Patience does not end a run before its images have come to full size.
    """
    if len(history) >= config.epochs:
        return True
    if config.patience is None or not history:
        return False
    return len(history) - max(best_epoch(history), config.resolutions.epochs) >= config.patience


def _goodness(metrics: Mapping[str, Any]) -> tuple[float, float]:
    """Return what is to be high: accuracy, mean average precision or the mean R2, and the loss below 0."""
    loss = metrics.get("test_loss")
    if loss is None:
        return -math.inf, 0.0
    found = next(
        (metrics[name] for name in ("test_accuracy", "test_map", "test_r2") if metrics.get(name) is not None),
        0.0,
    )
    known = [one for one in (found if isinstance(found, list) else [found]) if one is not None]
    return (sum(known) / len(known) if known else 0.0), -loss
