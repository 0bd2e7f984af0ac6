"""The networks that a device trains, and their stride-1 stems for small images.

The networks are torchvision's, without pretrained weights. They reduce the image by 32 in each direction,
which leaves one pixel of a 32x32 image; below `SMALL_IMAGE` pixels the first two reductions are left out.
resnet8 and resnet20 are the small residual networks of He et al. (2016) for 32x32 images, and reduce by 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torchvision
from torch import nn

from edgeprune_formats import ConfigError

from .cifar_resnet import CifarResNet
from .names import MODEL_NAMES

__all__ = ["MODEL_NAMES", "SMALL_IMAGE", "create_model", "final_feature_map", "head_of", "smallest_batch"]

SMALL_IMAGE = 64
"""Images whose shorter side has fewer pixels than this get the stride-1 stem."""


def _small_resnet(model: nn.Module) -> None:
    """Apply the CIFAR stem of He et al. (2016), section 4.2, to a ResNet."""
    conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(conv1.weight, mode="fan_out", nonlinearity="relu")
    model.conv1 = conv1
    model.maxpool = nn.Identity()


def _small_shufflenet(model: nn.Module) -> None:
    _remove_strides(model, 1)
    model.maxpool = nn.Identity()


def _small_inverted_residual(model: nn.Module) -> None:
    # The second strided convolution is the depthwise one of a block that also widens its input, so it has
    # no shortcut and its stride can change without one appearing.
    _remove_strides(model, 2)


def _remove_strides(model: nn.Module, count: int) -> None:
    strided = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    for conv in strided[:count]:
        conv.stride = (1, 1)


def _as_it_is(model: nn.Module) -> None:
    pass


def _cifar_resnet(blocks: int, *, weights: None, num_classes: int) -> nn.Module:
    return CifarResNet(blocks, num_classes)


_MODELS: dict[str, tuple[Callable[..., object], Callable[[nn.Module], None]]] = {
    "shufflenet_v2": (torchvision.models.shufflenet_v2_x1_0, _small_shufflenet),
    "mobilenet_v2": (torchvision.models.mobilenet_v2, _small_inverted_residual),
    "efficientnet_b0": (torchvision.models.efficientnet_b0, _small_inverted_residual),
    "resnet18": (torchvision.models.resnet18, _small_resnet),
    "resnet34": (torchvision.models.resnet34, _small_resnet),
    "resnet8": (partial(_cifar_resnet, 1), _as_it_is),
    "resnet20": (partial(_cifar_resnet, 3), _as_it_is),
}


def create_model(name: str, num_classes: int, image_size: int) -> nn.Module:
    """Build a network with fresh weights, drawn from torch's global random generator.

    Parameters
    ----------
    name : str
        One of `MODEL_NAMES`.
    num_classes : int
        Length of the output, at least 1.
    image_size : int
        The shorter side of the images in pixels. Below `SMALL_IMAGE` the total stride of torchvision's
        networks is 8 instead of 32; parameters keep their names, and but for the first convolution of
        resnet18 and resnet34 their shapes.

    Returns
    -------
    torch.nn.Module
        Maps float32 images ``[n, 3, height, width]`` to logits ``[n, num_classes]``; in training mode.

    Raises
    ------
    ConfigError
        If the name is unknown, or a number is below 1.
    """
    if name not in _MODELS:
        raise ConfigError(f"unknown model {name!r}; choose one of {', '.join(MODEL_NAMES)}")
    for what, number in (("num_classes", num_classes), ("image_size", image_size)):
        if number < 1:
            raise ConfigError(f"{what} is {number}; it must be at least 1")
    build, shrink_stem = _MODELS[name]
    model = cast(nn.Module, build(weights=None, num_classes=num_classes))
    if image_size < SMALL_IMAGE:
        shrink_stem(model)
    return model


def head_of(model: nn.Module) -> tuple[str, nn.Linear]:
    """Return the name and the module of a network's last linear layer, which tells the classes apart."""
    linear = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    return linear[-1]


def final_feature_map(image_shape: Sequence[int]) -> tuple[int, int]:
    """Return the size in pixels of the last feature map, before pooling, of torchvision's networks.

    Parameters
    ----------
    image_shape : sequence of int
        Channels, height and width of an image.
    """
    _, height, width = image_shape
    stride = 8 if min(height, width) < SMALL_IMAGE else 32
    return -(-height // stride), -(-width // stride)


def smallest_batch(name: str, image_shape: Sequence[int]) -> int:
    """Return the fewest images that batch normalization can train on: two of one pixel, otherwise one.

    Parameters
    ----------
    name : str
        One of `MODEL_NAMES`.
    image_shape : sequence of int
        Channels, height and width of an image.
    """
    reduces_little = name in ("resnet8", "resnet20")
    last = max(image_shape[1:]) <= 4 if reduces_little else final_feature_map(image_shape) == (1, 1)
    return 2 if last else 1
