"""How the images of a pack are divided: into tiles, if it is quantized, and among chunks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgeprune_formats import ConfigError, PackHeader
from edgeprune_formats.codecs import get_codec
from edgeprune_formats.packs.chunks import plan_chunks

from ...psnr import psnr_db
from ...work.processes import Workers
from .encoder import Sample
from .quality import DEFAULT_ROUNDING

__all__ = ["laid_out", "sample_size"]

SAMPLE_IMAGES = 64
SAMPLE_PIXELS = 2**19
# Larger images are not transformed as a whole: the basis would cost a device more than the images.
WHOLE_IMAGE = 64
# The second step that each size is tried at, to compare sizes at the same error.
COARSER = 1.25


def sample_size(height: int, width: int) -> int:
    """Return how many images of a size in pixels are enough to compare tiles on."""
    return max(2, min(SAMPLE_IMAGES, SAMPLE_PIXELS // (height * width)))


def laid_out(
    header: PackHeader,
    tile: str | None,
    sample: Callable[[], Sample],
    *,
    rounding: str | None = None,
    workers: Workers | None = None,
    trial: Mapping[str, Any] | None = None,
) -> PackHeader:
    """Return the header with the tiles to use, for a codec that quantizes, and the images of a chunk.

    Where no size is given, each is tried on a sample by the first process: ``"full"`` for images of at most
    64 pixels a side, and tiles of 8, 16 and 32 pixels that are smaller than the image. Sizes differ in error
    at the same step, so each is encoded at two steps, and what counts is the bytes at the PSNR of the first
    size, by a straight line in PSNR and the logarithm of the bytes. A chunk's distributions count as they
    will in a chunk of the pack, not as in the sample. What was tried is added to the provenance as ``tile``.

    Parameters
    ----------
    header : PackHeader
        Complete but for ``tile`` and ``chunk_samples``.
    tile : str or None
        A size that is given.
    sample : callable
        Gives pixels, or spectra and masks, of some images, see `sample_size`; the same in every run.
    rounding : str or None
        See `edgeprune.BuildConfig`.
    workers : Workers, optional
        The processes that all need the header.
    trial : mapping, optional
        What an earlier trial added to the provenance: then no size is tried again.
    """
    if not header.step:
        return plan_chunks(header)
    sizes = _sizes(header) if tile is None else [tile]
    if len(sizes) == 1:
        return plan_chunks(replace(header, tile=sizes[0]))
    found = trial or _agreed(
        workers or Workers(), lambda: _compared(header, sizes, sample(), rounding or DEFAULT_ROUNDING)
    )
    # Of sizes that are equally good the first, which is the largest: fewer and longer transforms.
    best = min(found["bytes_per_image"], key=found["bytes_per_image"].__getitem__)
    return plan_chunks(replace(header, tile=best, provenance={**header.provenance, "tile": dict(found)}))


def _agreed(workers: Workers, compare: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what the first process finds, in all of them."""
    found = compare() if workers.rank == 0 else {}
    agreed: dict[str, Any] = json.loads(workers.from_first(json.dumps(found).encode()))
    return agreed


def _sizes(header: PackHeader) -> list[str]:
    longest = max(header.height, header.width)
    whole = ["full"] if longest <= WHOLE_IMAGE else []
    sides = sorted((int(size) for size in get_codec(header.codec).tiles if size.isdecimal()), reverse=True)
    return whole + [str(side) for side in sides if side < longest]


@dataclass(frozen=True)
class _Trial:
    """Bytes an image, and the PSNR in dB, at a step."""

    bytes: float
    psnr: float


def _compared(header: PackHeader, sizes: list[str], sample: Sample, rounding: str) -> dict[str, Any]:
    """Return the bytes an image of each size at one PSNR, and what they were measured on."""
    trials = {}
    for size in sizes:
        try:
            trials[size] = _tried(plan_chunks(replace(header, tile=size)), sample, rounding)
        except ConfigError:
            # A step so small that coefficients of such tiles do not fit the format.
            continue
    if not trials:
        return {"images": _images(sample), "psnr_db": None, "bytes_per_image": {sizes[-1]: None}}
    level = next(iter(trials.values()))[0].psnr
    costs = {size: round(_at(level, *pair), 1) for size, pair in trials.items()}
    return {
        "images": _images(sample),
        "psnr_db": level if math.isfinite(level) else None,
        "bytes_per_image": costs,
    }


def _tried(header: PackHeader, sample: Sample, rounding: str) -> tuple[_Trial, _Trial]:
    """Return what the sample takes at the header's step, and at a coarser one."""
    whole, psnr = _encoded(header, sample, rounding)
    count = _images(sample)
    fixed = _distributions(header, sample, rounding, whole) if header.samples > count else 0
    coarse, coarse_psnr = _encoded(replace(header, step=header.step * COARSER), sample, rounding)
    share = fixed / header.chunk_samples
    return _Trial((whole - fixed) / count + share, psnr), _Trial(
        (coarse - fixed) / count + share, coarse_psnr
    )


def _distributions(header: PackHeader, sample: Sample, rounding: str, whole: int) -> float:
    """Return the bytes of a chunk that do not grow with its images, from what half of the sample takes."""
    half = _images(sample) // 2
    first = (sample[0][:half], sample[1][:half]) if isinstance(sample, tuple) else sample[:half]
    of_half, _ = _encoded(header, first, rounding)
    each = (whole - of_half) / (_images(sample) - half)
    return max(0.0, whole - _images(sample) * each)


def _images(sample: Sample) -> int:
    return len(sample[0]) if isinstance(sample, tuple) else len(sample)


def _encoded(header: PackHeader, sample: Sample, rounding: str) -> tuple[int, float]:
    """Return the bytes of a chunk of these images, and their PSNR in dB."""
    codec = get_codec(header.codec)
    if isinstance(sample, tuple):
        spectra, mask = sample
        arrays = codec.encode(header, spectra, mask, rounding=rounding)
        error = codec.decode(header, arrays, len(spectra)).squared_error(header, spectra)
    else:
        arrays, error = codec.encode_pixels(header, sample, rounding=rounding)
    values = _images(sample) * math.prod(header.shape)
    psnr = psnr_db(error, values)
    return sum(array.nbytes for array in arrays.values()), math.inf if psnr is None else psnr


def _at(level: float, fine: _Trial, coarse: _Trial) -> float:
    """Return the bytes at a PSNR between, or a little beyond, those of two trials."""
    if not (math.isfinite(level) and math.isfinite(fine.psnr)) or fine.psnr <= coarse.psnr:
        return fine.bytes
    slope = math.log(max(fine.bytes, 1) / max(coarse.bytes, 1)) / (fine.psnr - coarse.psnr)
    return fine.bytes * math.exp(slope * (level - fine.psnr))
