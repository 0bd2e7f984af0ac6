"""Images as pictures inside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["SIDE", "Card", "Picture", "picture"]

SIDE = 128
"""Pixels of the longer side of a picture at most; larger images are scaled down."""
_EXACT, _QUALITY = 64 * 64, 88


@dataclass(frozen=True)
class Picture:
    """An image as a ``data:`` address, what it shows, and its size in pixels."""

    address: str
    title: str
    width: int
    height: int


@dataclass(frozen=True)
class Card:
    """Pictures of one image, and the lines below them.

    Attributes
    ----------
    pictures : tuple of Picture
    lines : tuple of str
        The first says which image it is.
    """

    pictures: tuple[Picture, ...]
    lines: tuple[str, ...]


def picture(image: NDArray[np.uint8], title: str) -> Picture:
    """Return an image uint8 [H, W, 3] as WebP: up to 64x64 pixels lossless, larger ones not.

    Parameters
    ----------
    image : uint8 [H, W, 3]
    title : str
        What a reader who does not see it is told.
    """
    shown = Image.fromarray(np.ascontiguousarray(image))
    if max(shown.size) > SIDE:
        shown.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    file = io.BytesIO()
    shown.save(file, "WEBP", lossless=shown.width * shown.height <= _EXACT, quality=_QUALITY, method=4)
    text = base64.b64encode(file.getvalue()).decode()
    return Picture(f"data:image/webp;base64,{text}", title, *shown.size)
