"""One image file to pixels, whatever its mode, orientation and depth: by default 8-bit RGB."""

from __future__ import annotations

import io
import logging
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

from ...errors import SourceError
from .kinds import MODES, RGB_IF_COLOR, Kind, Wanted, kind_of, reduced_to_8
from .modes import gray16, to_mode
from .orientation import upright
from .png import without_extras
from .scaling import reduced, resize_and_crop, resize_planes
from .tiff import BandsError, bands_of, is_tiff, read_bands, read_tags

__all__ = [
    "IMAGE_SUFFIXES",
    "UNREAD_SUFFIXES",
    "decode_image",
    "image_kind",
    "pillow_guard",
    "read_image",
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
# Pillow's remarks on files that are read all the same, which Python prints where nobody listens.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def _new_locks() -> None:
    """Begin anew in a process that was forked while a thread of its parent held a lock."""
    global _GUARD, _LARGE
    _GUARD, _LARGE = _Guard(), threading.Lock()


os.register_at_fork(after_in_child=_new_locks)


def read_image(
    path: str | Path, size: int | None, planes: int | None = None
) -> NDArray[np.uint8 | np.uint16]:
    """Read one image file as a viewer shows it.

    EXIF orientation is applied; transparency is composited on white; 16-bit gray is divided by 257 and
    rounded (mode ``I`` counts as 16-bit gray); other modes are converted as Pillow does, and several bands
    of a TIFF file that are no color are refused. Of an animation
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
    planes : int, optional
        So many channels in place of RGB: those of the image, with all their bits, if it has so many;
        otherwise it is converted to gray (1), RGB (3) or RGBA (4).

    Returns
    -------
    NDArray[np.uint8] or NDArray[np.uint16]
        [H, W, 3], RGB; or [H, W, planes].

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
        return decode_image(str(path), size, name=str(path), wanted=planes or RGB_IF_COLOR)


def image_kind(image: str | bytes, *, name: str) -> tuple[Kind, str]:
    """Return the kind of an image by its header, and a note where its pixels are read with fewer bits.

    To be called as `decode_image`; raises `SourceError` as it does, for what the header tells.
    """
    try:
        file = image if isinstance(image, str) else io.BytesIO(image)
        with Image.open(file, formats=_FORMATS) as opened:
            return kind_of(opened), _bits_lost(opened)
    except MemoryError:
        raise
    except Exception as error:
        try:
            bands = _bands_alone(image)
        except BandsError as reason:
            raise SourceError(f"{name}: {reason}") from error
        except OSError:
            bands = None
        if bands is None:
            raise SourceError(f"{name}: {_reason(error, image)}") from error
        return bands[0], ""


def _bits_lost(opened: Image.Image) -> str:
    """Return a note on 16 bits of a color PNG, of which Pillow reads 8."""
    tile = getattr(opened, "tile", None)
    raw = tile[0][3] if opened.format == "PNG" and tile else ""
    is_deep = isinstance(raw, str) and raw.endswith(";16B") and not opened.mode.startswith("I")
    return "color PNG of 16 bits are read as 8 bits; TIFF and npz keep 16" if is_deep else ""


def _bands_alone(image: str | bytes) -> tuple[Kind, bytes] | None:
    """Return the kind and the bytes of a TIFF file with bands that are read here; None for other files.

    Raises
    ------
    BandsError
        Bands that cannot be read.
    """
    with _stream(image) as stream:
        content = stream.read(4)
        if not is_tiff(content):
            return None
        content += stream.read()
    bands = bands_of(read_tags(content))
    return None if bands is None else (Kind(bands.channels, bands.bits), content)


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


def decode_image(
    image: str | bytes,
    size: int | None,
    *,
    name: str,
    wanted: Wanted | int | None = RGB_IF_COLOR,
    fast_jpeg: bool = False,
) -> NDArray[np.uint8 | np.uint16]:
    """Do the work of `read_image`, safe in any thread as long as `pillow_guard` is entered around it.

    Parameters
    ----------
    image : str or bytes
        The path of a file, or what a file would hold.
    size : int or None
        Passed to `resize_and_crop`.
    name : str
        How an error message calls the image.
    wanted : Wanted, int or None
        What it is decoded to; a number is the `planes` of `read_image`; None leaves its kind as it is.
    fast_jpeg : bool
        Let the JPEG decoder scale large images, which saves most of the time; pixels differ a little. It
        takes a half, a quarter or an eighth of the size, but at least four times `size`, and what remains
        is scaled as always.

    Returns
    -------
    NDArray[np.uint8] or NDArray[np.uint16]
        [H, W, C].

    Raises
    ------
    SourceError
        As `read_image`, with the message ``"name: reason"``.
    """
    if isinstance(image, str) and _is_pipe(image):
        raise SourceError(f"{name}: is not a regular file")
    try:
        return _decoded(image, size, wanted, fast_jpeg)
    except MemoryError:
        raise
    except _UnfitError as reason:
        raise SourceError(f"{name}: {reason}") from None
    # Damaged files make Pillow's plugins raise nearly any exception, struct.error and IndexError included.
    except Exception as error:
        pixels = _decoded_otherwise(image, size, wanted, name)
        if pixels is None:
            raise SourceError(f"{name}: {_reason(error, image)}") from error
        return pixels


class _UnfitError(Exception):
    """An image is sound, and not of the kind that is wanted."""


def _fitting(wanted: Wanted | int | None, kind: Kind) -> Wanted:
    """Return what an image of a kind is decoded to; raises `_UnfitError`."""
    if wanted is None:
        return Wanted(kind)
    if isinstance(wanted, int):
        if kind.channels != wanted and (wanted not in MODES or kind.channels not in (1, 3)):
            raise _UnfitError(f"is {kind}, and {wanted} planes are needed")
        wanted = Wanted(kind if kind.channels == wanted else Kind(wanted))
    reason = wanted.reason_against(kind)
    if reason is not None:
        raise _UnfitError(reason)
    return wanted


def _decoded(
    content: str | bytes, size: int | None, wanted: Wanted | int | None, fast_jpeg: bool = False
) -> NDArray[np.uint8 | np.uint16]:
    file = content if isinstance(content, str) else io.BytesIO(content)
    with Image.open(file, formats=_FORMATS) as opened, _room_for(opened, size) as is_large:
        kind = kind_of(opened)
        wanted = _fitting(wanted, kind)
        if opened.format == "TIFF" and bands_of(opened.tag_v2) is not None:
            with _stream(content) as stream:
                return _of_bands(read_bands(stream.read()), size, wanted)
        if (is_large or fast_jpeg) and size is not None:
            # Of JPEG files only; they come out 4 to 8 times as large as wanted, or as they are.
            scale = 4 * size / min(opened.size)
            opened.draft(None, (round(scale * opened.width), round(scale * opened.height)))
        opened.load()
        image = reduced(opened, 4 * size) if is_large and size is not None else opened
        image = upright(image, opened)
        if kind == Kind(1, 16):
            return _of_bands(gray16(image, getattr(opened, "tag_v2", {}))[..., None], size, wanted)
        image = to_mode(image, MODES[wanted.kind.channels])
        pixels = np.array(image if size is None else resize_and_crop(image, size))
        return pixels if pixels.ndim == 3 else pixels[..., None]


def _of_bands(planes: NDArray[Any], size: int | None, wanted: Wanted) -> NDArray[np.uint8 | np.uint16]:
    """Return planes [H, W, C] of 8 or 16 bits, scaled and converted."""
    if planes.shape[2] == wanted.kind.channels and planes.dtype == wanted.kind.dtype:
        return planes if size is None else resize_planes(planes, size)
    eight = reduced_to_8(planes)
    image = Image.fromarray(np.ascontiguousarray(eight[..., 0] if eight.shape[2] == 1 else eight))
    image = image.convert(MODES[wanted.kind.channels])
    pixels = np.array(image if size is None else resize_and_crop(image, size))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _is_pipe(path: str) -> bool:
    """Tell whether opening a file would wait for somebody to write into it."""
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)  # noqa: PTH116 - a Path for each file takes long
    except OSError:
        return False


def _stream(content: str | bytes) -> BinaryIO:
    return Path(content).open("rb") if isinstance(content, str) else io.BytesIO(content)


def _decoded_otherwise(
    image: str | bytes, size: int | None, wanted: Wanted | int | None, name: str
) -> NDArray[np.uint8 | np.uint16] | None:
    """Return the pixels of a PNG where something beside them is damaged, or of a TIFF with many bands.

    None if that is not all; raises `SourceError` for a TIFF that is refused.
    """
    try:
        with _stream(image) as stream:
            content = without_extras(stream)
        if content is not None:
            return _decoded(content, size, wanted)
        bands = _bands_alone(image)
        return None if bands is None else _of_bands(read_bands(bands[1]), size, _fitting(wanted, bands[0]))
    except MemoryError:
        raise
    except (_UnfitError, BandsError) as reason:
        raise SourceError(f"{name}: {reason}") from None
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
