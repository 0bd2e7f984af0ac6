"""What a pack is, and what its images take beside other forms."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import Pack

from ..sources import Source
from ..text import bytes_text, printable
from .album import evenly
from .comparison import Stored, as_files, as_lossy, psnr
from .pixels import images_of

__all__ = ["Sizes", "compare_sizes", "pack_facts"]

_MOST, _LEAST, _PIXELS = 256, 8, 2**21


@dataclass(frozen=True)
class Sizes:
    """Forms of the same images.

    Attributes
    ----------
    forms : list of Stored
        Bytes an image, and PSNR; NaN where it is not known.
    images : int
        How many the other forms were made of; 0 where there was no source.
    note : str
        What was left out, and why.
    """

    forms: list[Stored]
    images: int
    note: str

    @property
    def largest(self) -> float:
        """Bytes an image of the largest form."""
        return max(form.bytes_per_image for form in self.forms)


def pack_facts(pack: Pack) -> Iterator[tuple[str, str]]:
    """Give names and values for a list of what a pack is."""
    header, size = pack.header, pack.path.stat().st_size
    provenance = header.provenance
    source, result = provenance.get("source", {}), provenance.get("result", {})
    planes = f"{header.channels} channel{'' if header.channels == 1 else 's'} of {header.bits} bits"
    yield "images", f"{header.samples:,} of {header.width}x{header.height} pixels, {planes}"
    yield "file", f"{bytes_text(size)}, {size / header.samples:,.0f} B an image"
    share = header.components / (header.height * header.width)
    yield "codec", f"{header.codec}, {header.components:,} components a channel ({share:.1%})"
    if header.step:
        tiles = "whole images" if header.tile == "full" else f"tiles of {header.tile} pixels"
        peak = 2**header.bits - 1
        yield "quantized", f"{tiles}, {header.color_space}, step {peak * header.step:.2f} of {peak:,}"
    if isinstance(result.get("psnr_db"), int | float):
        yield "quality", f"{result['psnr_db']:.2f} dB PSNR against the original pixels"
    if header.class_names:
        yield "classes", f"{len(header.class_names):,}"
    for name, value in (("source", source.get("spec")), ("license", source.get("license"))):
        if isinstance(value, str):
            yield name, printable(value)
    yield "made by", printable(f"{header.generator}, {header.created}")
    yield "format", f"EdgePack {header.format_version}, {header.chunks:,} chunk{'s' * (header.chunks > 1)}"


def compare_sizes(pack: Pack, source: Source | None) -> Sizes:
    """Compare a pack with raw pixels and, where there is its source, with image files of a sample.

    JPEG and WebP get the lowest quality that gives at least the PSNR of the pack on the sample. Of images
    that are neither gray nor RGB each plane is a gray file.
    """
    header = pack.header
    size = pack.path.stat().st_size / header.samples
    raw = math.prod(header.shape) * header.bits // 8
    pixels = Stored(f"raw pixels, uint{header.bits}", raw, math.inf, None)
    if source is None:
        return Sizes(
            [pixels, Stored("this pack", size, math.nan, None)],
            0,
            "Files of PNG, JPEG and WebP are compared where the source is given.",
        )
    rows = evenly(len(pack), max(_LEAST, min(_MOST, _PIXELS // (header.height * header.width))))
    originals = source.read(pack.source_index[rows].astype(np.intp))
    reached = psnr(originals, images_of(pack, rows, header.bits), 2**header.bits - 1)
    packed = Stored("this pack", size, reached, None)
    if header.bits != 8:
        return Sizes(
            [pixels, packed], len(rows), "Files of PNG, JPEG and WebP are compared for images of 8 bits."
        )
    note = "" if header.channels in (1, 3) else "Each plane is a gray file."
    return Sizes([pixels, *_files(originals.astype(np.uint8), reached), packed], len(rows), note)


def _files(originals: NDArray[np.uint8], least: float) -> Iterator[Stored]:
    """Give the forms of images uint8 [n, C, H, W] as files."""
    n, channels, height, width = originals.shape
    is_color = channels == 3
    images = originals.transpose(0, 2, 3, 1).copy() if is_color else originals.reshape(-1, height, width)
    made = (
        as_files("PNG", images, "PNG", optimize=True),
        as_lossy("JPEG", images, "JPEG", least, optimize=True),
        as_lossy("WebP", images, "WEBP", least),
    )
    for form in made:
        yield Stored(form.name, form.bytes_per_image * len(images) / n, form.psnr, None)
