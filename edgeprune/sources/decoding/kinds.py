"""How many planes an image has, of how many bits, and which of it a build keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .tiff import bands_of

__all__ = [
    "GRAY",
    "MODES",
    "NAMED",
    "RGB",
    "RGBA",
    "RGB_IF_COLOR",
    "Kind",
    "Wanted",
    "kind_of",
    "peak_of",
    "reduced_to_8",
    "to_floats",
    "to_integers",
]


@dataclass(frozen=True)
class Kind:
    """Planes of an image and their bits, 8 or 16."""

    channels: int
    bits: int = 8

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of pixels, uint8 or uint16."""
        return np.dtype(np.uint16 if self.bits == 16 else np.uint8)

    def __str__(self) -> str:
        name = {1: "gray", 3: "RGB"}.get(self.channels, f"{self.channels} planes")
        return name if self.bits == 8 else f"{name} of {self.bits} bits"


GRAY, RGB, RGBA = Kind(1), Kind(3), Kind(4)
NAMED = {"gray": GRAY, "rgb": RGB, "rgba": RGBA}
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Of Pillow, by the number of channels."""
_GRAY_MODES = ("1", "L", "LA", "La")


def kind_of(image: Image.Image) -> Kind:
    """Return the kind of an image that was opened; transparency does not count."""
    bands = bands_of(image.tag_v2) if image.format == "TIFF" else None  # type: ignore[attr-defined]
    if bands is not None:
        return Kind(bands.channels, bands.bits)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Kind(1, 16)
    return GRAY if image.mode in _GRAY_MODES else RGB


def peak_of(pixels: NDArray[Any]) -> int:
    """Return the pixel that stands for 1: 255 or 65,535."""
    return int(np.iinfo(pixels.dtype).max)


def to_floats(pixels: NDArray[np.uint8 | np.uint16]) -> NDArray[np.float32]:
    """Return whole numbers as float32 on [0, 1]."""
    return np.asarray(pixels.astype(np.float32) / np.float32(peak_of(pixels)))


def to_integers(images: NDArray[Any], bits: int = 8) -> NDArray[Any]:
    """Return values on [0, 1], or a little beyond, as whole numbers, uint8 or uint16."""
    peak = 2**bits - 1
    pixels: NDArray[Any] = np.clip(np.rint(images * peak), 0, peak)
    return pixels.astype(np.uint8 if bits == 8 else np.uint16)


def reduced_to_8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return pixels of 16 bits divided by 257 and rounded, and those of 8 bits as they are."""
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


@dataclass(frozen=True)
class Wanted:
    """What images are decoded to.

    Attributes
    ----------
    kind : Kind
    convert : bool
        Whether images of another kind are converted, to gray, RGB or RGBA of 8 bits. Otherwise they are
        refused, but for gray ones where RGB is wanted.
    others : str
        What a message says of images that are of the kind, such as ``"a/1.png is gray"``.
    """

    kind: Kind = RGB
    convert: bool = True
    others: str = ""

    def reason_against(self, kind: Kind) -> str | None:
        """Return why an image of a kind is refused, None if it is not."""
        if kind == self.kind or (not self.convert and (kind, self.kind) == (GRAY, RGB)):
            return None
        if not self.convert:
            remedy = "" if kind.channels not in (1, 3) else '; pass `channels="rgb"` (or gray) to convert all'
            return f"is {kind}, but {self.others}{remedy}"
        if self.kind.bits != 8 or self.kind.channels not in MODES or kind.channels not in (1, 3):
            return f'is {kind}, which cannot be made {self.kind}; build with `channels="as-is"`'
        return None


RGB_IF_COLOR = Wanted()
