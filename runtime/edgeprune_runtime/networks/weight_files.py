"""Reading files of weights: safetensors, and what torch.save has written, of which no code is run."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from edgeprune_formats.errors import one_line

from ..errors import TrainingError
from ..input_files import damage_remedy, input_problem, is_pickle

__all__ = ["read_weights"]

# Where training scripts put the state dict beside other things, the most used first.
_PLACES = ("state_dict", "model_state_dict", "model", "net", "network")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file of weights by their names.

    A file of torch.save is read by torch's unpickler of weights (``weights_only=True``), which makes tensors
    and plain containers and calls nothing else. It may hold a state dict, or one under ``state_dict``,
    ``model_state_dict``, ``model``, ``net`` or ``network``.

    Raises
    ------
    TrainingError
        It is no such file, it is damaged, or it holds objects that need code.
    """
    if is_pickle(path):
        return _state_dict(path, _unpickled(path))
    problem = input_problem(path)
    if problem is not None:
        raise TrainingError(f"{path}: {problem}")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        remedy = damage_remedy(path, "copy it again, or name another")
        raise TrainingError(
            f"{path}: not a safetensors file of weights, or damaged ({reason}); {remedy}"
        ) from error


def _unpickled(path: Path) -> Any:
    # The only place that unpickles; before torch 2.6, which we require, the unpickler of weights had a hole.
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TrainingError(
            f"{path}: holds more than weights, which could run code and is not opened; where you trust it, "
            "save its weights alone: torch.save(torch.load(FILE, weights_only=False).state_dict(), NEW)"
        ) from error
    except MemoryError:
        raise
    # A damaged file makes the unpickler fail with nearly any exception.
    except Exception as error:
        raise TrainingError(
            f"{path}: not a file of torch.save, or damaged ({one_line(error)}); copy it again"
        ) from error


def _state_dict(path: Path, content: Any) -> dict[str, torch.Tensor]:
    places = [content, *(content.get(name) for name in _PLACES)] if isinstance(content, Mapping) else []
    for place in places:
        if isinstance(place, Mapping):
            found = {str(name): one for name, one in place.items() if isinstance(one, torch.Tensor)}
            if found:
                return found
    raise TrainingError(
        f"{path}: holds no state dict of tensors, by itself or as {', '.join(_PLACES)}; save the network's: "
        "torch.save(network.state_dict(), NEW)"
    )
