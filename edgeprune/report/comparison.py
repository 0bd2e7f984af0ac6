"""The same images as raw pixels, PNG, JPEG and WebP files, and packs: size, error and time to decode."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeprune_formats import open_pack

from ..psnr import psnr_db
from .pixels import pixels_of

__all__ = ["Stored", "as_files", "as_lossy", "as_pack", "as_pixels", "psnr"]

Pixels = NDArray[np.uint8]
_REPEATS = 3


@dataclass(frozen=True)
class Stored:
    """Images in one form.

    Attributes
    ----------
    name : str
    bytes_per_image : float
    psnr : float
        Of the decoded images, rounded to 8 bits, in dB over all pixels; infinite if they are the same.
    images_per_second : float or None
        Decoded in one process; None where there is nothing to decode.
    """

    name: str
    bytes_per_image: float
    psnr: float
    images_per_second: float | None


def as_pixels(images: Pixels) -> Stored:
    """Return what raw pixels take; `images` are uint8 [n, H, W, 3], or gray ones [n, H, W]."""
    return Stored("raw pixels, uint8", images[0].nbytes, math.inf, None)


def as_files(name: str, images: Pixels, kind: str, **settings: Any) -> Stored:
    """Write each image as a file in memory by Pillow, and read it again."""
    files = [_written(image, kind, settings) for image in images]
    seconds = _fastest(lambda: _read(files, images.ndim))
    reached = psnr(images, _read(files, images.ndim))
    return Stored(name, sum(map(len, files)) / len(files), reached, len(files) / seconds)


def as_lossy(name: str, images: Pixels, kind: str, least: float, **settings: Any) -> Stored:
    """Return files of the lowest quality that gives at least `least` dB PSNR, or of quality 100."""
    low, high = 1, 100
    while low < high:
        quality = (low + high) // 2
        files = [_written(image, kind, {"quality": quality}) for image in images]
        low, high = (
            (low, quality) if psnr(images, _read(files, images.ndim)) >= least else (quality + 1, high)
        )
    return as_files(f"{name}, quality {low}", images, kind, quality=low, **settings)


def as_pack(name: str, path: Path, images: Pixels) -> Stored:
    """Return what a pack takes that was built of these images, in this order."""
    decoded = _decoded(path)
    seconds = _fastest(lambda: _decoded(path))
    size = path.stat().st_size / len(images)
    return Stored(name, size, psnr(images, decoded), len(images) / seconds)


def _written(image: Pixels, kind: str, settings: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **settings)
    return file.getvalue()


def _read(files: Sequence[bytes], dimensions: int) -> Pixels:
    mode = "L" if dimensions == 3 else "RGB"
    return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert(mode)) for file in files])


def _decoded(path: Path) -> Pixels:
    with open_pack(path) as pack:
        pixels: Pixels = pixels_of(pack, device="cpu").transpose(0, 2, 3, 1)
    return pixels


def psnr(images: NDArray[Any], decoded: NDArray[Any], peak: int = 255) -> float:
    """Return the peak signal-to-noise ratio in dB over all pixels; infinite if they are the same."""
    error = float(np.sum((images.astype(np.float64) - decoded) ** 2))
    reached = psnr_db(error, peak**2 * images.size)
    return math.inf if reached is None else reached


def _fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some repetitions: what else the machine does only adds."""
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)
