"""What a pack says of itself: the header, and the bounds that a reader holds it to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ._blocks import position_dtype
from ._errors import Problem

__all__ = ["FORMAT_VERSION", "PackHeader", "header_problems"]

FORMAT_VERSION = "1.2"
TRANSFORM = "dct-ii-orthonormal"
COLOR_SPACES = ("rgb", "ycbcr")
BLOCKS = ("full", "8", "16", "32")
# The only codec with tiles, another colour space than RGB, and a quantisation step.
QUANTIZED = "quantized"
# A tile of more pixels than this has no tables for its coding order.
MAX_TILE_PIXELS = 2**16
TEXTS = ("format_version", "generator", "created", "codec", "transform", "block", "color_space")
INTEGERS = ("samples", "channels", "height", "width", "components", "chunk_samples")

MAX_SAMPLES = 2**31 - 1
MAX_SIDE = 2**16
MAX_IMAGE_VALUES = 2**26
MAX_CHUNK_BYTES = 2**28
MAX_CLASSES = 2**20
MAX_PROVENANCE_BYTES = 2**24
MAX_TEXT_BYTES = 4096


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
        Per channel, of the original pixels of the stored images scaled to [0, 1].
    color_space : str
        ``"rgb"`` or, with ``quantized``, ``"ycbcr"``.
    transform, block : str
        ``"dct-ii-orthonormal"`` over the ``"full"`` image or, with ``quantized``, over tiles of ``"8"``,
        ``"16"`` or ``"32"`` pixels a side.
    step : float
        Quantisation step for pixels on [0, 1]; 0 for a codec that does not quantise.
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
    block: str = "full"
    step: float = 0.0
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
    def block_shape(self) -> tuple[int, int]:
        """(height, width) of a tile in pixels; those of the image where there are no tiles."""
        side = int(self.block) if self.block.isdecimal() else 0
        return (side, side) if side else (self.height, self.width)

    @property
    def grid(self) -> tuple[int, int]:
        """Tiles down and across; the last ones may reach beyond the image."""
        height, width = self.block_shape
        return math.ceil(self.height / height), math.ceil(self.width / width)

    @property
    def memory_bytes(self) -> int:
        """Bytes of one image as a block in memory."""
        if self.codec != QUANTIZED:
            return self.sparse_bytes
        (down, across), (height, width) = self.grid, self.block_shape
        return 2 * self.channels * down * across * (height * width + 1)

    @property
    def sparse_bytes(self) -> int:
        """Bytes of one image as a `SparseBlock` in memory."""
        itemsize = 4 + position_dtype(self.height, self.width).itemsize
        return self.channels * self.components * itemsize


def _range(name: str, value: int, low: int, high: int, kind: str = "layout") -> Iterator[Problem]:
    if not low <= value <= high:
        yield Problem(kind, f"/ attribute {name}", f"{value} is not between {low} and {high}")


def _size_problems(header: PackHeader) -> Iterator[Problem]:
    yield from _range("samples", header.samples, 1, MAX_SAMPLES, "limit")
    for name in ("height", "width"):
        yield from _range(name, getattr(header, name), 1, MAX_SIDE, "limit")
    yield from _range("chunk_samples", header.chunk_samples, 1, max(1, header.samples), "limit")
    pixels = header.height * header.width
    yield from _range("components", header.components, 1, pixels, "limit")
    if header.block not in BLOCKS or pixels < 1:
        return
    (down, across), (height, width) = header.grid, header.block_shape
    if header.codec == QUANTIZED and height * width > MAX_TILE_PIXELS:
        yield Problem(
            "limit",
            "/ attribute block",
            f"a tile of {height}x{width} exceeds {MAX_TILE_PIXELS} pixels; choose smaller tiles (--block)",
        )
    if header.channels * max(pixels, down * across * height * width) > MAX_IMAGE_VALUES:
        yield Problem(
            "limit", "/ attribute height", f"an image of {header.shape} exceeds {MAX_IMAGE_VALUES} values"
        )
    size = header.chunk_samples * header.memory_bytes
    if size > MAX_CHUNK_BYTES:
        yield Problem(
            "limit", "/ attribute chunk_samples", f"a chunk of {size} B exceeds {MAX_CHUNK_BYTES} B"
        )


def header_problems(header: PackHeader) -> list[Problem]:
    """Return every defect of a header by itself, without looking at the file's data; [] if it is sound."""
    problems = list(_size_problems(header))

    def expect(name: str, ok: bool, message: str) -> None:
        if not ok:
            problems.append(Problem("layout", f"/ attribute {name}", message))

    spaces = COLOR_SPACES if header.codec == QUANTIZED else COLOR_SPACES[:1]
    expect(
        "color_space",
        header.color_space in spaces and header.channels == 3,
        f"{header.color_space!r} with {header.channels} channels; known: {', '.join(spaces)} with 3",
    )
    expect("transform", header.transform == TRANSFORM, f"{header.transform!r} is not {TRANSFORM!r}")
    if header.codec == QUANTIZED:
        expect("block", header.block in BLOCKS, f"{header.block!r} is not one of {', '.join(BLOCKS)}")
        expect("step", 0 < header.step < math.inf, f"{header.step} is not a positive number")
    else:
        expect("block", header.block == "full", f"{header.block!r} is not 'full'")
        expect("step", header.step == 0, f"{header.step} with a codec that does not quantise")
    for name in ("mean", "std"):
        values = getattr(header, name)
        sound = len(values) == header.channels and all(math.isfinite(v) for v in values)
        expect(name, sound, f"{values} is not one finite number a channel")
    expect("std", all(v > 0 for v in header.std), f"{header.std} is not positive")
    if not 1 <= len(header.class_names) <= MAX_CLASSES:
        problems.append(Problem("limit", "/class_names", f"{len(header.class_names)} classes"))
    twice = [name for name, count in Counter(header.class_names).items() if count > 1]
    if twice:
        problems.append(Problem("layout", "/class_names", f"{twice[0]!r} names more than one class"))
    return problems
