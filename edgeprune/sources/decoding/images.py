"""One image file to 8-bit RGB, whatever its mode, orientation and depth."""

from __future__ import annotations

import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

from ...errors import SourceError
from .orientation import upright
from .png import without_extras

__all__ = [
    "IMAGE_SUFFIXES",
    "UNREAD_SUFFIXES",
    "decode_image",
    "pillow_guard",
    "read_image",
    "resize_and_crop",
]

_HAS_AVIF = "avif" in features.modules and features.check_module("avif")
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".tif", ".tiff", ".webp", ".gif"),
    *((".avif",) if _HAS_AVIF else ()),
)
"""File names that count as images, compared in lower case."""
UNREAD_SUFFIXES = (
    *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".psd", ".svg", ".eps", ".tga"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".exr", ".hdr", ".dcm", ".dib"),
    *(() if _HAS_AVIF else (".avif",)),
)
"""File names of images in formats that are not read."""

# Without this list Pillow tries every format it knows on a misnamed file, Ghostscript for EPS included.
_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "GIF", "TIFF", "WEBP", *(("AVIF",) if _HAS_AVIF else ()))
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa")
_MEANED_MODES = ("L", "RGB", "RGBX", "CMYK", "YCbCr", "RGBA", "LA")
_PHOTOMETRIC, _BITS = 262, 258


class _Guard:
    """Silences warnings while one thread at least is inside: their filters are the whole process's."""

    def __init__(self) -> None:
        self.lock, self.inside, self.filters = threading.Lock(), 0, ExitStack()

    def enter(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self.filters.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                self.filters.close()


_GUARD, _LARGE = _Guard(), threading.Lock()


def _new_locks() -> None:
    """Begin anew in a process that was forked while a thread of its parent held a lock."""
    global _GUARD, _LARGE
    _GUARD, _LARGE = _Guard(), threading.Lock()


os.register_at_fork(after_in_child=_new_locks)


def read_image(path: str | Path, size: int | None) -> NDArray[np.uint8]:
    """Read one image file as a viewer shows it.

    EXIF orientation is applied; transparency is composited on white; 16-bit gray is divided by 257 and
    rounded (mode ``I`` counts as 16-bit gray); other modes are converted as Pillow does. Of an animation
    the first frame is read. ICC profiles are ignored, and so are damaged chunks of a PNG that its pixels do
    not need. An image of more pixels than ``PIL.Image.MAX_IMAGE_PIXELS`` is scaled while it is decoded, and
    one of more than twice as many is refused.

    Parameters
    ----------
    path : str or Path
        JPEG, PNG, BMP, PPM/PGM, GIF, TIFF, WebP or, where Pillow has it, AVIF; the content decides, not the
        suffix.
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
    Changes the process-wide warning filters while it runs. To read many, enter `pillow_guard` once around
    calls of `decode_image`.
    """
    with pillow_guard():
        return decode_image(str(path), size, name=str(path))


@contextmanager
def pillow_guard() -> Iterator[None]:
    """Silence Pillow's remarks on metadata and on large images, which `decode_image` judges itself.

    Several threads may be inside at once.
    """
    guard = _GUARD
    guard.enter()
    try:
        yield
    finally:
        guard.leave()


def decode_image(image: str | bytes, size: int | None, *, name: str) -> NDArray[np.uint8]:
    """Do the work of `read_image`, safe in any thread as long as `pillow_guard` is entered around it.

    Parameters
    ----------
    image : str or bytes
        The path of a file, or what a file would hold.
    size : int or None
        Passed to `resize_and_crop`.
    name : str
        How an error message calls the image.

    Returns
    -------
    NDArray[np.uint8]
        [H, W, 3], RGB.

    Raises
    ------
    SourceError
        As `read_image`, with the message ``"name: reason"``.
    """
    if isinstance(image, str) and _is_pipe(image):
        raise SourceError(f"{name}: is not a regular file")
    try:
        return _decoded(image, size)
    except MemoryError:
        raise
    # Damaged files make Pillow's plugins raise nearly any exception, struct.error and IndexError included.
    except Exception as error:
        pixels = _decoded_without_extras(image, size)
        if pixels is None:
            raise SourceError(f"{name}: {_reason(error, image)}") from error
        return pixels


def _decoded(content: str | bytes, size: int | None) -> NDArray[np.uint8]:
    file = content if isinstance(content, str) else io.BytesIO(content)
    with Image.open(file, formats=_FORMATS) as opened, _room_for(opened, size) as is_large:
        if is_large and size is not None:
            # Of JPEG files only; they come out 4 to 8 times as large as wanted, or as they are.
            scale = 4 * size / min(opened.size)
            opened.draft(None, (round(scale * opened.width), round(scale * opened.height)))
        opened.load()
        image = _reduced(opened, 4 * size) if is_large and size is not None else opened
        image = _to_rgb(upright(image, opened), opened)
        return np.array(image if size is None else resize_and_crop(image, size))


def _is_pipe(path: str) -> bool:
    """Tell whether opening a file would wait for somebody to write into it."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)  # noqa: PTH116 - a Path for each file takes long
    except OSError:
        return False


def _stream(content: str | bytes) -> BinaryIO:
    return Path(content).open("rb") if isinstance(content, str) else io.BytesIO(content)


def _decoded_without_extras(image: str | bytes, size: int | None) -> NDArray[np.uint8] | None:
    """Return the pixels of a PNG where something beside them is damaged, None if that is not all."""
    try:
        with _stream(image) as stream:
            content = without_extras(stream)
        return None if content is None else _decoded(content, size)
    except MemoryError:
        raise
    except Exception:
        return None


def _room_for(image: Image.Image, size: int | None) -> AbstractContextManager[bool]:
    """Return a context that tells whether an image is large; such ones are decoded one at a time."""
    limit, pixels = Image.MAX_IMAGE_PIXELS, image.width * image.height
    if limit is None or pixels <= limit:
        return nullcontext(False)
    if size is None:
        raise ValueError(
            f"Image size ({pixels} pixels) exceeds limit of {limit} pixels; pass `size` to scale it down"
        )
    return _LARGE


def _reduced(image: Image.Image, side: int) -> Image.Image:
    """Average blocks of pixels, as long as the short side keeps `side` of them; spares memory later."""
    factor = min(image.size) // side
    is_plain = image.mode in _MEANED_MODES and "transparency" not in image.info
    return image.reduce(factor) if is_plain and factor > 1 else image


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


def _to_rgb(image: Image.Image, opened: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("has floating-point pixels, whose range is unknown; save it as 8-bit RGB first")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _gray16_to_rgb(image, getattr(opened, "tag_v2", {}))
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _gray16_to_rgb(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
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
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def _reason(error: Exception, image: str | bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        return _unidentified(image)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _unidentified(image: str | bytes) -> str:
    with _stream(image) as stream:
        head = stream.read(4)
    if not head:
        return "is empty"
    if head in (b"II*\0", b"MM\0*"):
        return "is a TIFF of a kind that Pillow does not read, or damaged; save it as 8-bit RGB"
    return "is not an image in a format known here"
