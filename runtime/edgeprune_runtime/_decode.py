"""What all decoding backends share: sizes, bases and the arithmetic of normalisation."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import (
    Block,
    ConfigError,
    PackHeader,
    QuantizedBlock,
    color_matrix,
    color_shift,
    column_bits,
)

from .augmentation import Augmentation

__all__ = [
    "DecodePlan",
    "Decoder",
    "Normalize",
    "Resolution",
    "inverse_basis",
    "make_plan",
    "reach",
]

# The working arrays and results of one batch may take this much; a pack can declare huge images in few bytes.
MAX_BATCH_BYTES = 2**32
Resolution = int | tuple[int, int] | None
Normalize = bool | tuple[Sequence[float], Sequence[float]]


class Decoder(Protocol):
    """Turns blocks into batches of images; one instance serves one thread."""

    plan: DecodePlan

    def images(self, block: Block, rows: NDArray[np.int64], augmentation: Augmentation | None = None) -> Any:
        """Return the images at `rows` of a block, [n, C, h, w], as an array or tensor of the backend."""

    def labels(self, labels: NDArray[np.int64]) -> Any:
        """Return labels int64 [n] beside the images, on the same device."""


def inverse_basis(size: int, decoded: int) -> NDArray[np.float32]:
    """Return the matrix that takes the lowest `decoded` of `size` frequencies to `decoded` pixels.

    The inverse of the orthonormal DCT-II, ``B[k, i] = s_k cos(pi (2 i + 1) k / (2 d))`` with
    ``s_0 = sqrt(1/d)`` and otherwise ``sqrt(2/d)``, times ``sqrt(d / size)`` to keep the brightness of a
    spectrum that was taken at `size`.

    Returns
    -------
    float32 [decoded, decoded]
        Frequencies by pixels.
    """
    frequency, pixel = np.arange(decoded)[:, None], np.arange(decoded)[None, :]
    basis = np.cos(np.pi * (2 * pixel + 1) * frequency / (2 * decoded)) * math.sqrt(2 / decoded)
    basis[0] = math.sqrt(1 / decoded)
    return (basis * math.sqrt(decoded / size)).astype(np.float32)


@dataclass(frozen=True)
class DecodePlan:
    """How to decode the blocks of one pack.

    Attributes
    ----------
    header : PackHeader
    height, width : int
        Size of the decoded images in pixels, at most that of the pack.
    scale : float32 [C]
        What coefficients are multiplied by: 1/std, or 1 without normalisation.
    offset : float32 [C]
        What is subtracted from the scaled coefficient of frequency (0, 0): the mean, as a spectrum.
    tile : (int, int)
        Height and width in pixels of a decoded tile; those of the image where there are no tiles.
    matrix : float32 [C, C]
        What takes quantised coefficients of the stored planes to normalised red, green and blue.
    level : float32 [C]
        What is added to the pixels of a `QuantizedBlock` that `matrix` gave.
    """

    header: PackHeader
    height: int
    width: int
    scale: NDArray[np.float32]
    offset: NDArray[np.float32]
    tile: tuple[int, int]
    matrix: NDArray[np.float32]
    level: NDArray[np.float32]


def make_plan(header: PackHeader, *, normalize: Normalize, resolution: Resolution) -> DecodePlan:
    """Work out sizes and normalisation.

    Parameters
    ----------
    header : PackHeader
    normalize : bool or (mean, std)
        Subtract the mean and divide by the standard deviation of each channel: the pack's, or those given.
    resolution : int, (int, int) or None
        Height and width to decode at, from the truncated spectrum; one number for square images.

    Raises
    ------
    ConfigError
        The resolution is larger than the pack's images, or one number for images that are not square.
    """
    if resolution is None:
        height, width = header.height, header.width
    elif not isinstance(resolution, Sequence):
        if header.height != header.width:
            raise ConfigError(
                f"resolution must be (height, width): images are {header.height}x{header.width}"
            )
        height = width = operator.index(resolution)
    elif len(resolution) == 2:
        height, width = (operator.index(side) for side in resolution)
    else:
        raise ConfigError(f"resolution is one number or (height, width), not {resolution}")
    if not (1 <= height <= header.height and 1 <= width <= header.width):
        raise ConfigError(
            f"resolution {height}x{width} must be within 1x1 and the pack's {header.height}x{header.width}"
        )
    mean, std = _statistics(header, normalize)
    offset = mean / std * math.sqrt(header.height * header.width)
    colors = color_matrix(header.color_space)
    return DecodePlan(
        header,
        height,
        width,
        (1 / std).astype(np.float32),
        offset.astype(np.float32),
        _tile(header, height, width),
        (colors * header.step / std[:, None]).astype(np.float32),
        ((colors @ color_shift(header.color_space) - mean) / std).astype(np.float32),
    )


def _tile(header: PackHeader, height: int, width: int) -> tuple[int, int]:
    """Return the size of a decoded tile; raise `ConfigError` if it is not in whole pixels."""
    if header.block == "full":
        return height, width
    sides, sizes = header.block_shape, (header.height, header.width)
    shares = [(s * pixels, size) for s, pixels, size in zip(sides, (height, width), sizes, strict=True)]
    if any(whole % size for whole, size in shares):
        raise ConfigError(
            f"tiles of {header.block} pixels do not decode to {height}x{width} in whole pixels; "
            f"halve or quarter {sizes[0]}x{sizes[1]}, or decode at full size"
        )
    return shares[0][0] // sizes[0], shares[1][0] // sizes[1]


def reach(block: QuantizedBlock, rows: NDArray[np.int64], plan: DecodePlan) -> tuple[int, int]:
    """Return how many rows and columns of a tile's spectrum hold anything of these images."""
    most = int(block.extents.take(rows, axis=0).max(initial=0)) + 1
    return min(most, plan.tile[0]), min(most, plan.tile[1])


def _statistics(header: PackHeader, normalize: Normalize) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if normalize is False:
        return np.zeros(header.channels), np.ones(header.channels)
    if normalize is not True and not (isinstance(normalize, Sequence) and len(normalize) == 2):
        raise ConfigError(f"normalize is True, False or (mean, std), not {normalize!r}")
    mean, std = (header.mean, header.std) if normalize is True else normalize
    pair = np.array(mean, np.float64), np.array(std, np.float64)
    if any(values.shape != (header.channels,) for values in pair) or not (pair[1] > 0).all():
        raise ConfigError(f"normalize needs {header.channels} means and as many positive standard deviations")
    return pair


def check_batch(plan: DecodePlan, images: int) -> None:
    """Raise `ConfigError` if decoding so many images at once takes more than 4 GiB.

    Counted are the spectra, whose rows are padded to a power of two, the half transformed images, the
    images, and their augmented copy; all float32.
    """
    header = plan.header
    spectrum = header.height << column_bits(header.width)
    if header.step:
        spectrum = 2 * header.memory_bytes // header.channels
    each = 4 * header.channels * (spectrum + 3 * plan.height * plan.width)
    if images * each > MAX_BATCH_BYTES:
        size = f"{header.height}x{header.width}"
        raise ConfigError(
            f"a batch of {images} images {size} takes {images * each / 1e9:.1f} GB to decode; "
            f"lower the batch size to {MAX_BATCH_BYTES // each} or less"
        )
