"""Names of devices to torch devices."""

from __future__ import annotations

from typing import Any

import torch

from edgeprune_formats import ConfigError

__all__ = ["resolve_device"]


def resolve_device(device: Any) -> torch.device:
    """Return the torch device for a name; ``"auto"`` is CUDA where there is one, else the CPU.

    A CUDA device comes with its index.

    Raises
    ------
    ConfigError
        No such device here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"unknown device {device!r}") from error
    if found.type == "cpu":
        return found
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found.type != "cuda" or (found.index or 0) >= count:
        raise ConfigError(f"device {device} does not exist: this machine has {count} CUDA devices; use cpu")
    return torch.device("cuda", found.index or 0)
