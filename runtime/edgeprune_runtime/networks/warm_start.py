"""Beginning with weights that were trained before, and training the head alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from torch import nn

from edgeprune_formats import ConfigError

from ..errors import TrainingError
from .layers import RGB, first_convolution, head_of, of_rgb_weights
from .weight_files import read_weights

__all__ = ["load_weights", "require_no_fresh_layer"]

_WRAPPERS = ("module.", "model.")


def load_weights(
    model: nn.Module,
    path: Path,
    num_classes: int | None = None,
    *,
    tell: Callable[[str], object] = lambda line: None,
) -> tuple[str, ...]:
    """Take a network's weights from a file of torch's names, such as a run's, torchvision's or timm's.

    The last layer keeps its fresh weights where the file's is of another shape: other classes. So does the
    first convolution: networks for small images have another. Where it differs in its channels alone, and the
    file's is for RGB images, its weights are made for the images' channels, see
    `edgeprune_runtime.networks.layers.of_rgb_weights`. Names may begin with what DataParallel, torch.compile
    and Lightning put before them: ``module.``, ``_orig_mod.`` and ``model.``.

    Parameters
    ----------
    model : torch.nn.Module
        Is changed.
    path : Path
        Of tensors named as in the network's state dict, of any floating-point type; see
        `edgeprune_runtime.networks.weight_files.read_weights`.
    num_classes : int, optional
        Outputs of the last layer.
    tell : callable
        Is given a line on weights that were changed to fit.

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
    given = _unwrapped(path, read_weights(path), own)
    _fit_channels(model, given, tell)
    replaceable = _replaceable(model, num_classes)
    fresh = [name for name in replaceable if name in own and _shape(given, name) != own[name].shape]
    for name in own.keys() - fresh:
        _require_fitting(path, name, own[name], given)
    taken = {name: given[name].to(own[name].dtype) for name in own if name in given and name not in fresh}
    for name, tensor in taken.items():
        if not torch.isfinite(tensor).all():
            raise TrainingError(f"{path}: {name} holds NaN or infinity; take weights that are finite")
    model.load_state_dict(taken, strict=False)
    return tuple(fresh)


def _fit_channels(model: nn.Module, given: dict[str, torch.Tensor], tell: Callable[[str], object]) -> None:
    """Make the first convolution's weights, of RGB images, those for the channels that the network takes."""
    found = first_convolution(model)
    if found is None:
        return
    name, own = f"{found[0]}.weight", found[1].weight.shape
    shape, channels = _shape(given, name), own[1]
    if shape is None or channels == RGB or shape != (own[0], RGB, *own[2:]):
        return
    given[name] = of_rgb_weights(given[name], channels)
    how = (
        "summed for one channel"
        if channels == 1
        else f"repeated for {channels} channels, scaled by 3/{channels}"
    )
    tell(f"{name} of these weights is for RGB images: {how}")


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


def require_no_fresh_layer(model: nn.Module, fresh: Collection[str], path: Path) -> None:
    """Raise `ConfigError` where a frozen layer has no weights in the file: it would stay random."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    random = [name for name in fresh if name in frozen]
    if random:
        raise ConfigError(
            f"{path}: has no {', '.join(random)} for images of this size, and `freeze` would keep it random; "
            "leave `freeze` out, or train on larger images"
        )


def _replaceable(model: nn.Module, num_classes: int | None) -> list[str]:
    first = first_convolution(model)
    names = [] if first is None else [f"{first[0]}.weight"]
    with contextlib.suppress(ConfigError):
        head, _ = head_of(model, num_classes)
        names += [f"{head}.weight", f"{head}.bias"]
    return names


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
