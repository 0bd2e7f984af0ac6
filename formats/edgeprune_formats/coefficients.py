"""Coefficients of images in memory: what a codec decodes to, and what a decoder makes pixels of.

There are two layouts, sparse spectra of whole images and integers of tiles. A codec declares which of them
is its own (`Codec.layout`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError
from .tiles import color_matrix, color_shift, from_tiles, to_tiles

if TYPE_CHECKING:
    from .header import PackHeader

__all__ = [
    "Coefficients",
    "QuantizedCoefficients",
    "SparseCoefficients",
    "column_bits",
    "pack_positions",
    "position_dtype",
    "unpack_positions",
]

_C = TypeVar("_C", bound="Coefficients")


def column_bits(width: int) -> int:
    """Return how many low bits of a packed position hold the column: ``ceil(log2(width))``."""
    return (width - 1).bit_length()


def position_dtype(height: int, width: int) -> np.dtype[Any]:
    """Return uint16 where row and column bits fit 16 bits, else uint32 (paper, App. D: 5+5 and 8+8 bits)."""
    bits = column_bits(height) + column_bits(width)
    return np.dtype("<u2" if bits <= 16 else "<u4")


def pack_positions(flat: NDArray[np.integer[Any]], height: int, width: int) -> NDArray[Any]:
    """Pack row-major positions as ``row << column_bits | column``.

    Parameters
    ----------
    flat : int [...]
        Row-major positions, ``row * width + column``.
    height, width : int
        Size of the spectrum, which is that of the image, in pixels.

    Returns
    -------
    uint16 or uint32 [...]
    """
    row, column = np.divmod(flat, width)
    return ((row << column_bits(width)) | column).astype(position_dtype(height, width))


def unpack_positions(packed: NDArray[Any], width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (row, column), int64, of packed positions: the inverse of `pack_positions`."""
    wide = packed.astype(np.int64)
    bits = column_bits(width)
    return wide >> bits, wide & ((1 << bits) - 1)


class Coefficients(ABC):
    """Coefficients of n images, in two arrays whose first axis is that of the images.

    Attributes
    ----------
    values : array [n, C, ...]
    """

    values: NDArray[Any]

    @property
    @abstractmethod
    def arrays(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The values, and the array that says where they are or how far they reach."""

    @classmethod
    @abstractmethod
    def empty(cls: type[_C], header: PackHeader, samples: int) -> _C:
        """Allocate the coefficients of so many images of a pack, to be filled."""

    @classmethod
    @abstractmethod
    def image_bytes(cls, header: PackHeader) -> int:
        """Return the bytes that one image of a pack takes in memory."""

    @classmethod
    @abstractmethod
    def color_transform(cls, header: PackHeader) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (matrix [C, C], shift [C]): the channels of a pixel are ``matrix @ (plane + shift)``."""

    @abstractmethod
    def to_tiles(self, header: PackHeader) -> NDArray[np.float32]:
        """Return the spectra of all tiles, float32 [n, C, tiles, tile height * tile width], of the planes."""

    @abstractmethod
    def kept(self, header: PackHeader) -> NDArray[np.bool_]:
        """Return which frequencies an image holds in any tile, bool [n, C, tile height, tile width]."""

    @abstractmethod
    def squared_error(self, header: PackHeader, spectra: NDArray[np.float32]) -> float:
        """Return the squared error over all pixels on [0, 1].

        Parameters
        ----------
        header : PackHeader
        spectra : float32 [n, C, H, W]
            Of the original whole images.
        """

    def __len__(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return sum(array.nbytes for array in self.arrays)

    def empty_like(self: _C, samples: int) -> _C:
        """Allocate the coefficients of other images of the same shape, to be filled."""
        return type(self)(*(np.empty((samples, *array.shape[1:]), array.dtype) for array in self.arrays))

    def take(self: _C, rows: NDArray[np.intp] | slice) -> _C:
        """Return the images at `rows`, in that order; a slice gives views, indices give copies."""
        if isinstance(rows, slice):
            return type(self)(*(array[rows] for array in self.arrays))
        return type(self)(*(array.take(rows, axis=0) for array in self.arrays))

    def write(self, start: int, other: Coefficients) -> None:
        """Copy `other`, of the same layout, into the images from `start` on."""
        for array, given in zip(self.arrays, other.arrays, strict=True):
            array[start : start + len(other)] = given


@dataclass(frozen=True)
class SparseCoefficients(Coefficients):
    """Sparse spectra of n whole images, K coefficients in each channel.

    Attributes
    ----------
    values : float32 [n, C, K]
        Coefficients of the orthonormal 2-D DCT-II of pixels scaled to [0, 1].
    positions : uint16 or uint32 [n, C, K]
        Their packed positions, strictly ascending along the last axis (see `pack_positions`).
    """

    values: NDArray[np.float32]
    positions: NDArray[Any]

    def __post_init__(self) -> None:
        if self.values.shape != self.positions.shape or self.values.ndim != 3:
            raise ConfigError(
                f"values {self.values.shape} and positions {self.positions.shape} must both be [n, C, K]"
            )

    @property
    def arrays(self) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Values and positions."""
        return self.values, self.positions

    @classmethod
    def empty(cls, header: PackHeader, samples: int) -> SparseCoefficients:
        """Allocate the coefficients of so many images of a pack, to be filled."""
        shape = (samples, header.channels, header.components)
        return cls(np.empty(shape, np.float32), np.empty(shape, position_dtype(header.height, header.width)))

    @classmethod
    def image_bytes(cls, header: PackHeader) -> int:
        """Return the bytes that one image takes: 6 or 8 a coefficient."""
        itemsize = 4 + position_dtype(header.height, header.width).itemsize
        return header.channels * header.components * itemsize

    @classmethod
    def color_transform(cls, header: PackHeader) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the identity and 0: these are spectra of the channels themselves."""
        return np.eye(header.channels), np.zeros(header.channels)

    def to_dense(self, height: int, width: int) -> NDArray[np.float32]:
        """Return the full spectra, float32 [n, C, height, width], zeros where nothing was kept."""
        return self._scattered(self.values, height, width)

    def to_tiles(self, header: PackHeader) -> NDArray[np.float32]:
        """Return the full spectra as those of one tile; see `Coefficients.to_tiles`."""
        dense = self.to_dense(header.height, header.width)
        return dense.reshape(*dense.shape[:2], 1, -1)

    def kept(self, header: PackHeader) -> NDArray[np.bool_]:
        """Return the mask, bool [n, C, H, W]: true at each position, also where the value is zero."""
        return self._scattered(np.ones(self.positions.shape, bool), header.height, header.width)

    def squared_error(self, header: PackHeader, spectra: NDArray[np.float32]) -> float:
        """Return that of the coefficients, which is the same (Parseval)."""
        error = (spectra - self.to_dense(header.height, header.width)).reshape(-1)
        return float(np.dot(error, error))

    def _scattered(self, values: NDArray[Any], height: int, width: int) -> NDArray[Any]:
        n, channels, _ = values.shape
        dense = np.zeros((n, channels, height, width), values.dtype)
        row, column = unpack_positions(self.positions, width)
        np.put_along_axis(dense.reshape(n, channels, -1), row * width + column, values, axis=2)
        return dense


@dataclass(frozen=True)
class QuantizedCoefficients(Coefficients):
    """Quantized spectra of the tiles of n images.

    Attributes
    ----------
    values : int16 [n, C, tiles, tile height * tile width]
        Coefficients over the pack's quantization step: planes of the pack's color space, tiles row by row,
        each in raster order of its frequencies.
    extents : uint16 [n, C, tiles]
        Coefficients whose frequencies (u, v) have ``u + v`` above this are zero.
    """

    values: NDArray[np.int16]
    extents: NDArray[np.uint16]

    def __post_init__(self) -> None:
        if self.values.ndim != 4 or self.values.shape[:3] != self.extents.shape:
            raise ConfigError(
                f"values {self.values.shape} and extents {self.extents.shape} must be [n, C, tiles, F] "
                "and [n, C, tiles]"
            )

    @property
    def arrays(self) -> tuple[NDArray[np.int16], NDArray[np.uint16]]:
        """Values and extents."""
        return self.values, self.extents

    @classmethod
    def empty(cls, header: PackHeader, samples: int) -> QuantizedCoefficients:
        """Allocate the coefficients of so many images of a pack, to be filled."""
        shape = (samples, header.channels, math.prod(header.grid))
        return cls(np.empty((*shape, math.prod(header.tile_shape)), np.int16), np.empty(shape, np.uint16))

    @classmethod
    def image_bytes(cls, header: PackHeader) -> int:
        """Return the bytes that one image takes: 2 a frequency and 2 a tile, of each plane."""
        return 2 * header.channels * math.prod(header.grid) * (math.prod(header.tile_shape) + 1)

    @classmethod
    def color_transform(cls, header: PackHeader) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return `color_matrix` and `color_shift` of the pack's color space."""
        return (
            color_matrix(header.color_space, header.channels),
            color_shift(header.color_space, header.channels),
        )

    def to_tiles(self, header: PackHeader) -> NDArray[np.float32]:
        """Return the values times the step; see `Coefficients.to_tiles`."""
        return np.asarray(self.values * np.float32(header.step))

    def kept(self, header: PackHeader) -> NDArray[np.bool_]:
        """Return which frequencies are not zero in some tile, bool [n, C, tile height, tile width]."""
        some: NDArray[np.bool_] = (self.values != 0).any(axis=2)
        return some.reshape(*some.shape[:2], *header.tile_shape)

    def squared_error(self, header: PackHeader, spectra: NDArray[np.float32]) -> float:
        """Return that of the pixels; padding of the last tiles does not count."""
        error = to_tiles(spectra, header.tile_shape, header.grid, header.color_space)
        error -= self.to_tiles(header)
        size = (header.height, header.width)
        pixels = from_tiles(error, header.tile_shape, header.grid, size, header.color_space)
        return float(np.sum(pixels**2))
