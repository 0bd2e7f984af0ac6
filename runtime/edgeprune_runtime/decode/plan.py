"""What all decoding backends share: sizes, bases and the arithmetic of normalization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeprune_formats import ConfigError, PackHeader
from edgeprune_formats.codecs import get_codec
from edgeprune_formats.coefficients import Coefficients, SparseCoefficients, column_bits
from edgeprune_formats.tiles import dct_basis

from ..checks import shortened, whole_number
from ..normalization import Normalization
from .augmentation import Augmentation

__all__ = [
    "DecodePlan",
    "Decoder",
    "Normalize",
    "Resolution",
    "basis_fits",
    "check_batch",
    "full_size",
    "held_sides",
    "inverse_basis",
    "make_plan",
]

# The working arrays and results of one batch may take this much; a pack can declare huge images in few bytes.
MAX_BATCH_BYTES = 2**32
# A basis of this side takes 16 MiB; those of larger ones would take more than the images.
LARGEST_BASIS = 2048
Resolution = int | tuple[int, int] | None
Normalize = bool | tuple[Sequence[float], Sequence[float]]


class Decoder(Protocol):
    """Turns coefficients into batches of images; one instance serves one thread."""

    plan: DecodePlan

    @property
    def in_background(self) -> bool:
        """Whether a thread of ours may decode while the process forks in another.

        Not where numpy multiplies matrices: with the OpenBLAS of numpy 1, a fork during a product hangs the
        parent, the child, or both. Whoever forks need not know that a loader has started a thread.
        """

    def room(self, count: int) -> Any | None:
        """Return memory for the images of a batch that `images` can write again and again.

        None on a CUDA device, where torch's allocator hands out the same memory again by itself.
        """

    def images(
        self,
        coefficients: Coefficients,
        rows: NDArray[np.int64],
        augmentation: Augmentation | None = None,
        out: Any | None = None,
    ) -> Any:
        """Return the images at `rows`, [n, C, h, w], as the backend's array or tensor: `out`, if given."""

    def labels(self, labels: NDArray[np.int64]) -> Any:
        """Return labels int64 [n] beside the images, on the same device."""

    def receive(self, images: Any, labels: Any) -> None:
        """Make images and labels that another thread decoded ready for use in this one."""


def inverse_basis(size: int, decoded: int) -> NDArray[np.float32]:
    """Return the matrix that takes the lowest `decoded` of `size` frequencies to `decoded` pixels.

    The inverse of the orthonormal DCT-II, times ``sqrt(d / size)`` to keep the brightness of a spectrum that
    was taken at `size`.

    Returns
    -------
    float32 [decoded, decoded]
        Frequencies by pixels.
    """
    return (dct_basis(decoded) * math.sqrt(decoded / size)).astype(np.float32)


def basis_fits(plan: DecodePlan) -> bool:
    """Return whether tiles are transformed by matrices; those that are too large are whole images."""
    return max(plan.tile) <= LARGEST_BASIS


@dataclass(frozen=True)
class DecodePlan:
    """How to decode one pack.

    Pixels of the stored planes, p, become those of the images by ``matrix @ p + offset``; a coefficient of
    frequency (0, 0) carries a constant times the square root of the pixels of its spectrum.

    Attributes
    ----------
    header : PackHeader
    layout : type of Coefficients
        What the pack's codec gives, by which a decoder chooses what it does.
    height, width : int
        Size of the decoded images in pixels, at most that of the pack.
    tile : (int, int)
        Size of a decoded tile in pixels; (height, width) where the transform is of the whole image.
    matrix : float32 [C, C]
        From the stored planes to the channels; divided by the standard deviation, if it is normalized.
    offset : float32 [C]
        What is then added: the level that was subtracted before the transform, less the mean.
    scale : float32 [C]
        1/std, or 1 without normalization.
    """

    header: PackHeader
    layout: type[Coefficients]
    height: int
    width: int
    tile: tuple[int, int]
    matrix: NDArray[np.float32]
    offset: NDArray[np.float32]
    scale: NDArray[np.float32]

    @property
    def constant(self) -> NDArray[np.float32]:
        """`offset` as a coefficient of frequency (0, 0), float32 [C]."""
        constant: NDArray[np.float32] = self.offset * np.float32(math.sqrt(math.prod(self.header.tile_shape)))
        return constant


def make_plan(header: PackHeader, *, normalize: Normalize, resolution: Resolution) -> DecodePlan:
    """Work out sizes and normalization.

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
        The resolution is larger than the pack's images, cuts the pixels of tiles, or is one number for
        images that are not square.
    """
    height, width = _size(header, resolution)
    tile = (
        _tile_side(header.height, header.tile_shape[0], height),
        _tile_side(header.width, header.tile_shape[1], width),
    )
    mean, std = _statistics(header, normalize)
    layout = get_codec(header.codec).layout
    matrix, shift = layout.color_transform(header)
    level = matrix @ shift
    return DecodePlan(
        header,
        layout,
        height,
        width,
        tile,
        (matrix / std[:, None]).astype(np.float32),
        ((level - mean) / std).astype(np.float32),
        (1 / std).astype(np.float32),
    )


def _size(header: PackHeader, resolution: Resolution) -> tuple[int, int]:
    if resolution is None:
        return header.height, header.width
    if isinstance(resolution, str) or not isinstance(resolution, Sequence):
        if header.height != header.width:
            raise ConfigError(
                f"`resolution` must be (height, width): images are {header.height}x{header.width}"
            )
        height = width = whole_number("resolution", resolution)
    elif len(resolution) == 2:
        height, width = (whole_number("resolution", side) for side in resolution)
    else:
        raise ConfigError(f"`resolution` is one number or (height, width), not {resolution}")
    if not (1 <= height <= header.height and 1 <= width <= header.width):
        raise ConfigError(
            f"`resolution` {height}x{width} must be within 1x1 and the pack's {header.height}x{header.width}"
        )
    return height, width


def _tile_side(stored: int, tile: int, decoded: int) -> int:
    """Return the pixels that a tile's side decodes to, so that `stored` pixels become `decoded`."""
    if stored == tile:
        return decoded
    # A last tile that is not full gives the pixels that it touches.
    sides = {math.ceil(stored * side / tile): side for side in range(1, tile + 1)}
    if decoded not in sides:
        known = ", ".join(map(str, sides))
        raise ConfigError(
            f"`resolution` {decoded} does not fit this pack's tiles of {tile} pixels; choose one of {known}"
        )
    return sides[decoded]


def _statistics(header: PackHeader, normalize: Normalize) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if normalize is False:
        return np.zeros(header.channels), np.ones(header.channels)
    if normalize is not True and not (isinstance(normalize, Sequence) and len(normalize) == 2):
        raise ConfigError(f"`normalize` is True, False or (mean, std), not {shortened(normalize)}")
    mean, std = (header.mean, header.std) if normalize is True else normalize
    given = Normalization(mean, std)
    if len(given.mean) != header.channels:
        raise ConfigError(f"`normalize` has {len(given.mean)} means and the pack {header.channels} channels")
    return np.array(given.mean, np.float64), np.array(given.std, np.float64)


def batch_shape(plan: DecodePlan, count: int) -> tuple[int, int, int, int]:
    """Return the shape of so many decoded images."""
    return count, plan.header.channels, plan.height, plan.width


def full_size(plan: DecodePlan) -> tuple[int, int]:
    """Return height and width in pixels of all decoded tiles, padding included."""
    rows, columns = plan.header.grid
    return rows * plan.tile[0], columns * plan.tile[1]


def held_sides(plan: DecodePlan, extents: NDArray[np.uint16]) -> tuple[int, int]:
    """Return how many rows and columns of the tiles' spectra to decode: those beyond are zero or too fine."""
    most = int(extents.max(initial=0)) + 1
    return min(most, plan.tile[0]), min(most, plan.tile[1])


def check_batch(plan: DecodePlan, images: int) -> None:
    """Raise `ConfigError` if decoding so many images at once takes more than 4 GiB.

    Counted are the spectra, whose rows are padded to a power of two where they are sparse, the half
    transformed images, the images, and their augmented copy; all float32.
    """
    header = plan.header
    (rows, columns), (down, across) = header.grid, header.tile_shape
    if plan.layout is SparseCoefficients:
        across = 1 << column_bits(header.width)
    each = 4 * header.channels * (rows * columns * down * across + 3 * plan.height * plan.width)
    if images * each > MAX_BATCH_BYTES:
        size = f"{header.height}x{header.width}"
        raise ConfigError(
            f"a batch of {images} images {size} takes {images * each / 1e9:.1f} GB to decode; "
            f"lower `batch_size` to {MAX_BATCH_BYTES // each} or less"
        )
