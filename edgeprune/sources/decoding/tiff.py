"""TIFF files whose bands Pillow does not read, or not in full: of any number, of 8 or 16 bits.

Pillow decodes them all the same: a row of W pixels of C bands is given to it as a row of C W gray ones, by
a directory of our own behind the file's bytes. What its predictor did to pixels is undone here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Bands", "BandsError", "bands_of", "is_tiff", "read_bands", "read_tags"]

MAX_BANDS = 32
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _FORMAT = 322, 323, 324, 325, 338, 339
_ORIENTATION = 274
# None, LZW, deflate (twice) and PackBits: what leaves bands as they are.
_LOSSLESS = (1, 5, 8, 32946, 32773)
_TYPES = {1: "B", 3: "H", 4: "L"}
# Planes that the color itself has, by photometric interpretation; of others Pillow knows better.
_COLORS = {0: 1, 1: 1, 2: 3}


class BandsError(ValueError):
    """Why a TIFF file's bands cannot be read."""


@dataclass(frozen=True)
class Bands:
    """What a TIFF file holds that is read here.

    Attributes
    ----------
    channels, bits : int
    alpha : int
        0; or 1 or 2 where one more band is transparency, see the tag ExtraSamples.
    """

    channels: int
    bits: int
    alpha: int


def is_tiff(head: bytes) -> bool:
    """Tell whether a file begins as a TIFF file does."""
    return head[:4] in (b"II*\0", b"MM\0*")


def bands_of(tags: Mapping[int, Any]) -> Bands | None:
    """Return what is to be read here, None where Pillow reads all that there is.

    Raises
    ------
    BandsError
        Bands that cannot be read.
    """
    samples = _one(tags, _SAMPLES, 1)
    color = _COLORS.get(_one(tags, _PHOTOMETRIC, 1))
    bits = _all(tags, _BITS, (1,))
    if samples == 1 or color is None or samples < color:
        return None
    extra = _all(tags, _EXTRA, ())
    alpha = extra[0] if samples == color + 1 and extra and extra[0] in (1, 2) else 0
    planes = color if alpha else samples
    if planes == color and bits[0] <= 8:
        return None
    formats = set(_all(tags, _FORMAT, (1,)))
    if set(bits) not in ({8}, {16}) or formats != {1}:
        raise BandsError(f"has {samples} bands that are no integers of 8 or 16 bits; save them as such")
    if planes > MAX_BANDS:
        raise BandsError(f"has {samples} bands, and a pack holds at most {MAX_BANDS} channels")
    if _one(tags, _COMPRESSION, 1) not in _LOSSLESS or _one(tags, _PREDICTOR, 1) not in (1, 2):
        raise BandsError(f"has {samples} bands, compressed in a way that is not read; save it with deflate")
    return Bands(planes, bits[0], alpha)


def read_tags(content: bytes) -> dict[int, tuple[int, ...]]:
    """Return the tags of the first directory that hold integers; raises `BandsError` if it is damaged."""
    order = "<" if content[:2] == b"II" else ">"
    tags = {}
    try:
        (start,) = struct.unpack_from(f"{order}L", content, 4)
        (count,) = struct.unpack_from(f"{order}H", content, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(f"{order}HHL", content, entry)
            if kind not in _TYPES:
                continue
            size = struct.calcsize(_TYPES[kind]) if kind != 4 else 4
            at = entry + 8
            if size * values > 4:
                (at,) = struct.unpack_from(f"{order}L", content, at)
            if at + size * values > len(content):
                raise BandsError("is cut short")
            tags[tag] = struct.unpack_from(f"{order}{values}{_TYPES[kind]}", content, at)
    except struct.error:
        raise BandsError("is cut short") from None
    return tags


def read_bands(content: bytes) -> NDArray[Any]:
    """Return the pixels of a file that has `bands_of`, uint8 or uint16 [H, W, C], upright.

    Transparency is composited on white, as of any image.

    Raises
    ------
    BandsError, OSError
        The file is damaged, or has more pixels than Pillow reads.
    """
    tags = read_tags(content)
    bands = bands_of(tags)
    assert bands is not None
    samples, height, width = (_one(tags, tag, 1) for tag in (_SAMPLES, _HEIGHT, _WIDTH))
    # Bands apart, or side by side in each pixel.
    apart = samples if _one(tags, _PLANAR, 1) == 2 else 1
    planes = [_gray(content, tags, number, apart, samples // apart) for number in range(apart)]
    pixels = np.concatenate([plane.reshape(height, width, -1) for plane in planes], axis=2)
    pixels = pixels.astype(np.uint16 if bands.bits == 16 else np.uint8)
    if _one(tags, _PREDICTOR, 1) == 2:
        _undo_predictor(pixels, _one(tags, _TILE_WIDTH, width))
    if bands.alpha:
        pixels = _on_white(pixels, associated=bands.alpha == 1)
    if _one(tags, _PHOTOMETRIC, 1) == 0:
        pixels = np.iinfo(pixels.dtype).max - pixels
    return _upright(pixels, _one(tags, _ORIENTATION, 1))


def _one(tags: Mapping[int, Any], tag: int, default: int) -> int:
    value = tags.get(tag, default)
    return int(value[0] if isinstance(value, tuple) else value)


def _all(tags: Mapping[int, Any], tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    value = tags.get(tag, default)
    return value if isinstance(value, tuple) else (int(value),)


def _gray(content: bytes, tags: Mapping[int, Any], number: int, apart: int, samples: int) -> NDArray[Any]:
    """Return the rows of part `number` of the file as Pillow reads them, [H, W * samples]."""
    tiled = _TILES in tags
    places, sizes = (_TILES, _TILE_BYTES) if tiled else (_STRIPS, _STRIP_BYTES)
    if not (places in tags and sizes in tags):
        raise BandsError("lacks its pixels")
    height = _one(tags, _HEIGHT, 1)
    entries: dict[int, Sequence[int]] = {
        _WIDTH: [_one(tags, _WIDTH, 1) * samples],
        _HEIGHT: [height],
        _BITS: [_all(tags, _BITS, ())[0]],
        _COMPRESSION: [_one(tags, _COMPRESSION, 1)],
        _PHOTOMETRIC: [1],
        _SAMPLES: [1],
    }
    for tag in (places, sizes):
        all_of = tags[tag]
        share = len(all_of) // apart
        entries[tag] = all_of[number * share : (number + 1) * share]
    if tiled:
        entries[_TILE_WIDTH] = [_one(tags, _TILE_WIDTH, 1) * samples]
        entries[_TILE_HEIGHT] = [_one(tags, _TILE_HEIGHT, 1)]
    else:
        entries[_ROWS] = [min(height, _one(tags, _ROWS, height))]
    with Image.open(io.BytesIO(_with_directory(content, entries)), formats=("TIFF",)) as image:
        return np.asarray(image)


def _with_directory(content: bytes, entries: Mapping[int, Sequence[int]]) -> bytes:
    """Return the file with another directory at its end."""
    order = "<" if content[:2] == b"II" else ">"
    start = len(content) + len(content) % 2
    behind = start + 2 + 12 * len(entries) + 4
    directory, values = struct.pack(f"{order}H", len(entries)), b""
    for tag in sorted(entries):
        numbers = entries[tag]
        short = tag in (_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES)
        packed = struct.pack(f"{order}{len(numbers)}{'H' if short else 'L'}", *numbers)
        if len(packed) > 4:
            place = struct.pack(f"{order}L", behind + len(values))
            values += packed
        else:
            place = packed.ljust(4, b"\0")
        directory += struct.pack(f"{order}HHL", tag, 3 if short else 4, len(numbers)) + place
    head = content[:4] + struct.pack(f"{order}L", start) + content[8:].ljust(start - 8, b"\0")
    return head + directory + bytes(4) + values


def _undo_predictor(pixels: NDArray[Any], tile_width: int) -> None:
    """Add to each pixel those to its left, within its tile; sums wrap as the differences did."""
    for left in range(0, pixels.shape[1], tile_width):
        part = pixels[:, left : left + tile_width]
        np.cumsum(part, axis=1, dtype=pixels.dtype, out=part)


def _on_white(pixels: NDArray[Any], *, associated: bool) -> NDArray[Any]:
    """Composite the bands but the last, which is alpha, on white; associated ones hold it already."""
    peak = np.iinfo(pixels.dtype).max
    color, alpha = pixels[..., :-1].astype(np.float64), pixels[..., -1:] / peak
    mixed = (color if associated else color * alpha) + (1 - alpha) * peak
    return np.rint(np.clip(mixed, 0, peak)).astype(pixels.dtype)


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
