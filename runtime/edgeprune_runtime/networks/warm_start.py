"""Beginning with weights that were trained before, and training the head alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from edgeprune_formats import ConfigError
from edgeprune_formats.errors import one_line

from ..errors import TrainingError
from ..input_files import input_problem
from .models import head_of

__all__ = ["freeze_all_but_head", "load_weights", "require_no_fresh_layer"]

_WRAPPERS = ("module.", "model.")


def load_weights(model: nn.Module, path: Path) -> tuple[str, ...]:
    """Take a network's weights from a safetensors file of torch's names, such as a run's or torchvision's.

    The last linear layer keeps its fresh weights where the file's is of another shape: other classes. So does
    the first convolution: networks for small images have another. Names may begin with what DataParallel,
    torch.compile and Lightning put before them: ``module.``, ``_orig_mod.`` and ``model.``.

    Parameters
    ----------
    model : torch.nn.Module
        Is changed.
    path : Path
        Of tensors named as in the network's state dict, of any floating-point type.

    Returns
    -------
    tuple of str
        The tensors that stay fresh.

    Raises
    ------
    TrainingError
        The file cannot be read, or holds NaN or infinity.
    ConfigError
        It is of another network.
    """
    own = model.state_dict()
    given = _unwrapped(path, _read(path), own)
    fresh = [name for name in _replaceable(model) if name in own and _shape(given, name) != own[name].shape]
    for name in own.keys() - fresh:
        _require_fitting(path, name, own[name], given)
    taken = {name: given[name].to(own[name].dtype) for name in own if name in given and name not in fresh}
    for name, tensor in taken.items():
        if not torch.isfinite(tensor).all():
            raise TrainingError(f"{path}: {name} holds NaN or infinity; take weights that are finite")
    model.load_state_dict(taken, strict=False)
    return tuple(fresh)


def _read(path: Path) -> dict[str, torch.Tensor]:
    problem = input_problem(path)
    if problem is not None:
        raise TrainingError(f"{path}: {problem}")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise TrainingError(f"{path}: not a safetensors file of weights, or damaged ({reason})") from error


def _unwrapped(
    path: Path, given: Mapping[str, torch.Tensor], own: Collection[str]
) -> dict[str, torch.Tensor]:
    """Return tensors by the network's own names; one that has such a name already goes before others."""
    names: dict[str, str] = {}
    for name in sorted(given, key=len):
        plain = name.replace("_orig_mod.", "")
        while plain not in own and plain.startswith(_WRAPPERS):
            plain = plain.partition(".")[2]
        first = names.setdefault(plain, name)
        if plain in own and first not in (plain, name):
            raise ConfigError(f"{path}: {first} and {name} are of two networks; keep one of them")
    return {plain: given[name] for plain, name in names.items()}


def freeze_all_but_head(model: nn.Module) -> None:
    """Leave only the last linear layer to be trained."""
    _, head = head_of(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in head.parameters():
        parameter.requires_grad_(True)


def require_no_fresh_layer(model: nn.Module, fresh: Collection[str], path: Path) -> None:
    """Raise `ConfigError` where a layer before the head has no weights in the file: it would stay random."""
    head, _ = head_of(model)
    random = [name for name in fresh if not name.startswith(f"{head}.")]
    if random:
        raise ConfigError(
            f"{path}: has no {', '.join(random)} for images of this size, and `freeze` would keep it random; "
            "leave `freeze` out, or train on larger images"
        )


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
    if name in given and given[name].is_floating_point() != own.is_floating_point():
        kind = str(given[name].dtype).removeprefix("torch.")
        raise ConfigError(f"{path}: {name} is of type {kind}; give weights as they were before quantization")
