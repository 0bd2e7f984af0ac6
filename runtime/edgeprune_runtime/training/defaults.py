"""The settings that networks bring with them, in place of the general defaults. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .settings import TrainConfig

__all__ = ["DEFAULTS", "defaults_of", "learning_rate_of"]

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "resnet9": {
        "epochs": 12,
        "batch_size": 500,
        "optimizer": "muon",
        "lr": 0.45,
        "momentum": 0.85,
        "weight_decay": 2e-3,
        "schedule": "linear",
        "warm_up": 0.0,
        "label_smoothing": 0.2,
        "augment": "short",
    }
}
"""Of networks by name: fields of `TrainConfig`, and ``augment`` of a `PackLoader`."""


def defaults_of(model: str) -> dict[str, Any]:
    """Return the settings that a network brings with it; none for most.

    They are for training from fresh weights. With some of one's own:
    ``TrainConfig(**{**defaults, "epochs": 12})``, once ``augment`` is taken out of them.
    """
    return dict(DEFAULTS.get(model, {}))


def learning_rate_of(batch_size: int) -> float:
    """Return the peak learning rate that `edgeprune train` takes where neither user nor network names one.

    It is that of `TrainConfig` for its batches of 128 images, and for larger ones. For smaller ones it falls
    with the square root, to keep the variance of a step about the same (Krizhevsky, 2014, "One weird trick
    for parallelizing convolutional neural networks").

    Parameters
    ----------
    batch_size : int
        Images in a step.

    Returns
    -------
    float
        Step of a weight over its gradient, rounded to 5 digits behind the point.
    """
    full = TrainConfig.batch_size
    return round(TrainConfig.lr * math.sqrt(min(max(1, batch_size), full) / full), 5)
