"""The residual networks that He et al. (2016, section 4.2) designed for 32x32 images: 6n + 2 layers."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

__all__ = ["CifarResNet"]

_WIDTHS = (16, 32, 64)


class CifarResNet(nn.Module):
    """Three stages of `blocks` residual blocks with 16, 32 and 64 channels; total stride 4.

    Where the shape changes the shortcut is a 1x1 convolution (their option B).

    Parameters
    ----------
    blocks : int
        n; 1 gives ResNet-8, 3 ResNet-20.
    num_classes : int
        Length of the output.
    """

    def __init__(self, blocks: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = _convolution(3, _WIDTHS[0], 3, 1)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        stages = [
            _stage(width_in, width, blocks, stride)
            for width_in, width, stride in zip((_WIDTHS[0], *_WIDTHS), _WIDTHS, (1, 2, 2), strict=False)
        ]
        self.layer1, self.layer2, self.layer3 = stages
        self.fc = nn.Linear(_WIDTHS[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map float32 images ``[n, 3, height, width]`` to logits ``[n, num_classes]``."""
        features = torch.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        return cast(torch.Tensor, self.fc(features.mean(dim=(2, 3))))


def _convolution(width_in: int, width: int, size: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(width_in, width, size, stride=stride, padding=size // 2, bias=False)


def _stage(width_in: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    shortcut = None
    if width_in != width:
        shortcut = nn.Sequential(_convolution(width_in, width, 1, stride), nn.BatchNorm2d(width))
    first = BasicBlock(width_in, width, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(blocks - 1)))
