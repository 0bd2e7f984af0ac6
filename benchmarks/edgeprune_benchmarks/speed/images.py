"""The images that decoding is timed on, as pixels, as packs and as JPEG files of the same PSNR."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune import open_source
from edgeprune_formats import ConfigError

from ..codec.matching import Curve, bracket
from ..codec.packs import ImageSet, build, measure_pack
from ..codec.peers import LOSSY, jpeg_library
from ..harness.images import lossless, photographs, unpack_photographs

__all__ = ["CODECS", "SIZES", "jpeg_like", "prepare", "timed_images", "without_images"]

SIZES = ("32x32", "224x224")
CODECS = {
    "sparse-f32": {"freq_prune": 0.5},
    "sparse-f16": {"freq_prune": 0.5},
    "quantized": {"quality": 80.0},
}


@dataclass(frozen=True)
class Jpeg:
    """JPEG files whose PSNR is nearest to a pack's: 4:2:0 where that reaches it, otherwise 4:4:4."""

    peer: int
    level: int
    psnr_db: float
    file_bytes: float

    @property
    def facts(self) -> dict[str, Any]:
        """What a result says of them."""
        name = f"{LOSSY[self.peer].name} q{self.level}"
        facts = {"name": name, "encoder": jpeg_library()}
        return {**facts, "psnr_db": self.psnr_db, "file_bytes": self.file_bytes}


def timed_images(data: Path, folder: Path, size: str, count: int | None) -> ImageSet:
    """Return images of a size, the first `count` of them.

    The photographs are too few for more than a batch, so each is there four times: as it is, mirrored,
    upside down and both.
    """
    if size == "32x32":
        images = ImageSet.of(open_source(f"npz:{lossless(data)}"), "cifar10")
    else:
        spec = f"imagefolder:{unpack_photographs(data, folder / 'photographs')}"
        source = open_source(spec, size=224)
        pixels = source.read(np.arange(len(source)))
        turned = [pixels, pixels[..., ::-1], pixels[:, :, ::-1], pixels[:, :, ::-1, ::-1]]
        images = ImageSet("photographs", np.concatenate(turned), np.tile(source.labels, 4))
    rows = np.random.default_rng(0).permutation(len(images.labels))[:count]
    return images.take(rows).renumbered()


def without_images(data: Path, sizes: tuple[str, ...]) -> dict[str, str]:
    """Return the sizes whose images are not in a folder, and why each is left out.

    Raises
    ------
    ConfigError
        No size is left.
    """
    files = {"32x32": lossless(data), "224x224": photographs(data)}
    missing = {size: f"{files[size].name} is not in the data" for size in sizes if not files[size].exists()}
    if len(missing) == len(sizes):
        names = " and ".join(files[size].name for size in sizes)
        raise ConfigError(f"{data}: {names} not found; give the folder that holds them with --data")
    return missing


def jpeg_like(images: NDArray[np.uint8], target: float) -> Jpeg:
    """Return the JPEG setting whose PSNR is nearest to `target` on some images."""
    for number, peer in enumerate(LOSSY[:2]):
        curve = Curve(peer, images)
        found = bracket(lambda level, curve=curve: curve(level).psnr_db, target, peer.levels)  # type: ignore[misc]
        if found is not None or number == 1:
            near = min(curve.points(), key=lambda point: abs(point.psnr_db - target))
            return Jpeg(number, int(near.level), near.psnr_db, near.file_bytes)
    raise AssertionError("LOSSY begins with two JPEG peers")


def prepare(data: Path, folder: Path, size: str, count: int | None) -> dict[str, Any]:
    """Write images and packs of a size to `folder`, and return the task of a timing process.

    Returns
    -------
    dict
        ``pixels`` and ``packs`` are paths; ``quality`` holds each pack's PSNR and bytes, ``jpeg`` the JPEG
        files of the same PSNR.
    """
    images = timed_images(data, folder, size, count)
    pixels = folder / f"{size}.npy"
    np.save(pixels, images.pixels)
    task: dict[str, Any] = {"size": size, "pixels": str(pixels), "packs": {}, "quality": {}, "jpeg": {}}
    for codec, config in CODECS.items():
        path = folder / f"{size}-{codec}.h5"
        with build(images, path, codec=codec, **config) as pack:
            point = measure_pack(images, pack, 0.0)
        task["packs"][codec] = str(path)
        task["quality"][codec] = {"psnr_db": point.psnr_db, "file_bytes": point.file_bytes}
        if codec != "sparse-f16":
            jpeg = jpeg_like(images.pixels[:1000], point.psnr_db)
            task["jpeg"][codec] = {"peer": jpeg.peer, "level": jpeg.level, **jpeg.facts}
    return task
