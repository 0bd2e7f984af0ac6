"""A module of a user's: functions that build networks, and some that do not."""

import torch
from torch import nn

CALLS = []


class Tiny(nn.Module):
    """Two convolutions with batch normalization, and a head that is registered first."""

    def __init__(self, num_classes, channels):
        super().__init__()
        self.head = nn.Linear(8, num_classes)
        self.first = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, images):
        return self.head(self.second(self.first(images)).mean(dim=(2, 3)))


def tiny(num_classes, channels):
    CALLS.append((num_classes, channels))
    return Tiny(num_classes, channels)


def of_rgb(num_classes):
    return Tiny(num_classes, 3)


def by_name(**options):
    return Tiny(**{"channels": 3} | options)


def counting(num_classes, channels, image_size):
    network = Tiny(num_classes, channels)
    network.image_size = image_size
    return network


class Valued(Tiny):
    """Computes with a value as it runs, which torch's meta device does not have."""

    def forward(self, images):
        return super().forward(images * (1.0 if images.sum().item() > -1e9 else 2.0))


def valued(num_classes, channels):
    return Valued(num_classes, channels)


class Tied(nn.Module):
    """Two names for one tensor, and a buffer that is not in the state dict."""

    def __init__(self, num_classes):
        super().__init__()
        self.one = nn.Conv2d(3, 3, 3, padding=1)
        self.two = nn.Conv2d(3, 3, 3, padding=1)
        self.two.weight = self.one.weight
        self.register_buffer("scale", torch.full((1,), 0.5), persistent=False)
        self.mix, self.again = nn.Linear(3, 3), nn.Linear(3, 3)
        self.again.weight = self.mix.weight
        self.head = nn.Linear(3, num_classes)

    def forward(self, images):
        features = self.scale * self.two(self.one(images)).mean(dim=(2, 3))
        return self.head(self.again(self.mix(features)))


number = 3


def raises(num_classes):
    raise ValueError("no weights\nfor you")


def text(num_classes):
    return "network"


def thousand(num_classes):
    return Tiny(1000, 3)


def pair(num_classes):
    class Pair(Tiny):
        def forward(self, images):
            return super().forward(images), images

    return Pair(num_classes, 3)


def empty(num_classes):
    class Empty(nn.Module):
        def forward(self, images):
            return images.mean(dim=(2, 3))[:, :1].repeat(1, num_classes)

    return Empty()
