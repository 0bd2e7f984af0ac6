"""A source whose images lie in one array in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeprune_formats.targets import Target

from .base import Rows
from .decoding.images import resize_and_crop

__all__ = ["ArraySource", "resize_batch"]


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Images of one array; implements `Source`.

    Attributes
    ----------
    spec, split, license, class_names, labels
        As in `Source`.
    pixels : NDArray[np.uint8]
        [N, 1 or 3, H, W], gray or RGB; a view in another memory order will do.
    size : int or None
        Side to which `read` scales and crops the images; None keeps H x W.
    array_name : str
        What `name` puts before the row: ``"x_train"`` for ``"x_train[17]"``.
    undivided : bool
        Whether the source has no halves, so that either split is all of it.
    notes : tuple[str, ...]
        What a user should know of the arrays.
    targets : tuple of Target
        See `Source`.
    """

    spec: str
    split: str
    license: str | None
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    size: int | None
    array_name: str
    undivided: bool = False
    notes: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, H, W) of every image, after scaling."""
        height, width = self.pixels.shape[2:]
        return (3, height, width) if self.size is None else (3, self.size, self.size)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def name(self, row: int) -> str:
        """Return e.g. ``"x_train[17]"``."""
        return f"{self.array_name}[{row}]"

    def stored_bytes(self, rows: Rows) -> int:
        """Return the bytes of some images in the array, before scaling."""
        return len(rows) * math.prod(self.pixels.shape[1:])

    def read(self, rows: Rows) -> NDArray[np.uint8]:
        """Copy some images out of the array, [n, 3, H, W]; see `Source.read`."""
        pixels = self.pixels[np.asarray(rows, dtype=np.intp)]
        if pixels.shape[1] == 1:
            pixels = np.repeat(pixels, 3, axis=1)
        if self.size is not None and pixels.shape[2:] != (self.size, self.size):
            return resize_batch(pixels, self.size)
        return np.ascontiguousarray(pixels)


def resize_batch(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Apply `edgeprune.sources.decoding.images.resize_and_crop` to each image of an array.

    Parameters
    ----------
    pixels : NDArray[np.uint8]
        [n, 3, H, W], RGB.
    size : int
        Side of the results in pixels.

    Returns
    -------
    NDArray[np.uint8]
        [n, 3, size, size].
    """
    resized = np.empty((len(pixels), 3, size, size), dtype=np.uint8)
    for target, image in zip(resized, pixels.transpose(0, 2, 3, 1), strict=True):
        scaled = resize_and_crop(Image.fromarray(np.ascontiguousarray(image)), size)
        target[:] = np.asarray(scaled).transpose(2, 0, 1)
    return resized
