"""The orientation that a camera noted, found whatever else is broken in the metadata of an image."""

from __future__ import annotations

import contextlib
import re
from typing import Any, Literal

from PIL import Image

__all__ = ["upright"]

_ORIENTATION = 0x0112
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 13: 4}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, metadata: Image.Image | None = None) -> Image.Image:
    """Turn an image as its EXIF orientation (EXIF 2.3, tag 0x0112) says.

    The tag counts in whatever type it was written, and beside tags that are broken.

    Parameters
    ----------
    image : PIL.Image.Image
    metadata : PIL.Image.Image, optional
        The image that has the EXIF data, if not `image`.
    """
    metadata = metadata or image
    found = _in_bytes(metadata.info.get("exif") or b"")
    if found is None:
        # Text profiles and XMP of PNG, tags of TIFF; of broken metadata Pillow raises nearly anything.
        with contextlib.suppress(Exception):
            found = _number(metadata.getexif().get(_ORIENTATION))
    turn = _TURNS.get(found or 1)
    return image if turn is None else image.transpose(turn)


def _in_bytes(exif: bytes) -> int | None:
    """Return the orientation in an EXIF block; Pillow gives up where any tag before it is broken."""
    tiff = re.sub(rb"^(Exif\0\0){1,2}", b"", exif)
    if tiff[:2] not in (b"II", b"MM"):
        return None
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], order)

    start, found = number(4, 4), None
    for entry in range(start + 2, min(start + 2 + 12 * number(start, 2), len(tiff)), 12):
        if number(entry, 2) == _ORIENTATION:
            size, count = _TYPE_SIZES.get(number(entry + 2, 2), 0), number(entry + 4, 4)
            inside = size * count <= 4 and number(entry + 2, 2) != 5
            at = entry + 8 if inside else number(entry + 8, 4)
            found = _number(tiff[at : at + 1] if size == 1 else number(at, size)) or found
    return found


def _number(value: Any) -> int | None:
    """Return an orientation of 1 to 8 from what a tag holds, None if it holds no such number."""
    if isinstance(value, tuple) and value:
        value = value[0]
    if isinstance(value, bytes):
        value = value[:1].decode("latin-1")
    if isinstance(value, str) and value:
        value = value[0] if value[0].isdigit() else ord(value[0])
    try:
        number = int(value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return number if 1 <= number <= 8 else None
