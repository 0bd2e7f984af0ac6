"""A large image folder made from a few photographs: seeded crops, kept on disk as JPEG files."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from edgeprune_formats import ConfigError

from ..harness.images import photographs

__all__ = ["SIDE", "crop", "write_crops"]

SIDE = 224
JPEG_QUALITY = 90
# Of the short side of a photograph.
SMALLEST = 0.3


def write_crops(data: Path, folder: Path, count: int) -> Path:
    """Write so many images as an image folder with one class for each photograph, and return the folder.

    What image k of a class is depends on class and k alone. Each class appears when it is complete, so that a
    run that was stopped goes on with those that are missing.

    Parameters
    ----------
    data : Path
        With the archive of photographs.
    folder : Path
        For this count alone: a class that is there is not looked at again.
    count : int
        As equally many of each class as can be.

    Raises
    ------
    ConfigError
        There are fewer images than photographs.
    """
    with zipfile.ZipFile(photographs(data)) as archive:
        names = sorted(name for name in archive.namelist() if not name.endswith("/"))
        if count < len(names):
            raise ConfigError(f"{count} images are fewer than the {len(names)} classes; give a larger number")
        folder.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(names):
            share = count * (number + 1) // len(names) - count * number // len(names)
            _write_class(archive, name, folder / Path(name).parent.name, number, share)
    return folder


def _write_class(archive: zipfile.ZipFile, name: str, target: Path, number: int, count: int) -> None:
    if target.exists():
        return
    # Beside the image folder, or a stopped run would leave a class that is not whole.
    partial_class = target.parent.with_name(f"{target.parent.name}.partial")
    shutil.rmtree(partial_class, ignore_errors=True)
    partial_class.mkdir()
    photograph = Image.open(io.BytesIO(archive.read(name))).convert("RGB")
    # Pillow leaves the interpreter's lock while it scales and encodes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(partial(_write_crop, photograph, partial_class, number), range(count)))
    partial_class.rename(target)


def _write_crop(photograph: Image.Image, folder: Path, number: int, index: int) -> None:
    crop(photograph, number, index).save(folder / f"{index:06d}.jpg", quality=JPEG_QUALITY)


def crop(photograph: Image.Image, number: int, index: int) -> Image.Image:
    """Return a square of 224x224 cut from a photograph at a random scale and place, half of them mirrored.

    Parameters
    ----------
    photograph : PIL.Image.Image
    number, index : int
        Class, and image within it: the seed.
    """
    random = np.random.default_rng([number, index])
    side = min(photograph.size) * random.uniform(SMALLEST, 1)
    left, top = ((length - side) * random.uniform() for length in photograph.size)
    box = (left, top, left + side, top + side)
    image = photograph.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
    return ImageOps.mirror(image) if random.uniform() < 0.5 else image
