"""The names of the networks, for those who must know them without loading torch."""

from __future__ import annotations

__all__ = ["MODEL_NAMES"]

MODEL_NAMES = (
    "shufflenet_v2",
    "mobilenet_v2",
    "efficientnet_b0",
    "resnet18",
    "resnet34",
    "resnet8",
    "resnet20",
)
"""Every name that `edgeprune_runtime.networks.models.create_model` takes."""
