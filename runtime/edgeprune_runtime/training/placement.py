"""Where on this machine a training run computes, and in which number format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from ..system.devices import resolve_device
from .settings import TrainConfig

__all__ = ["MEMORY_FORMAT", "Placement", "place"]

# Tensor cores want it, and so does oneDNN: in trials on an AVX-512 CPU with batches of 128 images of 32x32 it
# made every network but shufflenet_v2 faster, and that one hardly slower.
MEMORY_FORMAT = torch.channels_last


@dataclass(frozen=True)
class Placement:
    """Where and in which number format a run computes.

    Attributes
    ----------
    device : torch.device
        A CPU, or a CUDA device with its index.
    precision : str
        ``"float32"`` or ``"bfloat16"``; the latter means autocast, with float32 weights.
    """

    device: torch.device
    precision: Literal["float32", "bfloat16"]

    def autocast(self) -> torch.autocast:
        """Return the context in which the network runs forward."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def put(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Move a batch to the device: images ``[n, C, H, W]``, labels ``[n]``."""
        images = images.to(self.device, memory_format=MEMORY_FORMAT, non_blocking=True)
        return images, labels.to(self.device, non_blocking=True)


def place(config: TrainConfig) -> Placement:
    """Decide on this machine what ``"auto"`` stands for.

    Raises
    ------
    ConfigError
        If CUDA is asked for where there is none, or a CUDA index that does not exist.
    """
    device = resolve_device(config.device)
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if _bfloat16_pays(device) else "float32"
    return Placement(device, precision)


def _bfloat16_pays(device: torch.device) -> bool:
    # CUDA before capability 8.0 only emulates it. In trials on a CPU with AVX512_BF16 but no AMX, steps of
    # ResNets took longer than in float32, and resnet9 has kernels for float32 alone.
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
