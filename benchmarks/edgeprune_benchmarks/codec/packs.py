"""Packs of images in memory: built, measured, and decoded to the pixels that one would look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeprune import BuildConfig, build_pack
from edgeprune.report.pixels import pixels_of
from edgeprune.sources import Source
from edgeprune.sources.arrays import ArraySource
from edgeprune_formats import ConfigError, Pack, open_pack
from edgeprune_formats.targets import Target

from .matching import Point
from .quality import psnr, ssim

__all__ = ["ImageSet", "build", "measure_pack", "read_8_bits", "zstd_bytes"]


def read_8_bits(source: Source, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Read images of 8 bits; raises `ConfigError` for others."""
    pixels = source.read(rows)
    if pixels.dtype != np.uint8:
        raise ConfigError(
            f"{source.spec}: has pixels of 16 bits, but only 8 bits are measured; pass 8-bit images"
        )
    return pixels.astype(np.uint8, copy=False)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Labeled images in memory.

    Attributes
    ----------
    name : str
        What they are, for a table.
    pixels : uint8 [N, 3, H, W]
    labels : int64 [N]
    targets : tuple of Target
        What their packs hold beside the labels.
    """

    name: str
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    targets: tuple[Target, ...] = ()

    @classmethod
    def of(cls, source: Source, name: str) -> ImageSet:
        """Read all images of a source."""
        return cls(name, read_8_bits(source, np.arange(len(source))), source.labels)

    def take(self, rows: NDArray[np.int64]) -> ImageSet:
        """Return some of the images."""
        taken = tuple(target.take(rows) for target in self.targets)
        return ImageSet(self.name, self.pixels[rows], self.labels[rows], taken)

    def joined(self, other: ImageSet) -> ImageSet:
        """Return these images and those of `other`, under the name of these and without targets."""
        pixels, labels = (self.pixels, other.pixels), (self.labels, other.labels)
        return ImageSet(self.name, np.concatenate(pixels), np.concatenate(labels))

    def renumbered(self) -> ImageSet:
        """Return the images with labels that leave out no number."""
        return ImageSet(self.name, self.pixels, np.unique(self.labels, return_inverse=True)[1])

    def source(self, split: str = "train") -> ArraySource:
        """Return the images as a source to build from."""
        names = tuple(str(label) for label in range(int(self.labels.max()) + 1))
        facts = self.name, split, None, names, self.labels, self.pixels, None, self.name
        return ArraySource(*facts, targets=self.targets)


def build(images: ImageSet, path: Path, **config: Any) -> Pack:
    """Build a pack of all images with these fields of `edgeprune.BuildConfig`, and open it.

    Unless `config` says otherwise in the paper's layout, and of codec quantized with one tile for each size
    of images: packs of a curve then differ in nothing but what is varied.
    """
    config = {"codec": "sparse-f32", **config}
    if config["codec"] == "quantized":
        config.setdefault("tile", "full" if max(images.pixels.shape[2:]) <= 64 else "16")
    build_pack(images.source(), path, BuildConfig(device="cpu", **config))
    return open_pack(path)


def measure_pack(images: ImageSet, pack: Pack, level: float) -> Point:
    """Return bytes an image, of the file and of its samples alone, and the quality of the pixels."""
    decoded, originals = pixels_of(pack, backend="scipy"), images.pixels[pack.source_index]
    return Point(
        level,
        pack.path.stat().st_size / len(pack),
        pack.payload_bytes / len(pack),
        psnr(decoded, originals),
        ssim(decoded, originals),
    )


def zstd_bytes(pack: Pack) -> float:
    """Return bytes an image of the same quantized integers through zstd at level 19, chunk by chunk.

    Frequency after frequency, signs folded into the lowest bit, and the low bytes of all before the high
    ones: what a general compressor makes of the coefficients where the codec's own coder is left out.
    """
    import zstandard

    compressor = zstandard.ZstdCompressor(level=19)
    total = 0
    for chunk in range(pack.header.chunks):
        values = pack.read_chunk(chunk).values
        total += len(compressor.compress(_planes(values, pack.header.tile_shape)))
    return total / len(pack)


def _planes(values: NDArray[np.int16], shape: tuple[int, int]) -> bytes:
    """Return the bytes of quantized coefficients, int16 [n, C, tiles, Bh * Bw]."""
    rows, columns = np.divmod(np.arange(shape[0] * shape[1]), shape[1])
    diagonal = np.lexsort((rows, rows + columns))
    # Channel, frequency, tile, image.
    ordered = np.ascontiguousarray(values[..., diagonal].transpose(1, 3, 2, 0)).astype(np.int32)
    folded = ((ordered << 1) ^ (ordered >> 31)).astype("<u2")
    planes: bytes = folded.view(np.uint8).reshape(-1, 2).T.tobytes()
    return planes
