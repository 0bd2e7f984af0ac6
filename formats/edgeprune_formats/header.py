"""The header: what a pack says of itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FORMAT_VERSION", "INTEGERS", "TEXTS", "TRANSFORM", "PackHeader", "attribute_name"]

FORMAT_VERSION = "1.3"
TRANSFORM = "dct-ii-orthonormal"
TEXTS = ("format_version", "generator", "created", "codec", "transform", "tile", "color_space")
INTEGERS = ("samples", "channels", "height", "width", "components", "chunk_samples")
# The fields whose attributes in the file have another name.
_STORED_AS = {"tile": "block"}


def attribute_name(field_name: str) -> str:
    """Return the name that a field of the header has as an attribute of the file."""
    return _STORED_AS.get(field_name, field_name)


@dataclass(frozen=True)
class PackHeader:
    """Everything about a pack but its samples; the attribute table of formats/SPEC.md.

    Attributes
    ----------
    samples : int
        Number of images N.
    channels, height, width : int
        Size of the decoded images, in pixels.
    components : int
        K, the coefficients kept in each channel of each image.
    codec : str
        How coefficients are stored, e.g. ``"sparse-f32"``.
    chunk_samples : int
        Images in a chunk, the unit of storage and of the checksums; the last chunk may hold fewer.
    class_names : tuple of str
        A label is an index into it.
    mean, std : tuple of float
        Per channel, of the original pixels of the stored images scaled to [0, 1]; of a part of a split, or
        of an addition, those of the images that it belongs to.
    color_space : str
        ``"gray"`` of one channel; of three ``"rgb"`` or, with ``quantized``, ``"ycbcr"``; else ``"planes"``.
    transform, tile : str
        ``"dct-ii-orthonormal"`` over the ``"full"`` image or, with ``quantized``, over tiles of ``"8"``,
        ``"16"`` or ``"32"`` pixels a side. In the file this attribute is called ``block``.
    step : float
        Quantization step for pixels on [0, 1]; 0 for a codec that does not quantize.
    bits : int
        8 or 16: those of a channel of the original pixels, which 0 to ``2**bits - 1`` are scaled to [0, 1].
    format_version : str
        ``"MAJOR.MINOR"``.
    generator, created : str
        The software that wrote the file, and when (ISO 8601, UTC).
    provenance : mapping
        JSON object: source, build configuration, seed and library versions.
    """

    samples: int
    channels: int
    height: int
    width: int
    components: int
    codec: str
    chunk_samples: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    color_space: str = "rgb"
    transform: str = TRANSFORM
    tile: str = "full"
    step: float = 0.0
    bits: int = 8
    format_version: str = FORMAT_VERSION
    generator: str = ""
    created: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of a decoded image."""
        return self.channels, self.height, self.width

    @property
    def chunks(self) -> int:
        """Number of chunks, ``ceil(samples / chunk_samples)``."""
        return math.ceil(self.samples / self.chunk_samples)

    def chunk_rows(self, chunk: int) -> range:
        """Return the samples that chunk number `chunk` holds."""
        start = chunk * self.chunk_samples
        return range(start, min(start + self.chunk_samples, self.samples))

    @property
    def tile_shape(self) -> tuple[int, int]:
        """(height, width) of a tile in pixels; those of the image where there are no tiles."""
        side = int(self.tile) if self.tile.isdecimal() else 0
        return (side, side) if side else (self.height, self.width)

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles down and across; the last ones may reach beyond the image."""
        height, width = self.tile_shape
        return math.ceil(self.height / height), math.ceil(self.width / width)
