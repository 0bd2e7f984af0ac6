"""Beginning with weights that were trained before, and training the head alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from edgeprune_formats import ConfigError

from ..errors import TrainingError
from .models import head_of

__all__ = ["freeze_all_but_head", "load_weights"]


def load_weights(model: nn.Module, path: Path) -> tuple[str, ...]:
    """Take a network's weights from a safetensors file of torch's names, such as a run's or torchvision's.

    The last linear layer keeps its fresh weights where the file's is of another shape: other classes. So does
    the first convolution: networks for small images have another.

    Parameters
    ----------
    model : torch.nn.Module
        Is changed.
    path : Path
        Of tensors named as in the network's state dict.

    Returns
    -------
    tuple of str
        The tensors that stay fresh.

    Raises
    ------
    TrainingError
        The file cannot be read.
    ConfigError
        It is of another network.
    """
    try:
        given = load_file(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise TrainingError(f"{path}: not a safetensors file of weights, or damaged ({reason})") from error
    own = model.state_dict()
    fresh = [name for name in _replaceable(model) if name in own and _shape(given, name) != own[name].shape]
    for name in own.keys() - fresh:
        _require_fitting(path, name, own[name], given)
    model.load_state_dict({n: given[n] for n in own if n in given and n not in fresh}, strict=False)
    return tuple(fresh)


def freeze_all_but_head(model: nn.Module) -> None:
    """Leave only the last linear layer to be trained."""
    _, head = head_of(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in head.parameters():
        parameter.requires_grad_(True)


def _replaceable(model: nn.Module) -> tuple[str, ...]:
    first = next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    head, _ = head_of(model)
    return f"{first}.weight", f"{head}.weight", f"{head}.bias"


def _shape(tensors: Mapping[str, torch.Tensor], name: str) -> torch.Size | None:
    return tensors[name].shape if name in tensors else None


def _require_fitting(path: Path, name: str, own: torch.Tensor, given: Mapping[str, torch.Tensor]) -> None:
    remedy = "it is of another network; choose the `model` that it is of"
    # Weights that torch before 0.4.1 saved do not count batches.
    if name not in given and not name.endswith("num_batches_tracked"):
        raise ConfigError(f"{path}: has no {name}, so {remedy}")
    if name in given and given[name].shape != own.shape:
        shapes = f"{tuple(given[name].shape)}, not {tuple(own.shape)}"
        raise ConfigError(f"{path}: {name} is {shapes}, so {remedy}")
