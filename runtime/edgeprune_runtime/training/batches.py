"""What is wrong with training and test batches, found before there is an epoch to lose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import Any

import torch

from edgeprune_formats import ConfigError
from edgeprune_formats.targets import LABEL

from ..class_names import class_numbers
from ..loading.loader import PackLoader

__all__ = ["check_batches", "check_loader"]


def check_loader(loader: object, num_classes: int, image_shape: Sequence[int], what: str) -> None:
    """Check what a `PackLoader` gives against the arguments of `edgeprune_runtime.training.train`.

    Raises
    ------
    ConfigError
        It gives arrays, images of another shape, or more classes or numbers than the network has.
    """
    if not isinstance(loader, PackLoader):
        return
    if not loader.gives_tensors:
        raise ConfigError(f"the loader of {what} images gives arrays; make it with `backend='torch'`")
    if loader.image_shape != tuple(image_shape):
        raise ConfigError(f"{what} images are {loader.image_shape}, `image_shape` is {tuple(image_shape)}")
    column = loader.targets[0] if loader.targets else None
    if column is None:
        return
    if column.name == LABEL:
        _require_classes(int(loader.pack.labels.max()), num_classes, what)
    elif column.outputs != num_classes and not (column.kind == "class" and column.outputs < num_classes):
        raise ConfigError(
            f"target {column.name!r} of {what} images has {column.outputs} outputs, and `num_classes` is "
            f"{num_classes}"
        )


def check_batches(
    test: Iterable[Any] | None,
    num_classes: int,
    image_shape: Sequence[int],
    class_names: Sequence[str] | None = None,
) -> None:
    """Check test batches before the first epoch: of a list all, of a `PackLoader` what it knows of them.

    Raises
    ------
    ConfigError
        There is no batch, they can be read once only, images are of another shape, or labels of no class or
        of classes in another order than `class_names`.
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
        check_loader(given, num_classes, image_shape, "test")
        if given.targets and class_names is not None:
            _require_order(given.targets[0].classes, class_names)
    elif isinstance(given, Sequence):
        for place in range(len(given)):
            images, labels = given[place]
            _require_fit(images, labels, num_classes, tuple(image_shape))


def _require_fit(
    images: torch.Tensor, labels: torch.Tensor, num_classes: int, image_shape: tuple[int, ...]
) -> None:
    tensors = isinstance(images, torch.Tensor) and isinstance(labels, torch.Tensor)
    if not tensors or images.dtype != torch.float32 or len(images) != len(labels):
        raise ConfigError(
            "a test batch is images, a float32 tensor [n, C, H, W], and a tensor with an entry for each"
        )
    if tuple(images.shape[1:]) != image_shape:
        raise ConfigError(f"test images are {tuple(images.shape[1:])}, training images {image_shape}")
    if labels.dtype == torch.int64 and labels.ndim == 1 and len(labels):
        for label in (int(labels.max()), int(labels.min())):
            _require_classes(label, num_classes, "test")


def _require_classes(label: int, num_classes: int, what: str) -> None:
    if not 0 <= label < num_classes:
        raise ConfigError(f"the {what} set has label {label}, and the network {num_classes} classes")


def _require_order(classes: Sequence[str], trained: Sequence[str]) -> None:
    """Raise `ConfigError` where a class of the test set has another number than in training."""
    for place, number in enumerate(class_numbers(classes, trained)):
        if number != place and (number is not None or place < len(trained)):
            own = "not there" if number is None else number
            raise ConfigError(
                f"class {classes[place]!r} is {place} in the test set, and in training {own}; build the test "
                "pack with the same classes in the same order, or test by `edgeprune train`, which goes by "
                "their names"
            )
