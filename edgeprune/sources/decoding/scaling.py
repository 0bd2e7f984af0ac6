"""Scaling images to the side of a pack's, and keeping the center square."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["reduced", "resize_and_crop", "resize_planes"]

_MEANED_MODES = ("L", "RGB", "RGBX", "CMYK", "YCbCr", "RGBA", "LA")


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Scale the short side of an image to `size` and keep the center square.

    Bicubic; Pillow widens the kernel when it scales down, which is its antialiasing. Only the center
    square is computed, with the pixels around it in reach of the kernel: scaling all of a 1 x 100,000
    strip first would take gigabytes.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode ``L`` or ``RGB``, any size.
    size : int
        Side of the result in pixels, at least 1.

    Returns
    -------
    PIL.Image.Image
        `size` x `size`, of the same mode; `image` itself if it has that size already.
    """
    width, height = image.size
    if (width, height) == (size, size):
        return image
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + short, top + short))


def resize_planes(planes: NDArray[Any], size: int) -> NDArray[Any]:
    """Apply `resize_and_crop` to each plane of uint8 or uint16 [H, W, C]."""
    if planes.shape[:2] == (size, size):
        return planes
    scaled = np.empty((size, size, planes.shape[2]), planes.dtype)
    for number in range(planes.shape[2]):
        plane = np.ascontiguousarray(planes[..., number])
        # Pillow scales 16 bits as floating-point numbers only.
        wide = plane if plane.dtype == np.uint8 else plane.astype(np.float32)
        found = np.asarray(resize_and_crop(Image.fromarray(wide), size))
        scaled[..., number] = np.rint(np.clip(found, 0, np.iinfo(planes.dtype).max))
    return scaled


def reduced(image: Image.Image, side: int) -> Image.Image:
    """Average blocks of pixels, as long as the short side keeps `side` of them; spares memory later."""
    factor = min(image.size) // side
    is_plain = image.mode in _MEANED_MODES and "transparency" not in image.info
    return image.reduce(factor) if is_plain and factor > 1 else image
