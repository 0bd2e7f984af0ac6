"""What a network does to the shapes of images, learned from a forward pass that keeps nothing."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgeprune_formats import ConfigError
from edgeprune_formats.errors import one_line

from .models import create_model
from .names import MODEL_NAMES, Stem, is_code

__all__ = ["multiplications", "shaped_network", "smallest_batch", "stem_cost"]

_META, _CPU = torch.device("meta"), torch.device("cpu")


def shaped_network(
    name: str,
    num_classes: int,
    image_shape: Sequence[int],
    stem: Stem = "auto",
    sizes: Sequence[tuple[int, int]] = (),
) -> tuple[nn.Module, torch.device]:
    """Return a network to look at, and the device of its tensors, once it has taken such images.

    That is torch's meta device, where nothing is computed or held, or the CPU for a network that computes
    with values as it is built or run. Torch's random generator of the CPU stays where it is.

    Parameters
    ----------
    name, num_classes, stem
        As in `edgeprune_runtime.networks.models.create_model`.
    image_shape : sequence of int
        Channels, height and width in pixels.
    sizes : sequence of (int, int)
        Other heights and widths that the same network must take as well.

    Raises
    ------
    ConfigError
        It cannot be built, does not take such images, gives something other than ``[n, num_classes]``, or has
        nothing to train.
    """
    arguments = name, num_classes, min(image_shape[1:]), image_shape[0], stem
    shapes = [(image_shape[0], *size) for size in (tuple(image_shape[1:]), *sizes)]
    if name in MODEL_NAMES:
        shapes = shapes[1:]
    with torch.random.fork_rng([]):
        with contextlib.suppress(Exception):
            return _require_sound(name, _built(arguments, _META), num_classes, shapes, _META), _META
        return _require_sound(name, _built(arguments, _CPU), num_classes, shapes, _CPU), _CPU


def _built(arguments: tuple[str, int, int, int, Stem], device: torch.device) -> nn.Module:
    if is_code(arguments[0]):
        # What the function makes besides the network, and keeps, is not to lie on the meta device.
        return create_model(*arguments).to(device)
    with device:
        return create_model(*arguments)


def _require_sound(
    name: str,
    model: nn.Module,
    num_classes: int,
    image_shapes: Sequence[Sequence[int]],
    device: torch.device,
) -> nn.Module:
    if not any(p.requires_grad for p in model.parameters()):
        raise ConfigError(f'`model="{name}"`: has no weights to train')
    if not all(isinstance(value, torch.Tensor) for value in model.state_dict().values()):
        raise ConfigError(f'`model="{name}"`: its state dict holds more than tensors, which no run can keep')
    for shape, training in itertools.product(image_shapes, (False, True)):
        model.train(training)
        try:
            with torch.no_grad():
                output = model(torch.zeros(2, *shape, device=device))
        except Exception as error:
            size = " x ".join(map(str, shape))
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise ConfigError(f'`model="{name}"`: does not take images of {size} ({reason})') from error
        _require_logits(name, output, num_classes)
    return model


def _require_logits(name: str, output: object, num_classes: int) -> None:
    wanted = f"not logits [n, {num_classes}]"
    if not isinstance(output, torch.Tensor):
        raise ConfigError(f'`model="{name}"`: gives {type(output).__name__}, {wanted}')
    if output.shape != (2, num_classes) or not output.is_floating_point():
        shape = ", ".join(map(str, output.shape[1:]))
        kind = "" if output.is_floating_point() else f"{output.dtype} ".removeprefix("torch.")
        raise ConfigError(f'`model="{name}"`: gives {kind}[n{shape and f", {shape}"}], {wanted}')


def smallest_batch(
    name: str,
    image_shape: Sequence[int],
    stem: Stem = "auto",
    num_classes: int = 2,
    size: int | tuple[int, int] | None = None,
) -> int:
    """Return the fewest images that a network can be trained on: two where one has no batch statistics.

    That is so where batch normalization sees one value in each channel of an image.

    Parameters
    ----------
    name, stem : str
        As in `edgeprune_runtime.networks.models.create_model`.
    image_shape : sequence of int
        Channels, height and width of an image.
    num_classes : int
        For networks that give so many outputs and no others.
    size : int, (int, int) or None
        Height and width of the batch, if they are other than those of `image_shape`.
    """
    model, device = shaped_network(name, num_classes, image_shape, stem)
    height, width = image_shape[1:] if size is None else (size, size) if isinstance(size, int) else size
    try:
        with torch.no_grad():
            model.train()(torch.zeros(1, image_shape[0], height, width, device=device))
    except ValueError:
        return 2
    return 1


def multiplications(name: str, image_shape: Sequence[int], stem: Stem = "auto") -> int:
    """Return the multiplications of a network's convolutions and matrix products for one image."""
    model, device = shaped_network(name, 2, image_shape, stem)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *image_shape, device=device))
    return int(counter.get_total_flops()) // 2


def stem_cost(name: str, image_shape: Sequence[int]) -> float:
    """Return how many times the multiplications of stem ``"imagenet"`` the stem ``"small"`` takes.

    1.0 where a network has one stem.
    """
    if name not in MODEL_NAMES:
        return 1.0
    small, imagenet = (multiplications(name, image_shape, stem) for stem in ("small", "imagenet"))
    return small / imagenet
