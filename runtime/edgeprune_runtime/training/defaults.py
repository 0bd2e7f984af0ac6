"""The settings that networks bring with them, in place of the general defaults. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["DEFAULTS", "defaults_of"]

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
