"""A network for short training of small images: whitened patches, three groups of convolutions.

It follows the DAWNBench entries of Page (2018) and airbench (Jordan, 2024), which train CIFAR-10 to 94% in
few passes over the images.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional

from .winograd import WinogradConv2d

__all__ = ["ResNet9", "whiten"]

_WIDTHS = (64, 256, 256)
_PATCH = 2
_WHITENED = 24
# What is added to the variance of a direction of patches, whose root divides the filter: the variance of the
# error of a pack of 22 dB. airbench has 5e-4, for exact pixels. Decision 0031 says why.
_VARIANCE = 0.1
# Of patches, that are computed at a time: 32 MB.
_VALUES = 2**23
_LOGIT_SCALE = 1 / 9
# Few steps: statistics of the last two or three batches, not of the last twenty.
_MOMENTUM = 0.4


class ResNet9(nn.Module):
    """Nine layers, none of them residual: whitening, three groups of two convolutions, and the last layer.

    Each group begins with a convolution and halves the image by maximum pooling; the last map is reduced to
    its maximum, whatever its size. The first layer's weights are fixed: `whiten` computes them from images.

    Parameters
    ----------
    num_classes : int
        Length of the output.
    """

    norm_bias_rate = 64.0
    """Factor on the learning rate of the biases of batch normalization (Jordan, 2024, section 3.4)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, _WHITENED, _PATCH)
        self.whiten.weight.requires_grad_(False)
        nn.init.zeros_(cast(nn.Parameter, self.whiten.bias))
        widths = (_WHITENED, *_WIDTHS)
        self.group1, self.group2, self.group3 = (
            _Group(width_in, width) for width_in, width in zip(widths, _WIDTHS, strict=False)
        )
        self.fc = nn.Linear(_WIDTHS[-1], num_classes, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 images ``[n, channels, height, width]`` to logits ``[n, num_classes]``."""
        features = functional.gelu(self.whiten(_at_least(images, _PATCH)))
        features = self.group3(self.group2(self.group1(features)))
        return cast(torch.Tensor, self.fc(features.amax(dim=(2, 3)))) * _LOGIT_SCALE


class _Group(nn.Module):
    """Convolution, pooling, convolution; each of the convolutions with batch normalization and GELU."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = WinogradConv2d(width_in, width), _norm(width)
        self.conv2, self.norm2 = WinogradConv2d(width, width), _norm(width)
        for conv in (self.conv1, self.conv2):
            # As far as there are channels to copy, a convolution begins as the identity.
            nn.init.dirac_(conv.weight[: conv.in_channels])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = functional.max_pool2d(self.conv1(features), [min(2, side) for side in features.shape[2:]])
        features = functional.gelu(self.norm1(features))
        return functional.gelu(self.norm2(self.conv2(features)))


def _norm(width: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width, momentum=_MOMENTUM)
    norm.weight.requires_grad_(False)
    return norm


def _at_least(images: torch.Tensor, side: int) -> torch.Tensor:
    """Return images that have so many rows and columns, the last of them repeated where there were fewer."""
    missing = [max(0, side - own) for own in images.shape[2:]]
    if not any(missing):
        return images
    return functional.pad(images, (0, missing[1], 0, missing[0]), mode="replicate")


@torch.no_grad()
def whiten(model: nn.Module, images: torch.Tensor) -> None:
    """Give a `ResNet9` the first layer that makes strong directions of patches equally strong; leave others.

    With the covariance ``E diag(d) E^T`` of the patches, the layer's filters are the columns of
    ``E (diag(d) + e)^(-1/2)`` of the largest ``d``, and the same negated. ``e``, 0.1, keeps detail small that
    a pack of few bytes has lost and images in exact pixels have.

    Parameters
    ----------
    model : torch.nn.Module
        Is changed.
    images : float32 [n, C, H, W]
        Normalized training images. Of several processes all images count.
    """
    if not isinstance(model, ResNet9):
        return
    weight = model.whiten.weight
    # A batch of large images may go through the network in parts, as all of it does not fit the memory.
    some = max(1, _VALUES // (_PATCH**2 * images[0].numel()))
    parts = images.tensor_split(-(-len(images) // some))
    sums = torch.stack([_products(part) for part in parts]).sum(0)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(sums)
    variances, vectors = torch.linalg.eigh(sums[:, :-1] / sums[:, -1:])
    kept = min(_WHITENED // 2, len(variances))
    filters = (vectors / (variances.clamp(min=0) + _VARIANCE).sqrt()).T.flip(0)[:kept]
    # Fewer values in a patch than filters, as of gray images, leave the rest at nothing.
    weight.zero_()
    weight[: 2 * kept] = torch.cat([filters, -filters]).view(2 * kept, *weight.shape[1:]).to(weight)


def _products(images: torch.Tensor) -> torch.Tensor:
    """Return the sums of products of the values of a patch, and in a last column the count of patches."""
    patches = functional.unfold(_at_least(images.float(), _PATCH), _PATCH).transpose(1, 2).flatten(0, 1)
    return torch.cat([patches.T @ patches, torch.full_like(patches[:1], len(patches)).T], 1).cpu().double()
