"""What one image costs in each stage of a build, from its file to the bytes of its chunk."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeprune.sources.check import read_piece
from edgeprune.sources.decoding.images import decode_image, pillow_guard
from edgeprune.sources.decoding.scaling import resize_and_crop
from edgeprune_formats import PackHeader, open_pack
from edgeprune_formats.coding.native import encoding_kernels
from edgeprune_formats.coding.payload import encode_payload, predict_dc
from edgeprune_formats.coding.rounding import rounded
from edgeprune_formats.tiles import color_matrix, scan_order

from ..harness.results import spread

__all__ = ["chunks_of", "measure_stages"]

# As large as photographs of a phone, width and height, and how many are enlarged to that.
_ENLARGED, _FEW = (4000, 3000), 4
_LARGE = "decoding and resizing 12 megapixels"

Pixels = NDArray[np.uint8]


def chunks_of(images: Pixels, size: int) -> Iterator[Pixels]:
    """Yield so many images at a time."""
    for start in range(0, len(images), size):
        yield images[start : start + size]


def measure_stages(folder: Path, images: Pixels, path: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Return the milliseconds of one image in each stage of a build.

    Parameters
    ----------
    folder : Path
        The files that the images were read from, of which as many are decoded.
    images : uint8 [n, 3, 224, 224]
    path : Path
        Their pack, for the header.
    rounds : int
        Repetitions, after one that is not counted.
    """
    files = sorted(str(file) for file in folder.rglob("*") if file.is_file())[: len(images)]
    with open_pack(path) as pack:
        header = pack.header
    with tempfile.TemporaryDirectory() as place:
        large = _enlarged(files[:_FEW], Path(place))
        return _in_milliseconds(lambda: _all_stages(files, large, images, header), rounds)


def _in_milliseconds(measure: Callable[[], dict[str, float]], rounds: int) -> dict[str, dict[str, float]]:
    seconds: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        found = measure()
        if number:
            for name, value in found.items():
                seconds.setdefault(name, []).append(1000 * value)
    return {name: spread(values) for name, values in seconds.items()}


def _all_stages(files: list[str], large: list[str], images: Pixels, header: PackHeader) -> dict[str, float]:
    found = _file_stages(files, images.shape[2])
    for part in chunks_of(images, header.chunk_samples):
        for name, value in {**_coding_stages(part, header), "hashing": _hashing(part)}.items():
            found[name] = found.get(name, 0.0) + value / len(images)
    return found | _large_stages(large, images.shape[2])


def _enlarged(files: list[str], folder: Path) -> list[str]:
    """Save photographs with as many pixels as a phone's have, in a folder."""
    made = [str(folder / f"{number}.jpg") for number in range(len(files))]
    for file, path in zip(files, made, strict=True):
        with Image.open(file) as image:
            image.convert("RGB").resize(_ENLARGED, Image.Resampling.BICUBIC).save(path, quality=90)
    return made


def _large_stages(files: list[str], side: int) -> dict[str, float]:
    found = {}
    with pillow_guard():
        for name, fast in ((_LARGE, False), (f"{_LARGE}, `--fast-jpeg`", True)):
            started = time.perf_counter()
            for file in files:
                decode_image(file, side, name=file, fast_jpeg=fast)
            found[name] = (time.perf_counter() - started) / len(files)
    return found


def _file_stages(files: list[str], side: int) -> dict[str, float]:
    decoding = resizing = 0.0
    with pillow_guard():
        for file in files:
            started = time.perf_counter()
            pixels = decode_image(file, None, name=file)
            decoding += time.perf_counter() - started
            image = Image.fromarray(pixels)
            started = time.perf_counter()
            np.array(resize_and_crop(image, side))
            resizing += time.perf_counter() - started
    return {"decoding the JPEG file": decoding / len(files), "resizing": resizing / len(files)}


def _coding_stages(images: Pixels, header: PackHeader) -> dict[str, float]:
    """Return the seconds of each part of `encode_pixels`, but for its measure of the error."""
    kernels, scan = encoding_kernels(), scan_order(*header.tile_shape)
    weights = (color_matrix(header.color_space) ** 2).sum(axis=0)
    moments = [time.perf_counter()]
    values = kernels.transform(images, header)
    moments.append(time.perf_counter())
    integers = rounded(values, "rdo", scan, weights, kernels)
    moments.append(time.perf_counter())
    predict_dc(integers, header.grid)
    encode_payload(list(integers), scan, kernels)
    moments.append(time.perf_counter())
    return dict(zip(("transform", "rounding", "coding"), np.diff(moments).tolist(), strict=True))


def _hashing(images: Pixels) -> float:
    """Return the seconds of what is found out of images beside reading them: SHA-256, and channel sums."""
    labels = np.zeros(len(images), np.int64)
    ready: Any = SimpleNamespace(shape=images.shape[1:], labels=labels, read=lambda _: images)
    started = time.perf_counter()
    read_piece(ready, np.arange(len(images)))
    return time.perf_counter() - started
