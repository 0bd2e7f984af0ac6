"""Pixels of Pillow's modes as those of a pack: on white, without palettes, with all their bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["gray16", "to_mode"]

_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa")
_PHOTOMETRIC, _BITS = 262, 258


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return an image in another mode, composited on white unless that has transparency.

    Raises
    ------
    ValueError
        Its pixels have no meaning in 8 bits.
    """
    if image.mode == "F":
        raise ValueError("has floating-point pixels, whose range is unknown; save it as 8-bit RGB first")
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        if mode == "RGBA":
            return image
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode == mode:
        return image
    is_plain = mode == "RGB" or image.mode in ("1", "L", "RGB")
    return (image if is_plain else image.convert("RGB")).convert(mode)


def gray16(image: Image.Image, tags: Mapping[int, Any]) -> NDArray[np.uint16]:
    """Return the pixels of 16-bit gray, uint16 [H, W]; `tags` are those of a TIFF file.

    Raises
    ------
    ValueError
        They do not fit 16 bits.
    """
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        span = f"{values.min()} to {values.max()}"
        raise ValueError(f"has pixels from {span}, beyond 16 bits; save it as 8-bit or 16-bit gray first")
    values = values.astype(np.uint32)
    # Pillow leaves TIFF files of 12 bits dark, and those of 16 bits where 0 is white as they are.
    if tags.get(_BITS) == (12,):
        values = (values * 65535 + 2047) // 4095
    if tags.get(_PHOTOMETRIC) == 0:
        values = 65535 - values
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        values[values == transparent] = 65535
    return values.astype(np.uint16)
