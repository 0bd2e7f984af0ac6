"""The first and the last layer of a network, which depend on the images and the classes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from edgeprune_formats import ConfigError

__all__ = ["first_convolution", "head_of", "of_rgb_weights", "scale_head", "take_channels"]

RGB = 3
Head = nn.Linear | nn.Conv2d


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """Return the name and the module of a network's first convolution; None where it has none."""
    return next(((name, m) for name, m in model.named_modules() if isinstance(m, nn.Conv2d)), None)


def head_of(model: nn.Module, num_classes: int | None = None) -> tuple[str, Head]:
    """Return the name and the module of the layer that tells the classes apart.

    It is what timm's networks call their classifier, otherwise the last layer, in the order in which a
    network holds them, that is linear or a convolution. With `num_classes` only layers of so many outputs
    count.

    Raises
    ------
    ConfigError
        There is none, or more than one.
    """
    classifier: Any = getattr(model, "get_classifier", None)
    chosen = classifier() if callable(classifier) else None
    own = set(chosen.modules()) if isinstance(chosen, nn.Module) else chosen
    found = [
        (name, m)
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear | nn.Conv2d)
        and num_classes in (None, m.out_features if isinstance(m, nn.Linear) else m.out_channels)
        and (own is None or m in own)
    ]
    if not found or isinstance(own, tuple | list):
        raise ConfigError(
            "the network does not end in one linear layer or convolution, so its last layer is not known; "
            "leave `freeze` out, or choose another `model`"
        )
    return found[-1]


@torch.no_grad()
def scale_head(model: nn.Module) -> None:
    """Scale down a last linear layer that begins more than twice as wide as torch's linear layers do.

    These are within 1 / sqrt(inputs). torchvision and timm draw that of EfficientNets and others within
    1 / sqrt(classes), which suits 1,000. For 10 classes and 1,280 inputs it is eleven times as wide: a fresh
    network is then sure of wrong answers, and has to unlearn them. Networks without one such layer stay.
    """
    try:
        _, head = head_of(model)
    except ConfigError:
        return
    weight = head.weight
    if isinstance(head, nn.Linear) and not weight.is_meta:
        width = float(weight.square().mean().sqrt()) * math.sqrt(3 * head.in_features)
        if width > 2:
            weight.div_(width)


@torch.no_grad()
def take_channels(model: nn.Module, channels: int) -> None:
    """Give a first convolution of RGB images other channels, with fresh weights of one variance."""
    found = first_convolution(model)
    if channels == RGB or found is None or found[1].in_channels != RGB or found[1].groups != 1:
        return
    conv, old = found[1], found[1].weight
    fresh = old.new_empty(old.shape[0], channels, *old.shape[2:]).normal_()
    conv.in_channels = channels
    fresh.mul_(old.std() * math.sqrt(RGB / channels))
    conv.weight = nn.Parameter(fresh, requires_grad=old.requires_grad)


def of_rgb_weights(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Return a first convolution's weights for images of other channels than red, green and blue.

    For one channel they are summed: a gray image gives what it gave as three equal channels. For others they
    are repeated in turn and scaled by 3 / channels, as timm does.

    Parameters
    ----------
    weight : torch.Tensor
        ``[out, 3, height, width]``.
    channels : int
        Of the images.
    """
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-channels // RGB), 1, 1)[:, :channels]
    return repeated * (RGB / channels)
