"""What is wrong with test batches, found before there is an epoch to lose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import torch

from edgeprune_formats import ConfigError
from edgeprune_formats.targets import LABEL

from ..loading.loader import PackLoader

__all__ = ["check_batches"]


def check_batches(test: Iterable[Any] | None, num_classes: int, image_shape: Sequence[int]) -> None:
    """Check what is known of test batches before the first epoch: of a list all, of a `PackLoader` labels.

    Raises
    ------
    ConfigError
        There is no batch, they can be read once only, images are of another shape, or labels of no class.
    """
    if isinstance(test, Iterator):
        raise ConfigError(
            "the test set can be read only once; give what can be iterated over after each epoch"
        )
    # The types of what is given are the caller's word.
    given: Any = test
    if isinstance(given, Sized) and not len(given):
        raise ConfigError("the test set yields no batch")
    if isinstance(given, PackLoader):
        if given.targets and given.targets[0].name == LABEL:
            _require_classes(int(given.pack.labels.max()), num_classes)
    elif isinstance(given, Sequence):
        for place in range(len(given)):
            images, labels = given[place]
            _require_fit(images, labels, num_classes, tuple(image_shape))


def _require_fit(
    images: torch.Tensor, labels: torch.Tensor, num_classes: int, image_shape: tuple[int, ...]
) -> None:
    if tuple(images.shape[1:]) != image_shape:
        raise ConfigError(f"test images are {tuple(images.shape[1:])}, training images {image_shape}")
    if labels.dtype == torch.int64 and labels.ndim == 1 and len(labels):
        _require_classes(int(labels.max()), num_classes)


def _require_classes(highest: int, num_classes: int) -> None:
    if highest >= num_classes:
        raise ConfigError(f"the test set has label {highest}, and the network {num_classes} classes")
