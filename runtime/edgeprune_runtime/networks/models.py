"""The networks that a device trains, and their stride-1 stems for small images.

The networks are torchvision's, without pretrained weights. They reduce the image by 32 in each direction,
which leaves one pixel of a 32x32 image; below `SMALL_IMAGE` pixels the first two reductions are left out.
resnet8 and resnet20 are the small residual networks of He et al. (2016) for 32x32 images, and reduce by 4.
resnet9 is for short training of small images, see `edgeprune_runtime.networks.resnet9`, and reduces by 8.
Other networks of torchvision, those of timm, and those that a function of the user's builds, stay as they
are. But a last layer that a library draws too wide for few classes is scaled down, see `scale_head`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torchvision
from torch import nn

from edgeprune_formats import ConfigError

from .cifar_resnet import CifarResNet
from .layers import head_of, scale_head, take_channels
from .libraries import builder_of
from .names import MODEL_NAMES, STEMS, Stem, is_code
from .resnet9 import ResNet9

__all__ = ["MODEL_NAMES", "SMALL_IMAGE", "create_model", "has_small_stem", "head_of"]

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


def _resnet9(*, weights: None, num_classes: int) -> nn.Module:
    return ResNet9(num_classes)


_MODELS: dict[str, tuple[Callable[..., object], Callable[[nn.Module], None]]] = {
    "shufflenet_v2": (torchvision.models.shufflenet_v2_x1_0, _small_shufflenet),
    "mobilenet_v2": (torchvision.models.mobilenet_v2, _small_inverted_residual),
    "efficientnet_b0": (torchvision.models.efficientnet_b0, _small_inverted_residual),
    "resnet18": (torchvision.models.resnet18, _small_resnet),
    "resnet34": (torchvision.models.resnet34, _small_resnet),
    "resnet8": (partial(_cifar_resnet, 1), _as_it_is),
    "resnet20": (partial(_cifar_resnet, 3), _as_it_is),
    "resnet9": (_resnet9, _as_it_is),
}


def create_model(
    name: str, num_classes: int, image_size: int, channels: int = 3, stem: Stem = "auto"
) -> nn.Module:
    """Build a network with fresh weights, drawn from torch's global random generator.

    Parameters
    ----------
    name : str
        One of `MODEL_NAMES`, ``torchvision:NAME``, ``timm:NAME``, or ``package.module:function``, which was
        given to `edgeprune_runtime.networks.code.allow_code`. The function is called with those of
        ``num_classes``, ``channels`` and ``image_size`` that its signature names, and with ``num_classes``
        where it takes ``**kwargs``.
    num_classes : int
        Length of the output, at least 1.
    image_size : int
        The shorter side of the images in pixels.
    channels : int
        Of the images. A network for RGB images gets another first convolution, unless the function takes
        ``channels``.
    stem : str
        ``"small"`` leaves out the first two strides, so that the total stride of torchvision's networks in
        `MODEL_NAMES` is 8 in place of 32; parameters keep their names, and but for the first convolution of
        resnet18 and resnet34 their shapes. ``"imagenet"`` keeps them, ``"auto"`` is small below `SMALL_IMAGE`
        pixels. resnet8, resnet20 and resnet9 are the same with all.

    Returns
    -------
    torch.nn.Module
        Maps float32 images ``[n, channels, height, width]`` to logits ``[n, num_classes]``; in training mode.

    Raises
    ------
    ConfigError
        If there is no such network, it cannot be built, or a number is below 1.
    """
    for what, number in (("num_classes", num_classes), ("image_size", image_size), ("channels", channels)):
        if number < 1:
            raise ConfigError(f"{what} is {number}; it must be at least 1")
    if stem not in STEMS:
        raise ConfigError(f"`stem` is {stem!r}; it must be one of {', '.join(STEMS)}")
    if name in _MODELS:
        build, shrink_stem = _MODELS[name]
        model = cast(nn.Module, build(weights=None, num_classes=num_classes))
        if has_small_stem(stem, image_size):
            shrink_stem(model)
        take_channels(model, channels)
    else:
        if stem != "auto":
            raise ConfigError(f"`stem` is a choice of {', '.join(MODEL_NAMES)}; leave it out for {name}")
        model = builder_of(name)(num_classes, image_size, channels)
    if not is_code(name):
        scale_head(model)
    return model


def has_small_stem(stem: Stem, image_size: int) -> bool:
    """Tell whether the networks of `MODEL_NAMES` leave out their first strides."""
    return stem == "small" or (stem == "auto" and image_size < SMALL_IMAGE)
