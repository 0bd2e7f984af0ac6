"""A source whose images lie in one array in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats.targets import Target

from .base import Rows
from .decoding.kinds import GRAY, RGB, RGBA, Kind, reduced_to_8
from .decoding.scaling import resize_planes

__all__ = ["ArraySource"]


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Images of one array; implements `Source`.

    Attributes
    ----------
    spec, split, license, class_names, labels
        As in `Source`.
    pixels : NDArray[np.uint8] or NDArray[np.uint16]
        [N, C, H, W]; a view in another memory order will do.
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
    kind : Kind or None
        What `read` makes of them: gray, RGB or RGBA of 8 bits; None leaves them as they are.
    """

    spec: str
    split: str
    license: str | None
    class_names: tuple[str, ...]
    labels: NDArray[np.int64]
    pixels: NDArray[np.uint8 | np.uint16]
    size: int | None
    array_name: str
    undivided: bool = False
    notes: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    kind: Kind | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image, after scaling."""
        channels, height, width = self.pixels.shape[1:]
        channels = self.kind.channels if self.kind else channels
        return (channels, height, width) if self.size is None else (channels, self.size, self.size)

    @property
    def bits(self) -> int:
        """Of a channel of what is read."""
        return 8 if self.kind else 8 * self.pixels.itemsize

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def name(self, row: int) -> str:
        """Return e.g. ``"x_train[17]"``."""
        return f"{self.array_name}[{row}]"

    def stored_bytes(self, rows: Rows) -> int:
        """Return the bytes of some images in the array, before scaling."""
        return len(rows) * math.prod(self.pixels.shape[1:]) * self.pixels.itemsize

    def read(self, rows: Rows) -> NDArray[np.uint8 | np.uint16]:
        """Copy some images out of the array, [n, C, H, W]; see `Source.read`."""
        pixels = self.pixels[np.asarray(rows, dtype=np.intp)]
        if self.kind is not None:
            pixels = _converted(pixels, self.kind)
        if self.size is not None and pixels.shape[2:] != (self.size, self.size):
            return _resize_batch(pixels, self.size)
        return np.ascontiguousarray(pixels)


def _resize_batch(pixels: NDArray[Any], size: int) -> NDArray[Any]:
    """Apply `edgeprune.sources.decoding.scaling.resize_and_crop` to each image of an array.

    Parameters
    ----------
    pixels : NDArray[np.uint8] or NDArray[np.uint16]
        [n, C, H, W].
    size : int
        Side of the results in pixels.

    Returns
    -------
    NDArray[np.uint8] or NDArray[np.uint16]
        [n, C, size, size].
    """
    resized = np.empty((*pixels.shape[:2], size, size), pixels.dtype)
    for target, image in zip(resized, pixels.transpose(0, 2, 3, 1), strict=True):
        target[:] = resize_planes(image, size).transpose(2, 0, 1)
    return resized


def _converted(pixels: NDArray[Any], kind: Kind) -> NDArray[np.uint8]:
    """Return gray or RGB pixels [n, C, H, W] as gray, RGB or RGBA of 8 bits."""
    pixels = reduced_to_8(pixels)
    if kind == GRAY and pixels.shape[1] == RGB.channels:
        # ITU-R BT.601, rounded as Pillow does it.
        red, green, blue = (pixels[:, number].astype(np.uint32) for number in range(3))
        pixels = ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)[:, None]
    if kind in (RGB, RGBA) and pixels.shape[1] == GRAY.channels:
        pixels = np.repeat(pixels, 3, axis=1)
    if kind == RGBA and pixels.shape[1] == RGB.channels:
        pixels = np.concatenate([pixels, np.full_like(pixels[:, :1], 255)], axis=1)
    return pixels
