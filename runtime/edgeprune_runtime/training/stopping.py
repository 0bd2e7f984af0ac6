"""When a run ends before its last epoch, and whose weights it keeps then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .settings import TrainConfig

__all__ = ["best_epoch", "is_over"]

History = Sequence[Mapping[str, Any]]


def best_epoch(history: History) -> int:
    """Return the first epoch, from 1, of the highest test accuracy, and of these of the lowest test loss."""
    return max(range(len(history)), key=lambda place: _goodness(history[place])) + 1


def is_over(history: History, config: TrainConfig) -> bool:
    """Tell whether a run has trained all epochs, or has not become better for as long as it has patience."""
    if len(history) >= config.epochs:
        return True
    return (
        config.patience is not None
        and bool(history)
        and len(history) - best_epoch(history) >= config.patience
    )


def _goodness(metrics: Mapping[str, Any]) -> tuple[float, float]:
    accuracy, loss = metrics.get("test_accuracy"), metrics.get("test_loss")
    return (-1.0, 0.0) if accuracy is None or loss is None else (accuracy, -loss)
