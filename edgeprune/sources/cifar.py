"""CIFAR-10 and CIFAR-100 from the official archives, read by torchvision and never downloaded."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from edgeprune_formats import ConfigError

from ..errors import SourceError
from .arrays import ArraySource

__all__ = ["open_cifar"]

_DEFAULT_ROOT = "data"
_ARCHIVES = {
    "cifar10": ("CIFAR10", "cifar-10-python.tar.gz"),
    "cifar100": ("CIFAR100", "cifar-100-python.tar.gz"),
}


def open_cifar(spec: str, split: str, size: int | None) -> ArraySource:
    """Open CIFAR-10 or CIFAR-100.

    Parameters
    ----------
    spec : str
        ``"cifar10"``, ``"cifar10:ROOT"``, ``"cifar100"`` or ``"cifar100:ROOT"``. ROOT is the folder with
        the unpacked official archive, as torchvision expects it; ``data`` by default.
    split : str
        ``"train"`` or ``"test"``.
    size : int or None
        Side to which `ArraySource.read` scales the 32x32 images.

    Raises
    ------
    SourceError
        The files are not in ROOT, or are damaged.
    ConfigError
        torchvision is not installed.
    """
    kind, _, root = spec.partition(":")
    data = _load(kind, root or _DEFAULT_ROOT, train=split == "train")
    pixels = np.asarray(data.data, dtype=np.uint8).transpose(0, 3, 1, 2)
    labels = np.asarray(data.targets, dtype=np.int64)
    return ArraySource(spec, split, None, tuple(data.classes), labels, pixels, size, f"{kind} {split}")


def _load(kind: str, root: str, *, train: bool) -> Any:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise ConfigError(f"{kind} needs torchvision; pip install 'edgeprune[build]'") from error
    class_name, archive = _ARCHIVES[kind]
    try:
        with warnings.catch_warnings():
            # NumPy 2.4.0 to 2.4.4 warn about the old pickles inside (pytorch/vision#9340); they load well.
            warnings.simplefilter("ignore")
            return getattr(datasets, class_name)(root, train=train, download=False)
    except (RuntimeError, OSError) as error:
        raise SourceError(
            f"{kind}: no complete copy under {root}; put the official {archive} "
            f"(https://www.cs.toronto.edu/~kriz/{archive}) there and unpack it: "
            f"tar -xzf {root}/{archive} -C {root}"
        ) from error
