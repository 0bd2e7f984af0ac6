"""Where on this machine a training run computes, and in which number format."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

import torch

from ..networks.names import FAMILIES
from ..system.devices import resolve_device
from ..system.machine import cpu_features
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

    As a precision it is ``"bfloat16"`` on CUDA devices of capability 8.0 or later, and for ResNets on CPUs
    with AMX (decision 0036); otherwise ``"float32"``.

    Raises
    ------
    ConfigError
        If CUDA is asked for where there is none, or a CUDA index that does not exist.
    """
    device = resolve_device(config.device)
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if _bfloat16_pays(device, config.model) else "float32"
    return Placement(device, precision)


def _bfloat16_pays(device: torch.device, model: str) -> bool:
    if device.type == "cuda":
        # Devices before capability 8.0 only emulate it.
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # On CPUs only AMX is fast with it, and depthwise convolutions gain nothing; see decision 0036.
    family, _, name = model.rpartition(":")
    is_dense = name.startswith("resnet") and family in ("", *FAMILIES)
    return device.type == "cpu" and is_dense and _has_amx()


def _has_amx() -> bool:
    # oneDNN, which convolves for torch, looks at these once.
    limits = (os.environ.get(f"{name}_MAX_CPU_ISA") for name in ("ONEDNN", "DNNL"))
    limit = next(filter(None, limits), "ALL").upper()
    may_use = limit in ("ALL", "DEFAULT") or "AMX" in limit
    return may_use and cpu_features() >= {"amx_bf16", "amx_tile"}
