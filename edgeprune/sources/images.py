"""One image file to 8-bit RGB, whatever its mode, orientation and depth."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import SourceError

__all__ = ["IMAGE_SUFFIXES", "decode_image", "pillow_guard", "read_image", "resize_and_crop"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".gif")
"""File names that count as images, compared in lower case."""

# Without this list Pillow tries every format it knows on a misnamed file, Ghostscript for EPS included.
_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "GIF", "TIFF", "WEBP")
_ORIENTATION = 0x0112
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa")


def read_image(path: str | Path, size: int | None) -> NDArray[np.uint8]:
    """Read one image file as a viewer shows it.

    EXIF orientation is applied; transparency is composited on white; 16-bit gray is divided by 257 and
    rounded (mode ``I`` counts as 16-bit gray); other modes are converted as Pillow does. Of an animation
    the first frame is read. ICC profiles are ignored.

    Parameters
    ----------
    path : str or Path
        JPEG, PNG, BMP, PPM/PGM, GIF, TIFF or WebP; the content decides, not the suffix.
    size : int or None
        Passed to `resize_and_crop`; None keeps the size of the file.

    Returns
    -------
    NDArray[np.uint8]
        [H, W, 3], RGB.

    Raises
    ------
    SourceError
        The file is missing, no image, damaged, too large or has pixels without a meaning in 8 bits. The
        message is ``"path: reason"``.

    Notes
    -----
    Changes the process-wide warning filters while it runs. To read in several threads, enter
    `pillow_guard` once around them and call `decode_image`.
    """
    with pillow_guard():
        return decode_image(str(path), size, name=str(path))


@contextmanager
def pillow_guard() -> Iterator[None]:
    """Turn Pillow's decompression-bomb warning into an error and silence its remarks on metadata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode_image(path: str, size: int | None, *, name: str) -> NDArray[np.uint8]:
    """Do the work of `read_image`, safe in any thread as long as `pillow_guard` is entered around it.

    Parameters
    ----------
    path : str
        The file.
    size : int or None
        Passed to `resize_and_crop`.
    name : str
        How an error message calls the file.

    Returns
    -------
    NDArray[np.uint8]
        [H, W, 3], RGB.

    Raises
    ------
    SourceError
        As `read_image`, with the message ``"name: reason"``.
    """
    try:
        with Image.open(path, formats=_FORMATS) as opened:
            opened.load()
            image = _to_rgb(_upright(opened))
            return np.array(image if size is None else resize_and_crop(image, size))
    except MemoryError:
        raise
    # Damaged files make Pillow's plugins raise nearly any exception, struct.error and IndexError included.
    except Exception as error:
        raise SourceError(f"{name}: {_reason(error, path)}") from error


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


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    # Broken metadata does not spoil the pixels, and a viewer shows such a file all the same.
    except Exception:
        return image
    # exif_transpose copies the image even when there is nothing to turn.
    return image if orientation == 1 else ImageOps.exif_transpose(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("has floating-point pixels, whose range is unknown; save it as 8-bit RGB first")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _grey16_to_rgb(image)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey16_to_rgb(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        span = f"{values.min()} to {values.max()}"
        raise ValueError(f"has pixels from {span}, beyond 16 bits; save it as 8-bit or 16-bit gray first")
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        values[values == transparent] = 65535
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def _reason(error: Exception, path: str) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "is empty" if Path(path).stat().st_size == 0 else "is not an image in a format known here"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
